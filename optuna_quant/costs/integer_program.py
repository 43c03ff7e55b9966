"""The cheapest configuration as an integer program, solved with SciPy."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_quant.costs.parts import Part


if TYPE_CHECKING:
    from optuna_quant.costs.table import CostTable


# Costs and sums of weights that differ by less, relative to the largest, are equal. The solver
# works to 1e-6.
EQUAL = 1e-9
_SOLVER_TOLERANCE = 1e-6
# A limit in nodes and not in seconds, so that the same question always has the same answer.
_MOST_NODES = 50
_GAP = 1e-5
# Up to so many ops it is always looked for equally cheap configurations.
_FEW = 30
_Vector = npt.NDArray[np.float64]


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


def _problem(table: CostTable, parts: Sequence[Part]) -> _Problem:
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
    table: CostTable, parts: Sequence[Part], rows: _Rows, first: int
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


def solve(table: CostTable, parts: Sequence[Part], bound: float | None) -> list[int]:
    """The position of the option of each part in the cheapest configuration.

    Args:
        table:
            The costs, of which those of boundaries are still to be added.
        parts:
            The ops.
        bound:
            The largest sum of weights; :obj:`None` if there is none.
    """
    problem = _problem(table, parts)
    rows = problem.rows
    if bound is not None:
        rows = _limited(rows, problem.weights, bound)
    best = _minimize(problem, rows, problem.costs)
    if bound is not None and (
        best is None or problem.weights @ best > bound + EQUAL * _scale(problem.weights)
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


def _positions(chosen: _Vector, parts: Sequence[Part]) -> list[int]:
    return [int(np.argmax(chosen[p.first : p.first + len(p.options)])) for p in parts]


def _may_tie(parts: Sequence[Part]) -> bool:
    """Whether there may be equally cheap configurations: what ops gain repeats."""
    if len(parts) <= _FEW:
        return True
    gains = [
        abs(option.cost - part.options[0].cost) for part in parts for option in part.options[1:]
    ]
    return 2 * len({f"{gain:.9e}" for gain in gains}) < len(gains)


def _is_no_worse(found: _Vector, best: _Vector, by: Sequence[_Vector]) -> bool:
    return all(values @ found <= values @ best + EQUAL * _scale(values) for values in by)


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
