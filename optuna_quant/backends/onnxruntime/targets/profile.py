"""What a device runs as integers, as a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.space.config import FLOAT_MODES
from optuna_quant.space.config import TensorConfig


if TYPE_CHECKING:
    from optuna_quant.space.config import OpConfig


CPU_PROVIDER = "CPUExecutionProvider"

_ACTIVATIONS = ("uint8", "int8", "uint16", "int16")
_WEIGHTS = ("uint8", "int8")
_WEIGHT_ONLY_BITS = (2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class IntegerForm:
    """Op types that a device computes on integers, and the types of their activations and weights.

    Args:
        op_types:
            The op types, as in the tuning space: ``"MatMulActivations"`` is the product of two
            activations.
        activation:
            The type and the scheme of the activations, as ``"uint8/asym"``; always per tensor.
        weights:
            The types, schemes and granularities of weights that go with such activations, the
            default first, as ``"int8/sym/per_channel"``. Ignored for ops without a weight; an op
            with one is offered with these only.
        on_request:
            Whether options of this form are in a tuning space only where the user asks for them.

    Raises:
        ValueError:
            If a text is not of this form, or an op type is not known.
    """

    op_types: tuple[str, ...]
    activation: str
    weights: tuple[str, ...] = ()
    on_request: bool = False

    def __post_init__(self) -> None:
        for name in ("op_types", "weights"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        if not self.op_types:
            raise ValueError("op_types must name at least one op type.")
        _check_op_types("op_types", self.op_types)
        if not isinstance(self.on_request, bool):
            raise ValueError(f"on_request must be True or False, but got {self.on_request!r}.")
        # Reading the strings checks them.
        _ = self.activation_config, self.weight_configs

    @cached_property
    def activation_config(self) -> TensorConfig:
        """The activations, with the range algorithm ``"minmax"``."""
        return _tensor("activation", self.activation, "uint8/asym", _ACTIVATIONS, ("per_tensor",))

    @cached_property
    def weight_configs(self) -> tuple[TensorConfig, ...]:
        """The weights, the default first."""
        granularities = ("per_tensor", "per_channel")
        return tuple(
            _tensor("weights", text, "int8/sym/per_channel", _WEIGHTS, granularities)
            for text in self.weights
        )

    def allows(self, config: OpConfig) -> bool:
        """Whether a static option is of this form, however its ranges are found."""
        if config.activation is None or _kind(config.activation) != _kind(self.activation_config):
            return False
        weight = config.weight
        return weight is None or _kind(weight) in map(_kind, self.weight_configs)


@dataclass(frozen=True, kw_only=True)
class TargetProfile:
    """What a device and its execution provider run, and how they want a model written.

    Args:
        name:
            The name of the target.
        provider:
            The execution provider of ONNX Runtime. Where the installed ONNX Runtime has it,
            models run with it; otherwise they are simulated on the CPU.
        provider_options:
            Options of the provider, as pairs of a name and a text.
        forms:
            What it runs as integers, the default of an op type first.
        fallbacks:
            The floating-point modes in which it runs ops, the preferred one first: some of
            ``"bf16"``, ``"fp16"`` and ``"fp32"``, with ``"fp32"`` at the end.
        bf16_op_types:
            The op types that it runs in ``"bf16"``, if that is one of its fallbacks. Empty: all
            that have bfloat16 in ONNX, in the opset of the model.
        default_op_types:
            The op types that are tuned unless the user asks otherwise. Empty: the same as on the
            CPU.
        dynamic:
            Whether it runs the operators of dynamic quantization, with ranges found at run time.
        weight_only_bits:
            The bit widths of weight-only quantization (``MatMulNBits``) that it runs, of 2, 4 and
            8. Empty: none.
        integer_outputs:
            Whether ops on integers write integers, so that their outputs are quantized as well;
            otherwise only inputs are. :obj:`None`: as ONNX Runtime's CPU kernels do it.
        integer_bias:
            Whether biases are 32-bit integers on the scale of the products; otherwise they stay
            in floats.
        weight_pairs:
            Whether weights are stored in floats behind a QuantizeLinear and a DequantizeLinear;
            otherwise as integers behind a DequantizeLinear.
        reduce_range:
            Whether weights use 7 bits only, see
            :class:`~optuna_quant.backends.onnxruntime.OnnxRuntimeBackend`.
        note:
            What users should know: a sentence, which is logged once.

    Raises:
        ValueError:
            If an argument is not one of those described.

    Example:
        >>> npu = TargetProfile(
        ...     name="npu",
        ...     provider="QNNExecutionProvider",
        ...     forms=(
        ...         IntegerForm(
        ...             op_types=("Conv", "Gemm"),
        ...             activation="uint8/asym",
        ...             weights=("int8/sym/per_channel",),
        ...         ),
        ...     ),
        ...     integer_outputs=True,
        ... )
        >>> npu.fallbacks
        ('fp32',)
    """

    name: str
    provider: str
    provider_options: tuple[tuple[str, str], ...] = ()
    forms: tuple[IntegerForm, ...] = ()
    fallbacks: tuple[str, ...] = ("fp32",)
    bf16_op_types: tuple[str, ...] = ()
    default_op_types: tuple[str, ...] = ()
    dynamic: bool = False
    weight_only_bits: tuple[int, ...] = ()
    integer_outputs: bool | None = None
    integer_bias: bool = True
    weight_pairs: bool = False
    reduce_range: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "provider", "note"):
            value = getattr(self, name)
            if not isinstance(value, str) or (name != "note" and not value):
                raise ValueError(f"{name} must be a string, but got {value!r}.")
        for name in ("fallbacks", "bf16_op_types", "default_op_types"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        object.__setattr__(self, "provider_options", _pairs(self.provider_options))
        object.__setattr__(self, "forms", tuple(self.forms))
        object.__setattr__(self, "weight_only_bits", tuple(self.weight_only_bits))
        self._check_flags()
        self._check_fallbacks()
        for form in self.forms:
            if not isinstance(form, IntegerForm):
                raise ValueError(f"forms must hold IntegerForm values, but got {form!r}.")
        for op_type in self.default_op_types:
            if op_type not in self.op_types:
                raise ValueError(f"default_op_types: no form of forms is for {op_type!r}.")
        for bits in self.weight_only_bits:
            if bits not in _WEIGHT_ONLY_BITS:
                raise ValueError(f"weight_only_bits must be of 2, 4 and 8, but got {bits!r}.")
        if not (self.forms or self.dynamic or self.weight_only_bits):
            raise ValueError(
                f"The target {self.name!r} runs nothing quantized: give forms, dynamic or "
                "weight_only_bits."
            )

    def _check_flags(self) -> None:
        for name in ("dynamic", "integer_bias", "weight_pairs", "reduce_range"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, but got {getattr(self, name)!r}.")
        if not isinstance(self.integer_outputs, bool | None):
            raise ValueError(
                f"integer_outputs must be True, False or None, but got {self.integer_outputs!r}."
            )

    def _check_fallbacks(self) -> None:
        known = ", ".join(FLOAT_MODES)
        for mode in self.fallbacks:
            if mode not in FLOAT_MODES:
                raise ValueError(f"fallbacks must be of {known}, but got {mode!r}.")
        if self.fallbacks[-1:] != ("fp32",) or len(set(self.fallbacks)) < len(self.fallbacks):
            raise ValueError(
                f"fallbacks must be different modes with 'fp32' last, but got {self.fallbacks!r}."
            )
        _check_op_types("bf16_op_types", self.bf16_op_types)
        if self.bf16_op_types and "bf16" not in self.fallbacks:
            raise ValueError("bf16_op_types: fallbacks must have 'bf16' for it.")

    @cached_property
    def op_types(self) -> frozenset[str]:
        """The op types that it runs on integers."""
        return frozenset(op_type for form in self.forms for op_type in form.op_types)

    @property
    def is_cpu(self) -> bool:
        """Whether it is ONNX Runtime's CPU provider, which is always there."""
        return self.provider == CPU_PROVIDER

    def forms_of(self, op_type: str) -> tuple[IntegerForm, ...]:
        """The forms of an op type, the default first."""
        return tuple(form for form in self.forms if op_type in form.op_types)

    def fallbacks_of(self, op_type: str) -> tuple[str, ...]:
        """The floating-point modes in which it runs an op type, the preferred one first."""
        if not self.bf16_op_types or op_type in self.bf16_op_types:
            return self.fallbacks
        return tuple(mode for mode in self.fallbacks if mode != "bf16")

    def allows(self, op_type: str, config: OpConfig) -> bool:
        """Whether it runs an op type in this option; of static options only their form counts."""
        if config.mode == "static":
            return any(form.allows(config) for form in self.forms_of(op_type))
        if config.mode == "weight_only":
            return config.weight is not None and config.weight.bits in self.weight_only_bits
        if config.mode == "dynamic":
            return self.dynamic
        return config.mode in self.fallbacks_of(op_type)


def _check_op_types(name: str, op_types: Iterable[str]) -> None:
    for op_type in op_types:
        if op_type not in STATIC_RULES:
            raise ValueError(
                f"{name}: {op_type!r} is no op type that can be quantized statically; "
                f"these are: {', '.join(STATIC_RULES)}."
                f"{did_you_mean(op_type, list(STATIC_RULES))}"
            )


def _kind(tensor: TensorConfig) -> tuple[str, str, str]:
    return tensor.dtype, tensor.scheme, tensor.granularity


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of strings, but got {value!r}.")
    found = tuple(value)
    for each in found:
        if not isinstance(each, str):
            raise ValueError(f"{name} must be a list of strings, but holds {each!r}.")
    return found


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = tuple(value.items() if isinstance(value, dict) else value)
    for pair in pairs:
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise ValueError(f"provider_options must be pairs of strings, but hold {pair!r}.")
    return tuple((name, text) for name, text in pairs)


def _tensor(
    name: str, text: str, example: str, dtypes: tuple[str, ...], granularities: tuple[str, ...]
) -> TensorConfig:
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) == 2 and granularities == ("per_tensor",):
        parts = [*parts, "per_tensor"]
    if len(parts) != 3:
        raise ValueError(f"{name}: {text!r} is not of the form {example!r}.")
    dtype, scheme, granularity = parts
    if dtype not in dtypes or granularity not in granularities:
        raise ValueError(
            f"{name}: {text!r} is not of the form {example!r}, with one of "
            f"{', '.join(dtypes)} and one of {', '.join(granularities)}."
        )
    return TensorConfig(dtype, scheme, granularity, "minmax")
