"""Tell whether an answer is better than FP32, and which ops it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.gain import Gain
from optuna_quant.costs.gain_per_op import OpGain
from optuna_quant.costs.gain_per_op import left_out_by_cost
from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import SIZE
from optuna_quant.space.left_out import FloatWeights
from optuna_quant.space.left_out import LeftOut


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_SHOWN_LEFT_OUT = 3

GAIN_COLUMNS: Mapping[str, str] = {LATENCY: "seconds_gained", SIZE: "bytes_gained"}
"""What the columns of a report are called that say what each op gains."""


def is_better(
    objective: KnownObjective | None, config: QuantConfig | None, gain: Gain | None
) -> bool | None:
    """Whether a model is better than FP32 by an objective, by more than noise.

    What was measured counts where something was and it tells, and what is predicted otherwise:
    a measurement tells nothing by which the model may be slower as well as much faster. Times that
    were measured here say nothing where the user has given what configurations take.

    Args:
        objective:
            The objective; :obj:`None` if that is not known.
        config:
            How the model is quantized.
        gain:
            What was measured.

    Returns:
        :obj:`None` if that is not known.
    """
    if objective is None or config is None:
        return None
    gain = Gain() if gain is None else gain
    if objective.times_are_given:
        gain = replace(gain, time_ratio=None)
    if objective.measures == (LATENCY,) and gain.is_faster is not None:
        return gain.is_faster
    if objective.measures == (SIZE,) and gain.is_smaller is not None:
        return gain.is_smaller
    measures, fp32 = objective.measures_of(config), objective.fp32
    if LATENCY in measures and gain.time_ratio is not None and gain.is_faster is not None:
        measures[LATENCY] = gain.time_ratio.high * fp32[LATENCY]
    if SIZE in measures and gain.size_ratio is not None:
        measures[SIZE] = gain.size_ratio * fp32[SIZE]
    cost, reference = objective.cost(measures), objective.fp32_cost
    if not math.isfinite(cost) or not math.isfinite(reference):
        return None
    return cost < reference


def shown_not_better(objective: str) -> str:
    """What a model is not that does not pay, by the name of the objective."""
    return {LATENCY: "no faster than FP32", SIZE: "no smaller than FP32"}.get(
        objective, f"no better than FP32 by {objective}"
    )


def gain_columns(
    objective: KnownObjective | None, space: TuningSpace, config: QuantConfig
) -> dict[str, dict[str, float]]:
    """What each op of a configuration gains against FP32, all else being equal.

    Args:
        objective:
            The objective, with what is known of costs.
        space:
            The tuning space.
        config:
            The configuration.

    Returns:
        The gain of each quantized op by its name, and 0 for one in fallback, for each column: one
        for the objective, and those of time and size as far as they are known. Times that do not
        predict those of whole models are left out.
    """
    if objective is None:
        return {}
    tables = dict(objective.costs.tables)
    own = objective.table
    if objective.measures not in ((LATENCY,), (SIZE,)) and own is not None:
        tables[objective.name] = own
    single = _single_ops(space)
    columns = {}
    validation = objective.costs.validation
    if validation is not None and not validation.predicts:
        tables.pop(LATENCY, None)  # Its parts do not add up to what models take.
    for name, table in tables.items():
        column = GAIN_COLUMNS.get(name, "gained" if name == objective.name else None)
        if column is not None and (objective.costs.tables or column != "gained"):
            gains = op_gains(table, single, config, own=True)
            columns[column] = {
                op: _rounded(gains[op].gain, name) if config[op].is_quantized else 0.0
                for op in config.ops
                if op in gains
            }
    return columns


def _rounded(gain: float, measure: str) -> float:
    """A gain without digits that mean nothing: whole bytes, four digits of the others."""
    return float(round(gain)) if measure == SIZE else float(f"{gain:.4g}")


def _single_ops(space: TuningSpace) -> TuningSpace:
    """The space with each op by itself."""
    tunables = [
        replace(tunable, name=op, ops=(op,)) for tunable in space.tunables for op in tunable.ops
    ]
    return replace(space, tunables=tuple(tunables))


def shown_left_out(left_out: Mapping[str, OpGain | None]) -> list[str]:
    """Which ops the space leaves out because of what they cost, in a line."""
    if not left_out:
        return []
    known = [gain for gain in left_out.values() if gain is not None]
    worst = sorted(known, key=lambda gain: gain.gain)[:_SHOWN_LEFT_OUT]
    named = [f"{gain.op_type} {gain.op!r} ({gain})" for gain in worst]
    rest = len(left_out) - len(named)
    more = [f"{rest} more"] if named and rest else []
    shown = f": {', '.join([*named, *more])}" if named else ""
    were = "op was" if len(left_out) == 1 else "ops were"
    return [f"{len(left_out)} {were} left in FP32 as slower quantized here{shown}"]


def with_costs_as_reason(
    found: FloatWeights, left_out: Mapping[str, OpGain | None]
) -> FloatWeights:
    """The weights that stay in floats, with the true reason of ops that are left out by cost."""
    reasons = tuple(_with_reason(each, left_out.get(each.op)) for each in found.left_out)
    return replace(found, left_out=reasons)


def _with_reason(each: LeftOut, gain: OpGain | None) -> LeftOut:
    if gain is None:
        return each
    return replace(left_out_by_cost(gain), op_type=each.op_type, weight_bytes=each.weight_bytes)
