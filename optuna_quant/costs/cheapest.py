"""The cheapest configuration of a space by a cost table: all are tried, or an integer program."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_quant.costs.enumerated import Choice
from optuna_quant.costs.enumerated import best_of_all
from optuna_quant.costs.enumerated import can_be_enumerated


if TYPE_CHECKING:
    from optuna_quant.costs.table import CostTable
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


# Costs and sums of weights that differ by less, relative to the largest, are equal. The solver
# works to 1e-6.
_EQUAL = 1e-9
_SOLVER_TOLERANCE = 1e-6
# A limit in nodes and not in seconds, so that the same question always has the same answer.
_MOST_NODES = 50
_GAP = 1e-5
# Up to so many ops it is always looked for equally cheap configurations.
_FEW = 30

_Vector = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class _Option:
    """An option of a tunable with what it costs and weighs."""

    config: OpConfig
    cost: float
    weight: float


@dataclass(frozen=True)
class _Part:
    """A tunable with the options that are left, and where its variables begin."""

    tunable: Tunable
    options: tuple[_Option, ...]
    first: int = 0

    def quantized(self) -> dict[int, float]:
        """The variables whose sum says whether it is quantized."""
        return {self.first + i: 1.0 for i, o in enumerate(self.options) if o.config.is_quantized}


def _parts(
    table: CostTable,
    space: TuningSpace,
    weights: Mapping[str, Mapping[str, float]],
    fixed: Mapping[str, str],
    forbidden: Mapping[str, Collection[str]],
) -> list[_Part]:
    _check_known(space, "fixed", {op: (label,) for op, label in fixed.items()})
    _check_known(space, "forbidden", forbidden)
    parts: list[_Part] = []
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
        options = _undominated(
            _Option(
                config,
                sum(table.option_cost(op, config.label) for op in tunable.ops),
                sum(_weight(weights, op, config.label) for op in tunable.ops),
            )
            for config in allowed
        )
        parts.append(_Part(tunable, options, first))
        first += len(options)
    return parts


def _chosen(table: CostTable, parts: Sequence[_Part], bound: float | None) -> list[int]:
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
        return best_of_all(choices, table.boundaries, place, bound=bound, equal=_EQUAL)
    return _solve(_problem(table, parts), parts, bound)


def _check_bound(parts: Sequence[_Part], bound: float) -> None:
    least = sum(min(option.weight for option in part.options) for part in parts)
    largest = max((abs(o.weight) for part in parts for o in part.options), default=0.0)
    if least > bound + _EQUAL * max(1.0, abs(bound), largest):
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


def _undominated(options: Iterable[_Option]) -> tuple[_Option, ...]:
    """Without options that another one of the same kind beats in both cost and weight.

    Boundaries only see whether an op is quantized, so such an option is never needed.
    """
    kept: list[_Option] = []
    given = list(options)
    for i, option in enumerate(given):
        others = [
            (o.cost, o.weight, j)
            for j, o in enumerate(given)
            if j != i and o.config.is_quantized == option.config.is_quantized
        ]
        if not any(
            cost <= option.cost
            and weight <= option.weight
            and ((cost, weight) != (option.cost, option.weight) or j < i)
            for cost, weight, j in others
        ):
            kept.append(option)
    return tuple(kept)


@dataclass(frozen=True)
class _Rows:
    """Linear constraints ``low <= coefficients * variables <= high``."""

    coefficients: list[dict[int, float]]
    low: list[float]
    high: list[float]

    def add(self, coefficients: Mapping[int, float], low: float, high: float) -> None:
        self.coefficients.append(dict(coefficients))
        self.low.append(low)
        self.high.append(high)


@dataclass(frozen=True)
class _Problem:
    """The program: binary variables of options first, then those of boundaries.

    Attributes:
        costs:
            What each variable adds to the cost.
        weights:
            What each adds to the sum of weights.
        fallbacks:
            How many ops each puts into fallback.
        binary:
            The number of binary variables.
        rows:
            One option for each op; when the boundaries are paid.
    """

    costs: _Vector
    weights: _Vector
    fallbacks: _Vector
    binary: int
    rows: _Rows


def _problem(table: CostTable, parts: Sequence[_Part]) -> _Problem:
    rows = _Rows([], [], [])
    for part in parts:
        rows.add({part.first + i: 1.0 for i in range(len(part.options))}, 1.0, 1.0)
    binary = sum(len(part.options) for part in parts)
    paid = _boundary_rows(table, parts, rows, binary)
    options = [(part, option) for part in parts for option in part.options]
    rest = [0.0] * len(paid)
    return _Problem(
        np.array([option.cost for _, option in options] + paid),
        np.array([option.weight for _, option in options] + rest),
        np.array(
            [0.0 if o.config.is_quantized else float(len(p.tunable.ops)) for p, o in options]
            + rest
        ),
        binary,
        rows,
    )


def _boundary_rows(
    table: CostTable, parts: Sequence[_Part], rows: _Rows, first: int
) -> list[float]:
    """Add what says when the boundaries are paid; gives the cost of each new variable."""
    quantized = {op: part.quantized() for part in parts for op in part.tunable.ops}
    costs: list[float] = []
    for boundary in table.boundaries:
        # An op that is not in the space runs in floats.
        producer = quantized.get(boundary.producer, {})
        consumers = [quantized.get(op, {}) for op in dict.fromkeys(boundary.consumers)]
        for cost, sign in ((boundary.quantize, 1.0), (boundary.dequantize, -1.0)):
            if not cost or not consumers:
                continue
            variable = first + len(costs)
            costs.append(cost)
            # Quantize: paid is consumer - producer where that is 1 for one consumer; dequantize:
            # producer - consumer.
            differences = [_sum((consumer, sign), (producer, -sign)) for consumer in consumers]
            for difference in differences:
                # paid >= difference
                rows.add(_sum(({variable: 1.0}, 1.0), (difference, -1.0)), 0.0, math.inf)
            if cost < 0:
                # Then it would be paid always: not more than 1 - producer (or producer), and not
                # more than the consumers that differ from it can make it.
                own = _sum(({variable: 1.0}, 1.0), (producer, sign))
                rows.add(own, -math.inf, 1.0 if sign > 0 else 0.0)
                every = _sum(({variable: 1.0}, 1.0), *((c, -sign) for c in consumers))
                rows.add(every, -math.inf, 0.0 if sign > 0 else float(len(consumers)))
    return costs


def _sum(*terms: tuple[Mapping[int, float], float]) -> dict[int, float]:
    total: dict[int, float] = {}
    for coefficients, factor in terms:
        for variable, value in coefficients.items():
            total[variable] = total.get(variable, 0.0) + factor * value
    return total


def _solve(problem: _Problem, parts: Sequence[_Part], bound: float | None) -> list[int]:
    """The position of the option of each part."""
    rows = problem.rows
    if bound is not None:
        rows = _limited(rows, problem.weights, bound)
    best = _minimize(problem, rows, problem.costs)
    if bound is not None and (
        best is None or problem.weights @ best > bound + _EQUAL * _scale(problem.weights)
    ):
        # The solver lets a bound be exceeded by its tolerance.
        tight = bound - 2 * _SOLVER_TOLERANCE * _scale(problem.weights)
        best = _minimize(problem, _limited(problem.rows, problem.weights, tight), problem.costs)
    if best is None:
        # The cheapest is not known; this one is within the bound.
        return [
            min(range(len(p.options)), key=lambda i: (p.options[i].weight, p.options[i].cost))
            for p in parts
        ]
    if not _may_tie(parts):
        return _positions(best, parts)
    done: list[_Vector] = [problem.costs]
    for values in (problem.weights, problem.fallbacks):
        if not values.any():
            continue
        limited = rows
        for earlier in done:
            limited = _limited(limited, earlier, float(earlier @ best))
        found = _minimize(problem, limited, values)
        if (
            found is not None
            and _is_no_worse(found, best, done)
            and values @ found < values @ best
        ):
            best = found
        done.append(values)
    return _positions(best, parts)


def _positions(chosen: _Vector, parts: Sequence[_Part]) -> list[int]:
    return [int(np.argmax(chosen[p.first : p.first + len(p.options)])) for p in parts]


def _may_tie(parts: Sequence[_Part]) -> bool:
    """Whether there may be equally cheap configurations: what ops gain repeats."""
    if len(parts) <= _FEW:
        return True
    gains = [
        abs(option.cost - part.options[0].cost) for part in parts for option in part.options[1:]
    ]
    return 2 * len({f"{gain:.9e}" for gain in gains}) < len(gains)


def _is_no_worse(found: _Vector, best: _Vector, by: Sequence[_Vector]) -> bool:
    return all(values @ found <= values @ best + _EQUAL * _scale(values) for values in by)


def _scale(values: _Vector) -> float:
    return float(np.abs(values).max(initial=0.0)) or 1.0


def _limited(rows: _Rows, values: _Vector, most: float) -> _Rows:
    """The rows and one more: the sum of the values is at most ``most``."""
    scale = _scale(values)
    more = replace(rows, coefficients=[*rows.coefficients], low=[*rows.low], high=[*rows.high])
    coefficients = {i: v / scale for i, v in enumerate(values.tolist()) if v}
    more.add(coefficients, -math.inf, most / scale)
    return more


def _minimize(problem: _Problem, rows: _Rows, values: _Vector) -> _Vector | None:
    """The variables that minimize the sum of values; :obj:`None` if none were found."""
    from scipy.optimize import Bounds
    from scipy.optimize import LinearConstraint
    from scipy.optimize import milp
    from scipy.sparse import csr_array

    count = len(values)
    lengths = [len(row) for row in rows.coefficients]
    matrix = csr_array(
        (
            [value for row in rows.coefficients for value in row.values()],
            # SciPy 1.11 takes no others.
            np.array([variable for row in rows.coefficients for variable in row], np.int32),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        ),
        shape=(len(lengths), count),
    )
    integrality = np.zeros(count)
    integrality[: problem.binary] = 1
    found: Any = milp(
        values / _scale(values),
        integrality=integrality,
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, rows.low, rows.high),
        # With presolving HiGHS writes to the standard output when it has to repair a solution.
        options={"mip_rel_gap": _GAP, "node_limit": _MOST_NODES, "presolve": False},
    )
    if found.x is None:
        return None
    solution: _Vector = np.round(found.x)
    return solution
