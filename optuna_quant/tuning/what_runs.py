"""Say how many ops of a model run in integer kernels, as asked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from optuna_quant._common.printable import listed
from optuna_quant.backends.base import OpRuns


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig


# The level at which weight-only ops multiply integers, see OpConfig.
_INT8_LEVEL = 4
_HALVES = ("bf16", "fp16")


def op_runs(executed: Mapping[str, ExecutedOp], op: str) -> OpRuns:
    """What runs for an op, of what a backend's ``executed`` has given."""
    runs = executed.get(op, OpRuns())
    # Without a kernel the runtime does not show it.
    integer = runs.integer if runs.kernel or runs.integer else None
    return OpRuns(runs.kernel, integer, runs.note)


def is_integer(option: OpConfig) -> bool:
    """Whether an option asks for arithmetic on integers; with the weight alone it does not."""
    return option.is_quantized and option.mode != "weight_only"


def runs_as_asked(option: OpConfig, runs: OpRuns) -> bool | None:
    """Whether what runs is of the kind that was asked for; None if it is not known.

    Args:
        option:
            What was asked for.
        runs:
            What runs.
    """
    if runs.integer is None:
        return None
    if option.mode == "weight_only" and option.accuracy_level in (None, 0):
        return True  # The runtime chooses what it computes in.
    asks_for_integers = is_integer(option) or option.accuracy_level == _INT8_LEVEL
    return runs.integer == asks_for_integers


def describe_runs(
    config: QuantConfig,
    executed: Mapping[str, ExecutedOp] | None,
    *,
    left_out: int = 0,
    not_searched: int = 0,
) -> tuple[str, str]:
    """Count the quantized ops that run in integer kernels, and those with weights alone.

    Args:
        config:
            What was asked of each op.
        executed:
            What runs, by op; None if that is not known of any.
        left_out:
            How many ops the tuning space does not have because of what they cost.
        not_searched:
            How many others it does not have that might be quantized; they are not in the total.

    Returns:
        The count in words, and what was asked for and does not run so, with the ops of which
        nothing is known; empty if there are none.
    """
    asked = config.quantized_ops
    expected = [op for op in asked if is_integer(config.ops[op])]
    runs = {op: op_runs(executed or {}, op) for op in expected}
    integer = [op for op in expected if runs[op].integer]
    floats = [
        f"{op} ({runs[op].kernel} in floats)" for op in expected if runs[op].integer is False
    ]
    unknown = [op for op in expected if runs[op].integer is None]
    total = len(config.ops) + left_out
    of = f"of {total} op{'' if total == 1 else 's'}"
    weights = len(asked) - len(expected)
    modes = Counter(option.mode for option in config.ops.values())
    halves = "".join(f", {modes[mode]} in {mode}" for mode in _HALVES if modes[mode])
    others = f"{not_searched} other{'' if not_searched == 1 else 's'} not searched"
    beyond = f"; {others}" if not_searched else ""
    if weights and not expected:
        return f"{weights} {of} with quantized weights{halves}{beyond}", ""
    alone = f", {weights} with quantized weights alone" if weights else ""
    if len(unknown) == len(expected):
        return f"{len(asked)} {of} quantized{alone}{halves}{beyond}", ""
    parts = []
    if floats:
        parts.append(f"{len(floats)} asked for but not run in integers: {listed(floats)}")
    if unknown:
        parts.append(f"not known of {len(unknown)}: {listed(unknown)}")
    rest = f"; {left_out} left in FP32" if left_out else ""
    return f"{len(integer)} {of} in integer kernels{alone}{halves}{rest}{beyond}", "; ".join(parts)
