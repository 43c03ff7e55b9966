"""Values that say how a model is quantized: tensor, op and whole-model configurations.

All of them are immutable and hashable. An :class:`OpConfig` has a short label that parses back to
the same value; the labels are the choices of the categorical parameters of a study. A
:class:`QuantConfig` has a content key that is the same in every process and Python version.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
import json
import math
import re
from types import MappingProxyType
from typing import Any

from optuna_quant._common.counts import check_positive
from optuna_quant.space.keys import KEY_MODULUS
from optuna_quant.space.keys import RecipeValue
from optuna_quant.space.keys import calibration_digest
from optuna_quant.space.keys import combine_digests
from optuna_quant.space.keys import op_digest
from optuna_quant.space.keys import recipe_digest


QUANTIZED_MODES = ("static", "dynamic", "weight_only")
FLOAT_MODES = ("fp32", "bf16", "fp16")
MODES = QUANTIZED_MODES + FLOAT_MODES

DTYPES = ("uint8", "int8", "uint16", "int16", "uint4", "int4", "int3", "int2")
SCHEMES = ("sym", "asym")
GRANULARITIES = ("per_tensor", "per_channel", "per_group")
ACCURACY_LEVELS = (0, 1, 2, 3, 4)

_ALGORITHM = re.compile(r"[a-z][a-z0-9_]*")


def _require(name: str, value: object, known: Iterable[str]) -> None:
    choices = tuple(known)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but got {value!r}.")


@dataclass(frozen=True)
class TensorConfig:
    """How one tensor of an op, its activation or its weight, is quantized.

    Args:
        dtype:
            The integer type, one of :data:`DTYPES`.
        scheme:
            ``"sym"`` (the zero point is the middle of the range) or ``"asym"``.
        granularity:
            ``"per_tensor"``, ``"per_channel"`` or ``"per_group"``: how many values share a scale.
        algorithm:
            How the range is found: ``"minmax"``, ``"kl"``, ``"percentile"``, ``"mse"``,
            ``"mean_minmax"``, or the name of a weight-only algorithm such as ``"rtn"``.
        group_size:
            The number of values that share a scale; given exactly if ``granularity`` is
            ``"per_group"``.

    Raises:
        ValueError:
            If a value is not known, or ``group_size`` does not fit ``granularity``.
    """

    dtype: str
    scheme: str = "asym"
    granularity: str = "per_tensor"
    algorithm: str = "minmax"
    group_size: int | None = None

    def __post_init__(self) -> None:
        _require("dtype", self.dtype, DTYPES)
        _require("scheme", self.scheme, SCHEMES)
        _require("granularity", self.granularity, GRANULARITIES)
        if not isinstance(self.algorithm, str) or not _ALGORITHM.fullmatch(self.algorithm):
            raise ValueError(
                "algorithm must be a lower-case name such as 'minmax', "
                f"but got {self.algorithm!r}."
            )
        if (self.granularity == "per_group") != (self.group_size is not None):
            raise ValueError(
                "group_size must be given exactly if granularity is 'per_group', but got "
                f"granularity={self.granularity!r} and group_size={self.group_size!r}."
            )
        if self.group_size is not None:
            check_positive("group_size", self.group_size)

    @property
    def bits(self) -> int:
        """The width of one value in bits."""
        return int(self.dtype.lstrip("uint"))

    @cached_property
    def label(self) -> str:
        """The value as text, for instance ``int8/sym/per_channel/minmax``."""
        group = "" if self.group_size is None else f"={self.group_size}"
        return f"{self.dtype}/{self.scheme}/{self.granularity}{group}/{self.algorithm}"

    @classmethod
    def from_label(cls, label: str) -> TensorConfig:
        """Parse what :attr:`label` gives.

        Raises:
            ValueError:
                If ``label`` is not such a text.
        """
        parts = label.split("/")
        if len(parts) != 4:
            raise ValueError(
                f"{label!r} is not a tensor label: expected dtype/scheme/granularity/algorithm."
            )
        dtype, scheme, granularity, algorithm = parts
        granularity, equals, digits = granularity.partition("=")
        if equals and not (digits.isascii() and digits.isdigit() and str(int(digits)) == digits):
            raise ValueError(f"{label!r} is not a tensor label: bad group size {digits!r}.")
        return cls(dtype, scheme, granularity, algorithm, int(digits) if equals else None)


@dataclass(frozen=True)
class OpConfig:
    """One way to run one op.

    Args:
        mode:
            ``"static"``, ``"dynamic"`` or ``"weight_only"`` for a quantized op; ``"fp32"``,
            ``"bf16"`` or ``"fp16"`` for an op that is not.
        activation:
            How the op's activations are quantized. Needed for static mode.
        weight:
            How its weight is quantized. :obj:`None` for an op without one.
        accuracy_level:
            The type in which an op in weight-only mode computes, as the attribute of that name
            of ONNX Runtime's ``MatMulNBits``: 1 for float32, 2 for float16, 3 for bfloat16, 4 for
            int8 (the activation is quantized at run time, block by block), 0 for the runtime's
            choice. :obj:`None` for an op that has no such choice.

    Raises:
        ValueError:
            If the activation, the weight or the accuracy level does not fit the mode.
    """

    mode: str
    activation: TensorConfig | None = None
    weight: TensorConfig | None = None
    accuracy_level: int | None = None

    def __post_init__(self) -> None:
        _require("mode", self.mode, MODES)
        for side in ("activation", "weight"):
            value = getattr(self, side)
            if value is not None and not isinstance(value, TensorConfig):
                raise ValueError(f"{side} must be a TensorConfig or None, but got {value!r}.")
        if self.mode in FLOAT_MODES and (self.activation or self.weight):
            raise ValueError(f"An op in {self.mode} has no quantized activation or weight.")
        if self.mode == "static" and self.activation is None:
            raise ValueError("An op in static mode needs an activation configuration.")
        if self.mode == "weight_only" and (self.activation or not self.weight):
            raise ValueError(
                "An op in weight_only mode needs a weight configuration and no other."
            )
        if self.mode == "dynamic" and not (self.activation or self.weight):
            raise ValueError("An op in dynamic mode needs an activation or a weight.")
        if self.accuracy_level is not None:
            self._check_accuracy_level()

    def _check_accuracy_level(self) -> None:
        level = self.accuracy_level
        if isinstance(level, bool) or level not in ACCURACY_LEVELS:
            known = ", ".join(map(str, ACCURACY_LEVELS))
            raise ValueError(f"accuracy_level must be one of {known}, but got {level!r}.")
        if self.mode != "weight_only":
            raise ValueError(
                f"Only an op in weight_only mode has a level, not one in {self.mode}."
            )

    @property
    def is_quantized(self) -> bool:
        """Whether the op runs in a quantized mode; otherwise it is in fallback."""
        return self.mode in QUANTIZED_MODES

    @cached_property
    def label(self) -> str:
        """The value as text.

        For instance ``static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax``, or
        ``weight_only w=int4/asym/per_group=32/rtn level=4``.
        """
        parts = [self.mode]
        if self.activation is not None:
            parts.append(f"a={self.activation.label}")
        if self.weight is not None:
            parts.append(f"w={self.weight.label}")
        if self.accuracy_level is not None:
            parts.append(f"level={self.accuracy_level}")
        return " ".join(parts)

    @classmethod
    def from_label(cls, label: str) -> OpConfig:
        """Parse what :attr:`label` gives.

        Raises:
            ValueError:
                If ``label`` is not such a text.
        """
        mode, *parts = label.split(" ")
        level = None
        if parts and parts[-1].startswith("level="):
            level = _level(label, parts.pop())
        sides = {"a": None, "w": None} | dict(_side(label, part) for part in parts)
        config = cls(mode, sides["a"], sides["w"], level)
        if config.label != label:
            raise ValueError(f"{label!r} is not an op label: it would be {config.label!r}.")
        return config

    def __str__(self) -> str:
        return self.label


def _side(label: str, part: str) -> tuple[str, TensorConfig]:
    side, equals, text = part.partition("=")
    if side not in ("a", "w") or not equals:
        raise ValueError(f"{label!r} is not an op label: {part!r} is neither a=... nor w=....")
    return side, TensorConfig.from_label(text)


def _level(label: str, part: str) -> int:
    digits = part.removeprefix("level=")
    if len(digits) != 1 or digits not in "0123456789":
        raise ValueError(f"{label!r} is not an op label: bad accuracy level {digits!r}.")
    return int(digits)


FP32 = OpConfig("fp32")


def check_recipe(name: str, value: object) -> None:
    """Refuse a recipe value that a study could not keep.

    Args:
        name:
            The recipe's name, for the message.
        value:
            The value.

    Raises:
        ValueError:
            If the value is neither a finite number nor a truth value, text or :obj:`None`.
    """
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError(
            f"Recipe {name!r} must be a number, a truth value, text or None, but got {value!r}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"Recipe {name!r} must be finite, but got {value}.")


def check_calibration_size(size: object) -> None:
    """Refuse a calibration size that is not a positive integer.

    Raises:
        ValueError:
            If it is not.
    """
    check_positive("calibration_size", size)


@dataclass(frozen=True, eq=False)
class QuantConfig:
    """How a whole model is quantized.

    Args:
        ops:
            The configuration of each op, by op name.
        recipes:
            Values of model-wide methods, by name.
        calibration_size:
            The number of calibration samples, or :obj:`None` for all samples.

    Two configurations are equal if they say the same, whatever the order of their ops; equal
    configurations have equal :attr:`key`.

    Raises:
        ValueError:
            If a recipe is not a finite number, truth value, text or :obj:`None`, or the
            calibration size is not a positive integer.
    """

    ops: Mapping[str, OpConfig]
    recipes: Mapping[str, RecipeValue] = field(default_factory=dict)
    calibration_size: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.recipes.items():
            check_recipe(name, value)
        if self.calibration_size is not None:
            check_calibration_size(self.calibration_size)
        object.__setattr__(self, "ops", MappingProxyType(dict(self.ops)))
        object.__setattr__(self, "recipes", MappingProxyType(dict(self.recipes)))

    @cached_property
    def key(self) -> str:
        """A content key: 32 hexadecimal digits, equal for equal configurations.

        It is the sum, modulo 2**128, of a hash of each part, so that the key of a configuration
        that differs in one op costs one hash and not a pass over all ops.
        """
        return combine_digests([self._sum])

    @cached_property
    def _sum(self) -> int:
        total = sum(op_digest(op, config.label) for op, config in self.ops.items())
        total += sum(recipe_digest(name, value) for name, value in self.recipes.items())
        return (total + calibration_digest(self.calibration_size)) % KEY_MODULUS

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantConfig):
            return NotImplemented
        return self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (dict(self.ops), dict(self.recipes), self.calibration_size)

    def __getitem__(self, op: str) -> OpConfig:
        return self.ops[op]

    @property
    def fallback_ops(self) -> tuple[str, ...]:
        """The ops that are not quantized, in the order of :attr:`ops`."""
        return tuple(op for op, config in self.ops.items() if not config.is_quantized)

    @property
    def quantized_ops(self) -> tuple[str, ...]:
        """The ops that are quantized, in the order of :attr:`ops`."""
        return tuple(op for op, config in self.ops.items() if config.is_quantized)

    def with_ops(self, changes: Mapping[str, OpConfig]) -> QuantConfig:
        """This configuration with other configurations for the named ops.

        Args:
            changes:
                The new configurations, by op name.

        Raises:
            KeyError:
                If an op is not one of :attr:`ops`.
        """
        for op in changes:
            if op not in self.ops:
                raise KeyError(f"There is no op {op!r} in this configuration.")
        changed = QuantConfig({**self.ops, **changes}, self.recipes, self.calibration_size)
        total = self._sum
        for op, config in changes.items():
            total += op_digest(op, config.label) - op_digest(op, self.ops[op].label)
        changed.__dict__["_sum"] = total % KEY_MODULUS
        return changed

    def with_fallback(self, *ops: str, mode: str = "fp32") -> QuantConfig:
        """This configuration with the named ops in a floating-point mode.

        Args:
            *ops:
                The names of the ops.
            mode:
                One of :data:`FLOAT_MODES`.

        Raises:
            KeyError:
                If an op is not one of :attr:`ops`.
            TypeError:
                If something else than a name is given.
            ValueError:
                If ``mode`` is not one of them.
        """
        several = next((op for op in ops if not isinstance(op, str)), None)
        if several is not None:
            raise TypeError(
                f"with_fallback takes names of ops, but got {several!r}; for several write "
                "with_fallback(*ops)."
            )
        fallback = FP32 if mode == "fp32" else OpConfig(mode)
        return self.with_ops({op: fallback for op in ops})

    def with_recipe(self, name: str, value: RecipeValue) -> QuantConfig:
        """This configuration with another value for one recipe.

        Args:
            name:
                The recipe's name; one that is not there yet is added.
            value:
                The value.

        Raises:
            ValueError:
                If the value is not a finite number, truth value, text or :obj:`None`.
        """
        return QuantConfig(self.ops, {**self.recipes, name: value}, self.calibration_size)

    def with_calibration_size(self, size: int | None) -> QuantConfig:
        """This configuration with another number of calibration samples.

        Args:
            size:
                The number, at least 1; :obj:`None` for all samples.

        Raises:
            ValueError:
                If the number is not a positive integer.
        """
        return QuantConfig(self.ops, self.recipes, size)

    def to_json(self) -> str:
        """The configuration as JSON text that :meth:`from_json` reads."""
        return json.dumps(
            {
                "ops": {op: config.label for op, config in self.ops.items()},
                "recipes": dict(self.recipes),
                "calibration_size": self.calibration_size,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> QuantConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError:
                If ``text`` is not such a text.
        """
        data: Any = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"This is not a quant config: expected an object, but got {data!r}.")
        known = {"ops", "recipes", "calibration_size"}
        for wrong, names in (("no", known - set(data)), ("an unknown", set(data) - known)):
            if names:
                raise ValueError(
                    f"This is not a quant config: it has {wrong} {', '.join(sorted(names))}."
                )
        for name in ("ops", "recipes"):
            if not isinstance(data[name], dict):
                raise ValueError(
                    f"This is not a quant config: {name} must be an object, "
                    f"but got {data[name]!r}."
                )
        return cls(
            {op: _op_config(op, label) for op, label in data["ops"].items()},
            data["recipes"],
            data["calibration_size"],
        )


def _op_config(op: str, label: object) -> OpConfig:
    try:
        return OpConfig.from_label(str(label))
    except ValueError as error:
        raise ValueError(f"Op {op!r}: {error}") from None
