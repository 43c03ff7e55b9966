"""The costs that a user gives: a file, a table, or a function."""

from __future__ import annotations

from collections.abc import Callable
import math
from numbers import Real
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.costs.costs import Costs
from optuna_quant.costs.known import linearized
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import MEASURES
from optuna_quant.costs.table import CostTable


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


CostsLike: TypeAlias = (
    Costs | CostTable | str | os.PathLike[str] | Callable[["QuantConfig"], float]
)
"""What ``costs=`` may be."""


def as_costs(value: CostsLike, space: TuningSpace) -> Costs:
    """The costs that a user gives, checked against the tuning space.

    Args:
        value:
            A :class:`Costs`, a :class:`CostTable`, the path of a JSON file that
            :meth:`Costs.save` has written, or a function that gives the seconds of a
            configuration. The function is called once for each option of each op and taken for
            a sum over ops.
        space:
            The tuning space.

    Raises:
        TypeError:
            If it is none of them.
        ValueError:
            If the file cannot be read, or the costs do not fit the space.
    """
    costs = _read(value, space)
    for measure, table in costs.tables.items():
        if measure != table.measure:
            raise ValueError(f"costs: the table {measure!r} says that it is {table.measure!r}.")
        if measure not in MEASURES:
            raise ValueError(
                f"costs: there is no measure {measure!r}; there are: {', '.join(MEASURES)}."
                f"{did_you_mean(measure, MEASURES)}"
            )
        table.check(space)
    return costs


def _read(value: CostsLike, space: TuningSpace) -> Costs:
    if isinstance(value, Costs):
        return value
    if isinstance(value, CostTable):
        return Costs({value.measure: value})
    if isinstance(value, str | os.PathLike):
        try:
            return Costs.load(value)
        except OSError as error:
            raise ValueError(
                f"The costs {os.fspath(value)!r} cannot be read: {error.strerror or error}."
            ) from error
    if callable(value):
        table = linearized(
            lambda config: _seconds(value(config)), space, measure=LATENCY, unit="s"
        )
        return Costs({LATENCY: table}, {"given": "a function"})
    raise TypeError(
        "costs must be optuna_quant.costs.Costs, a CostTable, the path of a JSON file, or a "
        f"function that gives the seconds of a configuration, but got {value!r}."
    )


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(
            "costs: the function must give the seconds of a configuration as a finite number, "
            f"but it has given {value!r}."
        )
    return float(value)
