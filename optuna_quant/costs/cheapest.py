"""The cheapest configuration of a space by a cost table: all are tried, or an integer program."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.enumerated import Choice
from optuna_quant.costs.enumerated import best_of_all
from optuna_quant.costs.enumerated import can_be_enumerated
from optuna_quant.costs.integer_program import EQUAL
from optuna_quant.costs.integer_program import solve
from optuna_quant.costs.parts import Part
from optuna_quant.costs.parts import PartOption
from optuna_quant.costs.parts import undominated


if TYPE_CHECKING:
    from optuna_quant.costs.table import CostTable
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


def cheapest(
    table: CostTable,
    space: TuningSpace,
    *,
    weights: Mapping[str, Mapping[str, float]] | None = None,
    bound: float | None = None,
    fixed: Mapping[str, str] | None = None,
    forbidden: Mapping[str, Collection[str]] | None = None,
) -> QuantConfig:
    """The configuration of a space that costs least by a table, within a budget of weights.

    Where there are few, all are tried. Otherwise an integer program, solved with
    :func:`scipy.optimize.milp`: a binary variable for each op and option, and for each boundary
    variables that say whether its change of precision is paid. It models
    :meth:`CostTable.cost <optuna_quant.costs.CostTable.cost>` exactly. Of equally cheap
    configurations the one with the smaller sum of weights is taken, then the one with fewer ops
    in fallback. Recipes have their default values. The same arguments give the same answer.

    With hundreds of ops the cost may be above the least by 0.001%, and equally cheap
    configurations are looked for only where the costs of ops repeat. A program with a bound is a
    knapsack problem: where it is not solved to the end within a limited number of steps, the best
    found so far is returned; it is within the bound.

    Args:
        table:
            The costs.
        space:
            The tuning space.
        weights:
            A weight for each op and option, by the op's name and the option's label, for instance
            an estimated loss of accuracy. What is left out has the weight 0.
        bound:
            The largest allowed sum of weights, in their unit. Default: any.
        fixed:
            The label of the option that an op must have, by the op's name.
        forbidden:
            The labels of the options that an op must not have, by the op's name.

    Returns:
        The configuration.

    Raises:
        ValueError:
            If no configuration is allowed, a bound comes without weights, a number is not
            finite, ``fixed`` or ``forbidden`` name what the space does not have, or the table
            lacks an option of one of its ops.
    """
    if bound is not None and weights is None:
        raise ValueError("A bound applies to the sum of weights: give weights as well.")
    if bound is not None and math.isnan(bound):
        raise ValueError("The bound of the sum of weights must be a number, but got nan.")
    parts = _parts(table, space, weights or {}, fixed or {}, forbidden or {})
    chosen = _chosen(table, parts, None if bound is None or bound == math.inf else bound)
    ops: dict[str, OpConfig] = {}
    for part, option in zip(parts, chosen, strict=True):
        ops.update(dict.fromkeys(part.tunable.ops, part.options[option].config))
    return space.default().with_ops(ops)


def cheapest_quantized(table: CostTable, space: TuningSpace) -> QuantConfig:
    """The cheapest configuration that has a quantized op, though FP32 may be cheaper.

    Args:
        table:
            The costs.
        space:
            The tuning space.

    Raises:
        ValueError:
            If no op can be quantized.
    """
    found = cheapest(table, space)
    if found.quantized_ops:
        return found
    # Each op or group in floats weighs 1, and not all of them may be.
    floats = {t.ops[0]: {option.label: 1.0 for option in t.fallbacks} for t in space.tunables}
    return cheapest(table, space, weights=floats, bound=len(floats) - 1.0)


def _parts(
    table: CostTable,
    space: TuningSpace,
    weights: Mapping[str, Mapping[str, float]],
    fixed: Mapping[str, str],
    forbidden: Mapping[str, Collection[str]],
) -> list[Part]:
    _check_known(space, "fixed", {op: (label,) for op, label in fixed.items()})
    _check_known(space, "forbidden", forbidden)
    parts: list[Part] = []
    first = 0
    for tunable in space.tunables:
        allowed = [
            config
            for config in tunable.options
            if all(
                fixed.get(op, config.label) == config.label
                and config.label not in forbidden.get(op, ())
                for op in tunable.ops
            )
        ]
        if not allowed:
            raise ValueError(f"No option of op {tunable.name!r} is left: all are forbidden.")
        options = undominated(
            PartOption(
                config,
                sum(table.option_cost(op, config.label) for op in tunable.ops),
                sum(_weight(weights, op, config.label) for op in tunable.ops),
            )
            for config in allowed
        )
        parts.append(Part(tunable, options, first))
        first += len(options)
    return parts


def _chosen(table: CostTable, parts: Sequence[Part], bound: float | None) -> list[int]:
    """The position of the option of each part."""
    if bound is not None:
        _check_bound(parts, bound)
    choices = [
        [
            Choice(
                option.cost,
                option.weight,
                0 if option.config.is_quantized else len(part.tunable.ops),
                option.config.is_quantized,
            )
            for option in part.options
        ]
        for part in parts
    ]
    if can_be_enumerated(choices):
        place = {op: i for i, part in enumerate(parts) for op in part.tunable.ops}
        return best_of_all(choices, table.boundaries, place, bound=bound, equal=EQUAL)
    return solve(table, parts, bound)


def _check_bound(parts: Sequence[Part], bound: float) -> None:
    least = sum(min(option.weight for option in part.options) for part in parts)
    largest = max((abs(o.weight) for part in parts for o in part.options), default=0.0)
    if least > bound + EQUAL * max(1.0, abs(bound), largest):
        raise ValueError(
            f"No configuration has a sum of weights of at most {bound:.6g}; the smallest is "
            f"{least:.6g}."
        )


def _check_known(space: TuningSpace, what: str, named: Mapping[str, Collection[str]]) -> None:
    options = {op: tunable.options for tunable in space.tunables for op in tunable.ops}
    for op, labels in named.items():
        if op not in options:
            raise ValueError(f"{what} names the op {op!r}, which the tuning space does not have.")
        known = [option.label for option in options[op]]
        for label in labels:
            if label not in known:
                raise ValueError(
                    f"{what} names the option {label!r} of op {op!r}, which has: "
                    f"{', '.join(known)}."
                )


def _weight(weights: Mapping[str, Mapping[str, float]], op: str, label: str) -> float:
    weight = float(weights.get(op, {}).get(label, 0.0))
    if not math.isfinite(weight):
        raise ValueError(f"The weight of op {op!r} as {label!r} is {weight}.")
    return weight
