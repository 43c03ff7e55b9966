"""Find the ops that are worth quantizing by a cost table, and the gain of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import show_measure
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.left_out import LeftOut


if TYPE_CHECKING:
    from optuna_quant.costs.table import Boundary
    from optuna_quant.costs.table import CostTable
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


# What an op loses is within the noise up to this part of what it costs in floats, or up to its
# share of this part of what the model costs in floats.
_NOISE_OF_OP = 0.03
_NOISE_OF_MODEL = 0.05
_MOST_OF_MODEL = 0.001

# A shorter time of an op cannot be told from none: profiles have whole microseconds.
_SHORTEST = 1e-7


@dataclass(frozen=True)
class OpGain:
    """What an op costs in floats and quantized, all else being equal.

    Args:
        op:
            The name of the op, or of the group of ops.
        op_type:
            Its type.
        measure:
            What is measured.
        floats:
            What it costs in FP32, with the conversions at its boundaries that only this needs.
        quantized:
            What it costs in a quantized option, with the conversions that only this needs.
        label:
            The label of that option.
    """

    op: str
    op_type: str
    measure: str
    floats: float
    quantized: float
    label: str

    @property
    def gain(self) -> float:
        """By how much it is cheaper quantized; negative if it is more expensive."""
        return self.floats - self.quantized

    def __str__(self) -> str:
        mine = show_op_cost(self.measure, self.quantized)
        return f"{mine} against {show_op_cost(self.measure, self.floats)}"


def op_gains(
    table: CostTable, space: TuningSpace, config: QuantConfig, *, own: bool = False
) -> dict[str, OpGain]:
    """What each op of a space gains by being quantized, the others as in a configuration.

    Args:
        table:
            The costs.
        space:
            The tuning space.
        config:
            What the other ops are.
        own:
            Whether to look at the option that an op has in ``config`` where that is quantized,
            and not at its cheapest one.

    Returns:
        The gain of each op or group, by its name; those that the table does not know are left
        out.
    """
    touching: dict[str, list[Boundary]] = defaultdict(list)
    for boundary in table.boundaries:
        for op in {boundary.producer, *boundary.consumers}:
            touching[op].append(boundary)
    found = {}
    for tunable in space.tunables:
        ops = set(tunable.ops)
        known = any(FP32.label in table.ops.get(op, ()) for op in ops)
        options: Sequence[OpConfig] = tunable.quantized
        if own and config[tunable.ops[0]].is_quantized:
            options = (config[tunable.ops[0]],)
        if not known or not options:
            continue
        near = list(dict.fromkeys(b for op in tunable.ops for b in touching[op]))
        floats = _options_cost(table, tunable, FP32)
        at_rest = _paid(near, config, ops, quantized=False)
        crossing = _paid(near, config, ops, quantized=True) - at_rest
        best = min(options, key=lambda option: _options_cost(table, tunable, option))
        # Conversions that quantizing it saves are a price of its floats: nothing takes less than
        # no time.
        floats -= min(0.0, crossing)
        quantized = _options_cost(table, tunable, best) + max(0.0, crossing)
        found[tunable.name] = OpGain(
            tunable.name, tunable.op_type, table.measure, floats, quantized, best.label
        )
    return found


def _options_cost(table: CostTable, tunable: Tunable, option: OpConfig) -> float:
    return sum(table.option_cost(op, option.label) for op in tunable.ops)


def _paid(
    boundaries: Sequence[Boundary], config: QuantConfig, ops: set[str], *, quantized: bool
) -> float:
    def is_quantized(op: str) -> bool:
        if op in ops:
            return quantized
        found = config.ops.get(op)
        return found is not None and found.is_quantized

    return sum(boundary.paid(is_quantized) for boundary in boundaries)


def worse_ops(table: CostTable, space: TuningSpace) -> dict[str, OpGain]:
    """The ops that make a model more expensive if quantized, by the cheapest configuration of all.

    Args:
        table:
            The costs.
        space:
            The tuning space.

    Returns:
        Those that the cheapest configuration leaves in floats and that would lose more than
        noise if they were quantized, with what they cost; in model order.
    """
    best = cheapest(table, space)
    fp32 = table.cost(space.fp32())
    of_model = min(_MOST_OF_MODEL, _NOISE_OF_MODEL / len(space.tunables)) * abs(fp32)
    gains = op_gains(table, space, best)
    return {
        tunable.name: gains[tunable.name]
        for tunable in space.tunables
        if tunable.name in gains
        and not best[tunable.ops[0]].is_quantized
        and -gains[tunable.name].gain
        > max(of_model, _NOISE_OF_OP * abs(gains[tunable.name].floats))
    }


def by_op(gains: Mapping[str, OpGain], space: TuningSpace) -> dict[str, OpGain]:
    """The gains of single ops, each with its share of what its group gains.

    Args:
        gains:
            The gains of ops and groups by name.
        space:
            The tuning space that has them.
    """
    found = {}
    for tunable in space.tunables:
        gain, parts = gains.get(tunable.name), len(tunable.ops)
        if gain is None:
            continue
        for op in tunable.ops:
            floats, quantized = gain.floats / parts, gain.quantized / parts
            found[op] = replace(gain, op=op, floats=floats, quantized=quantized)
    return found


def without(space: TuningSpace, ops: Sequence[str]) -> TuningSpace:
    """A space without some of its ops or groups, which then run in floats.

    A group is left out whole if one of its ops is.

    Raises:
        ValueError:
            If no op is left.
    """
    left = set(ops)
    kept = (t for t in space.tunables if t.name not in left and left.isdisjoint(t.ops))
    return replace(space, tunables=tuple(kept))


def type_of(option: OpConfig) -> str:
    """In what an option computes, for people: INT8, INT4."""
    tensor = option.weight or option.activation
    return option.mode if tensor is None else tensor.dtype.removeprefix("u").upper()


def show_op_cost(measure: str, value: float) -> str:
    """What an op costs, for people; a time that is too short to be measured is said to be so."""
    if measure == LATENCY and value < _SHORTEST:
        return f"< {show_measure(measure, _SHORTEST)}"
    return show_measure(measure, value)


def left_out_by_cost(gain: OpGain) -> LeftOut:
    """Why an op is left out of a space by its cost."""
    what = type_of(OpConfig.from_label(gain.label))
    worse = "slower" if gain.measure == "latency" else "more expensive"
    return LeftOut(
        gain.op,
        gain.op_type,
        f"{worse} in {what} here: {gain}",
        'op_types="all" or objective="size"',
    )
