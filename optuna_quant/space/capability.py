"""What a backend can do with a model, before the user narrows it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.space.config import OpConfig
from optuna_quant.space.keys import RecipeValue
from optuna_quant.space.presets import Preset


@dataclass(frozen=True)
class OnRequest:
    """An option that is in the tuning space only if the user asks for what is special about it.

    Args:
        option:
            The option.
        fields:
            The fields that the user must have named in ``op_type_dict`` or ``op_name_dict``, with
            the option's values among those allowed: ``"mode"``, ``"accuracy_level"``, or those of
            one side; a ``"dtype"`` counts for ``"bits"`` as well.
        side:
            Whose fields these are, besides those of the whole op: ``"weight"`` or
            ``"activation"``. Default: the weight's.
    """

    option: OpConfig
    fields: frozenset[str]
    side: str = "weight"


@dataclass(frozen=True)
class OpCapability:
    """What a backend can do with one op.

    Args:
        name:
            The op's node name, unique in the model.
        op_type:
            The op's type, such as ``"Conv"``.
        options:
            The ways to run it, fallback included. The first quantized one is the op's default:
            strategies that use one option per op start with it, so it should be the one to use
            without a search. Of options that differ in granularity alone the default
            strategy uses the finest. The order of the others does not matter to it.
        default:
            Whether the op is in the tuning space unless the user asks otherwise, because
            it is worth quantizing.
        on_request:
            Further options, which the user must ask for. They come after the other quantized ones.
        weight:
            What tells the constant that the op reads as its weight from others; empty if it has
            none. Ops of one type with one weight are tied in the tuning space, as the weight would
            otherwise be kept in several forms.
    """

    name: str
    op_type: str
    options: tuple[OpConfig, ...]
    default: bool = True
    on_request: tuple[OnRequest, ...] = ()
    weight: str = ""


@dataclass(frozen=True)
class Capability:
    """What a backend can do with a model.

    Args:
        ops:
            The ops that can be quantized, in model order (producers first).
        recipes:
            The values of each model-wide method, default first.
        calibration_sizes:
            The calibration sampling sizes, default first. Empty if there is only one.
        known_types:
            Op types that exist, in this model or in others, besides those of ``ops``.
        known_names:
            The names of the model's other ops.
        hint:
            If there is nothing to quantize: why, and what to do, for the message.
        presets:
            Pre-defined settings of the whole model, in the order in which staged strategies try
            them; not where the user names algorithms of weights.
        unavailable:
            Values of options that there would be under another condition, and how the message to
            a user who names one goes on: ``{"gptq": "without calibration_data"}``.
    """

    ops: tuple[OpCapability, ...]
    recipes: Mapping[str, tuple[RecipeValue, ...]] = field(default_factory=dict)
    calibration_sizes: tuple[int, ...] = ()
    hint: str = ""
    known_types: tuple[str, ...] = ()
    known_names: tuple[str, ...] = ()
    presets: tuple[Preset, ...] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def select(self, op_types: Sequence[str] | str = "default") -> tuple[OpCapability, ...]:
        """The ops to tune.

        Args:
            op_types:
                ``"default"`` (those worth quantizing), ``"all"``, or the op types, among which
                ``"default"`` stands for the ops worth quantizing.

        Raises:
            ValueError:
                If an op type is unknown, or no op is left.
        """
        if op_types == "default":
            chosen = tuple(op for op in self.ops if op.default)
            rest = sorted({op.op_type for op in self.ops if not op.default})
            if not chosen:
                more = (
                    f' On request (op_types="all" or --op-types all): {", ".join(rest)}.'
                    if rest
                    else ""
                )
                raise ValueError(
                    f"This model has no op that is worth quantizing.{more}{self._shown_hint}"
                )
            return chosen
        if not self.ops:
            raise ValueError(f"This model has no op that can be quantized.{self._shown_hint}")
        if op_types == "all":
            return self.ops
        wanted = [op_types] if isinstance(op_types, str) else list(op_types)
        if not wanted:
            raise ValueError("op_types is empty: name op types, or use 'default' or 'all'.")
        known = sorted({op.op_type for op in self.ops})
        for op_type in wanted:
            if op_type not in known and op_type != "default":
                raise ValueError(
                    f"op_types: this model has no {op_type!r} that can be quantized; "
                    f"there are: {', '.join(known)}.{did_you_mean(str(op_type), known)}"
                )
        with_default = "default" in wanted
        named = [op for op in self.ops if op.op_type in wanted or (with_default and op.default)]
        # If nothing but "default" was named, there may be none.
        return tuple(named) or self.select()

    @property
    def _shown_hint(self) -> str:
        return f" {self.hint}" if self.hint else ""
