"""The settings of SmoothQuant, and the labels that they are written as."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields
from numbers import Real
from typing import TYPE_CHECKING

from optuna_quant._common.nearest import did_you_mean_inside
from optuna_quant.backends.onnxruntime.recipes.labels import read_settings
from optuna_quant.backends.onnxruntime.recipes.labels import settings_label


if TYPE_CHECKING:
    from collections.abc import Mapping


AUTO = "auto"

OP_TYPES = ("MatMul", "Gemm", "Conv")

_CRITERIA = ("mean", "min", "max")


def _part(name: str, value: object, more: str = "") -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1{more}, but is {value!r}")
    return float(value)


@dataclass(frozen=True, kw_only=True)
class AutoAlpha:
    """Which alphas are tried where each op gets its own.

    Args:
        alpha_min:
            The least.
        alpha_max:
            The greatest.
        alpha_step:
            From one to the next.
        shared_criterion:
            What is made of the errors of ops that share their factors: ``"mean"``, ``"min"`` or
            ``"max"``.
    """

    alpha_min: float = 0.0
    alpha_max: float = 1.0
    alpha_step: float = 0.1
    shared_criterion: str = "mean"

    def __post_init__(self) -> None:
        for name in ("alpha_min", "alpha_max", "alpha_step"):
            object.__setattr__(self, name, _part(name, getattr(self, name)))
        if self.alpha_min > self.alpha_max or not self.alpha_step:
            raise ValueError(
                "alpha_min must not be above alpha_max, and alpha_step must be above 0, but they "
                f"are {self.alpha_min:g}, {self.alpha_max:g} and {self.alpha_step:g}"
            )
        if self.shared_criterion not in _CRITERIA:
            raise ValueError(
                f"shared_criterion must be one of {', '.join(_CRITERIA)}, but is "
                f"{self.shared_criterion!r}"
            )

    @property
    def alphas(self) -> tuple[float, ...]:
        """The alphas, the least first."""
        count = int((self.alpha_max - self.alpha_min) / self.alpha_step + 1e-6)
        return tuple(round(self.alpha_min + i * self.alpha_step, 6) for i in range(count + 1))


@dataclass(frozen=True, kw_only=True)
class SmoothQuantSettings:
    """How a graph is smoothed.

    Args:
        alpha:
            How much of the difficulty goes from the activations to the weights: 0 none of it, 1
            all. ``"auto"``: for each op the one with the least error.
        folding:
            Whether factors are taken in by the constants of what gives the activation, where that
            can be. Where it cannot, there is a Mul before a MatMul or Gemm, and a Conv is left as
            it is. Without folding there is a Mul before each op.
        scales_per_op:
            Whether ops that read the same tensor have factors of their own, each with a Mul of
            its own; otherwise they share them, which may need none.
        weight_clip:
            Whether channels of weights that are smaller than 1e-5 count as so large, so that
            factors stay within bounds.
        op_types:
            Which ops are smoothed.
        auto:
            Which alphas are tried with ``"auto"``.
    """

    alpha: float | str = 0.5
    folding: bool = True
    scales_per_op: bool = True
    weight_clip: bool = True
    op_types: tuple[str, ...] = OP_TYPES
    auto: AutoAlpha = AutoAlpha()

    def __post_init__(self) -> None:
        if self.alpha != AUTO:
            object.__setattr__(self, "alpha", _part("alpha", self.alpha, " or 'auto'"))
        for name in ("folding", "scales_per_op", "weight_clip"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, but is {getattr(self, name)!r}")
        unknown = [each for each in self.op_types if each not in OP_TYPES]
        if unknown or not self.op_types:
            raise ValueError(
                f"op_types must be some of {', '.join(OP_TYPES)}, but has {unknown or 'none'}"
            )

    @property
    def label(self) -> str:
        """The value of the recipe: alpha, and what is not as usual."""
        shown: dict[str, object] = {"alpha": self.alpha}
        usual = SmoothQuantSettings()
        for name in ("folding", "scales_per_op", "weight_clip"):
            if getattr(self, name) != getattr(usual, name):
                shown[name] = getattr(self, name)
        if self.op_types != usual.op_types:
            shown["op_types"] = "+".join(self.op_types)
        if self.alpha == AUTO:
            for each in fields(AutoAlpha):
                value = getattr(self.auto, each.name)
                if value != getattr(usual.auto, each.name):
                    shown[each.name] = value
        return settings_label(shown)

    @classmethod
    def from_label(cls, label: str) -> SmoothQuantSettings:
        """The settings that a label stands for.

        Raises:
            ValueError:
                If it is no label of settings, or not the one that is written for them.
        """
        texts = read_settings(label)
        auto = {each.name for each in fields(AutoAlpha)}
        known = ["alpha", "folding", "scales_per_op", "weight_clip", "op_types", *auto]
        for name in texts:
            if name not in known:
                raise ValueError(f"there is no setting {name!r}{did_you_mean_inside(name, known)}")
        given: dict[str, object] = {name: _value(text) for name, text in texts.items()}
        found = cls.of(
            given.pop("alpha", None),
            {n: v for n, v in given.items() if n not in auto},
            {n: v for n, v in given.items() if n in auto},
        )
        if found.label != label:
            raise ValueError(f"it is written as {found.label!r}")
        return found

    @classmethod
    def of(
        cls, alpha: object, others: Mapping[str, object], auto: Mapping[str, object]
    ) -> SmoothQuantSettings:
        """The settings from single values.

        Args:
            alpha:
                The alpha; None for the usual one.
            others:
                The other fields, by name.
            auto:
                The fields of :class:`AutoAlpha`.

        Raises:
            ValueError:
                If a value is none.
        """
        values = {name: value for name, value in others.items() if value is not None}
        types = values.get("op_types")
        if isinstance(types, str):
            types = types.split("+")
        if types is not None:
            if not isinstance(types, list | tuple):
                raise ValueError(f"op_types must be a list of op types, but is {types!r}")
            values["op_types"] = tuple(each for each in OP_TYPES if each in types) + tuple(
                str(each) for each in types if each not in OP_TYPES
            )
        if alpha is not None:
            values["alpha"] = alpha
        return cls(**values, auto=AutoAlpha(**auto))  # type: ignore[arg-type]


def _value(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
