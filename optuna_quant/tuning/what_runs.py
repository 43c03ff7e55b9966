"""How many ops of a model run as they were asked to, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.printable import listed


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True)
class OpRuns:
    """What runs for one op.

    Args:
        kernel:
            The kernel; empty if that is not known.
        integer:
            Whether it computes on integers; None if that is not known.
        note:
            What else the backend says.
    """

    kernel: str
    integer: bool | None
    note: str


def op_runs(executed: Mapping[str, Any], op: str) -> OpRuns:
    """What runs for an op, of what a backend's ``executed`` has given."""
    runs = executed.get(op)
    kernel = str(getattr(runs, "kernel", runs) or "")
    integer = getattr(runs, "integer", None)
    if not kernel and not integer:
        integer = None  # The runtime does not show it.
    return OpRuns(
        kernel,
        None if integer is None else bool(integer),
        str(getattr(runs, "note", "") or ""),
    )


def describe_runs(config: QuantConfig, executed: Mapping[str, Any] | None) -> tuple[str, str]:
    """Count the quantized ops that run in integer kernels.

    Args:
        config:
            What was asked of each op.
        executed:
            What runs, by op; None if that is not known of any.

    Returns:
        The count in words, and what was asked for and does not run so, with the ops of which
        nothing is known; empty if there are none.
    """
    asked = config.quantized_ops
    runs = {op: op_runs(executed or {}, op) for op in asked}
    integer = [op for op in asked if runs[op].integer]
    floats = [f"{op} ({runs[op].kernel} in floats)" for op in asked if runs[op].integer is False]
    unknown = [op for op in asked if runs[op].integer is None]
    of = f"of {len(config.ops)} ops"
    if len(unknown) == len(asked):
        return f"{len(asked)} {of} quantized", ""
    parts = []
    if floats:
        parts.append(f"{len(floats)} asked for and not run so: {listed(floats)}")
    if unknown:
        parts.append(f"not known of {len(unknown)}: {listed(unknown)}")
    return f"{len(integer)} {of} in integer kernels", "; ".join(parts)
