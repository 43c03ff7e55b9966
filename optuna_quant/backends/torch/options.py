"""The ways to run each op of a program: what its tuning space may hold."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.backends.torch.graph.ops import TorchOp
from optuna_quant.backends.weight_algorithms.quantize import FLOAT_ZERO_POINTS
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.weight_algorithms.quantize import WEIGHT_ONLY_ALGORITHMS
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OnRequest
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Iterable
    from collections.abc import Sequence


APPROACHES = ("static", "dynamic", "weight_only", "auto", "qat")
BF16 = OpConfig("bf16")

_RANGES = ("minmax", "kl", "percentile", "mse")
_RANGES_ON_REQUEST = ("mean_minmax",)
_ACTIVATIONS = (("uint8", "asym"), ("uint8", "sym"))
_USUAL = ("rtn", "gptq", "awq")
_BITS = (4, 8, 3, 2)
_SIMULATED_BITS = (3, 2)
"""The bits that PyTorch has no kernel for."""
_OTHERS_BITS = 8
"""The bits of weights in static and dynamic mode."""
_GROUPS = (32, 64, 128, 256)
_WORTH = frozenset({"Linear", "Conv1d", "Conv2d", "Conv3d"})


def checked_approach(approach: str | None, *, has_data: bool) -> str:
    """The approach to quantization that is asked for, or the default.

    Args:
        approach:
            What the user gave.
        has_data:
            Whether there are calibration data.

    Raises:
        ValueError:
            If there is no such approach, or it needs calibration data that are missing.
    """
    if approach is not None and approach not in APPROACHES:
        raise ValueError(
            f"approach must be one of {', '.join(APPROACHES)}, but got {approach!r}."
            f"{did_you_mean(str(approach), APPROACHES)}"
        )
    found = approach or ("static" if has_data else "dynamic")
    if not has_data and found == "static":
        raise ValueError(
            "Static quantization needs calibration_data: a few hundred samples of what the "
            "model takes, without labels; or pass approach='dynamic' or 'weight_only'."
        )
    return found


def find_capability(
    ops: Iterable[TorchOp],
    approach: str,
    *,
    calibration_sizes: Sequence[int] = (),
    has_data: bool,
    known_names: Collection[str] = (),
) -> Capability:
    """What can be done with each op.

    Args:
        ops:
            The ops of the program.
        approach:
            ``"static"``, ``"dynamic"``, ``"weight_only"``, ``"auto"``, or ``"qat"``.
        calibration_sizes:
            The calibration sampling sizes, default first.
        has_data:
            Whether there are calibration data.
        known_names:
            The names of the program's other ops.
    """
    ops, found = list(ops), []
    for op in ops:
        options = list(_quantized(op, approach, has_data=has_data))
        if options:
            on_request = _on_request(op, approach, has_data=has_data)
            default = _is_default(op, approach)
            fallbacks = (BF16, FP32) if _has_bf16(op) else (FP32,)
            found.append(
                OpCapability(
                    op.name,
                    op.op_type,
                    (*options, *fallbacks),
                    default,
                    tuple(on_request),
                    op.shared_weight,
                )
            )
    unavailable = {} if has_data else dict.fromkeys(NEEDS_INPUTS, "without calibration_data")
    return Capability(
        tuple(found),
        calibration_sizes=tuple(calibration_sizes),
        hint="" if found else _hint(approach),
        known_types=tuple(dict.fromkeys(op.op_type for op in ops)),
        known_names=tuple(known_names),
        unavailable=unavailable,
    )


def _hint(approach: str) -> str:
    kinds = {"dynamic": "Linear layers", "weight_only": "Linear layers and embeddings"}
    return f"There are no {kinds.get(approach, 'convolutions or Linear layers')} in it."


def _is_default(op: TorchOp, approach: str) -> bool:
    if approach == "weight_only":
        return op.op_type == "Linear"
    return op.form.default


def _has_bf16(op: TorchOp) -> bool:
    return op.op_type in _WORTH | {"MatMul"}


def _quantized(op: TorchOp, approach: str, *, has_data: bool) -> Iterable[OpConfig]:
    if approach in ("static", "auto") and has_data and op.form.activations:
        yield from static_options(op, _RANGES)
    if approach == "qat" and has_data and op.form.activations:
        yield from static_options(op, _RANGES[:1])
    if approach in ("dynamic", "auto", "qat") and op.form.dynamic:
        yield from dynamic_options(op)
    if approach == "weight_only" and op.has_groups:
        for option in weight_only_options(op, has_data=has_data):
            if not _special(op, option):
                yield option


def _on_request(op: TorchOp, approach: str, *, has_data: bool) -> Iterable[OnRequest]:
    if approach in ("static", "auto") and has_data and op.form.activations:
        for option in static_options(op, _RANGES_ON_REQUEST):
            yield OnRequest(option, frozenset({"algorithm"}), side="activation")
    if approach == "qat" and has_data and op.form.activations:
        for option in static_options(op, (*_RANGES[1:], *_RANGES_ON_REQUEST)):
            yield OnRequest(option, frozenset({"algorithm"}), side="activation")
    if approach in ("weight_only", "auto", "qat") and op.has_groups:
        for option in weight_only_options(op, has_data=has_data):
            assert option.weight is not None
            if approach == "qat" and option.weight.algorithm != "rtn":
                continue  # Training does what the others do, and more.
            fields = _special(op, option)
            if approach in ("auto", "qat"):
                if option.weight.bits != _OTHERS_BITS:
                    yield OnRequest(option, fields | {"bits"})
                yield OnRequest(option, fields | {"mode"})
            elif fields:
                yield OnRequest(option, fields)


def _special(op: TorchOp, config: OpConfig) -> frozenset[str]:
    """The fields in which an option with few bits is not a usual one."""
    weight = config.weight
    assert weight is not None
    assert op.shape is not None
    found = set()
    if weight.bits == 8:
        # What PyTorch has a kernel for.
        if (weight.scheme, weight.granularity) == ("sym", "per_channel"):
            return frozenset() if weight.algorithm == "rtn" else frozenset({"algorithm"})
        found.add("bits")
    if weight.bits in _SIMULATED_BITS:
        found.add("bits")
    if weight.algorithm not in _USUAL:
        found.add("algorithm")
    if weight.scheme != "asym":
        found.add("scheme")
    if weight.group_size != next((size for size in _GROUPS if size < op.shape[-1]), None):
        found.add("granularity" if weight.group_size is None else "group_size")
    return frozenset(found)


def static_options(op: TorchOp, algorithms: Sequence[str]) -> Iterable[OpConfig]:
    """The ways to run an op on integers with ranges from calibration, the default first."""
    activations = [
        TensorConfig(dtype, scheme, "per_tensor", algorithm)
        for (dtype, scheme), algorithm in product(_ACTIVATIONS, algorithms)
    ]
    for weight in _weights(op):
        for activation in activations:
            yield OpConfig("static", activation, weight)


def dynamic_options(op: TorchOp) -> Iterable[OpConfig]:
    """The ways to run an op on integers with ranges found at run time."""
    for weight in _weights(op):
        yield OpConfig("dynamic", TensorConfig("uint8"), weight)


def _weights(op: TorchOp) -> list[TensorConfig | None]:
    if op.form.weight is None:
        return [None]
    granularities = ["per_tensor"] if op.channel_axis is None else ["per_channel", "per_tensor"]
    return [TensorConfig("int8", "sym", each, "minmax") for each in granularities]


def weight_only_options(op: TorchOp, *, has_data: bool) -> Iterable[OpConfig]:
    """The ways to have the weight alone in few bits, the default first.

    Args:
        op:
            The op.
        has_data:
            Whether there are calibration data, which some algorithms need.
    """
    assert op.shape is not None
    is_table = not op.form.activations
    algorithms = [
        name
        for name in WEIGHT_ONLY_ALGORITHMS
        if name not in NEEDS_INPUTS or (has_data and not is_table)
    ]
    groups: list[int | None] = [size for size in _GROUPS if size < op.shape[-1]]
    for bits, algorithm in product(_BITS, algorithms):
        for size, scheme in product((*groups, None), ("asym", "sym")):
            if algorithm in FLOAT_ZERO_POINTS and (scheme == "sym" or bits == _OTHERS_BITS):
                continue
            granularity = "per_channel" if size is None else "per_group"
            weight = TensorConfig(f"int{bits}", scheme, granularity, algorithm, size)
            yield OpConfig("weight_only", weight=weight)


def check_option(op: TorchOp, config: OpConfig, *, has_data: bool) -> None:
    """Check that an op can run as a configuration says.

    Raises:
        ValueError:
            If it cannot.
    """
    problem = _problem(op, config, has_data=has_data)
    if problem is not None:
        raise ValueError(
            f"Op {op.name!r} ({op.op_type}) cannot run as {config.label!r}: {problem}."
        )


def _problem(op: TorchOp, config: OpConfig, *, has_data: bool) -> str | None:
    if config.mode == "fp32":
        return None
    if config.mode == "bf16":
        return None if _has_bf16(op) else "it runs in fp32 alone beside integers"
    known: Iterable[OpConfig] = ()
    if config.mode == "static" and op.form.activations:
        if not has_data:
            return "static quantization needs calibration_data"
        known = static_options(op, (*_RANGES, *_RANGES_ON_REQUEST))
    elif config.mode == "dynamic" and op.form.dynamic:
        known = dynamic_options(op)
    elif config.mode == "weight_only" and op.has_groups:
        known = weight_only_options(op, has_data=has_data)
    elif config.mode == "fp16":
        return "this backend has bf16 and fp32 for ops in floats"
    options = list(known)
    if config in options:
        return None
    if not options:
        return f"it has no mode {config.mode!r}"
    return f"in this mode there are {len(options)} options, such as {options[0].label!r}"
