"""Read the costs that a user gives: a file, a table, or a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import inspect
import math
from numbers import Real
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.printable import listed
from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.costs import Costs
from optuna_quant.costs.known import linearized
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import MEASURES
from optuna_quant.costs.table import CostTable
from optuna_quant.space.config import FP32


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
        _check_signs(table, space)
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
        table = linearized(partial(_call, value), space, measure=LATENCY, unit="s")
        return Costs({LATENCY: table}, {"given": "a function"})
    raise TypeError(
        "costs must be optuna_quant.costs.Costs, a CostTable, the path of a JSON file, or a "
        f"function that gives the seconds of a configuration, but got {value!r}."
    )


def _check_signs(table: CostTable, space: TuningSpace) -> None:
    """Refuse costs by which a configuration gives something back.

    What an option changes may be negative where the op in FP32 is what it is compared with, and
    so costs 0.
    """
    for op, options in table.ops.items():
        for label, cost in options.items():
            if cost < 0 and options.get(FP32.label) != 0:
                raise ValueError(
                    f"costs: the table {table.measure!r} has the cost {cost:g} for op {op!r} as "
                    f"{label!r}; costs must not be negative."
                )
    for b in table.boundaries:
        # What the size changes if anything at all is quantized has no producer.
        if b.producer and min(b.quantize, b.dequantize) < 0:
            raise ValueError(
                f"costs: the table {table.measure!r} has the cost "
                f"{min(b.quantize, b.dequantize):g} at the boundary between {b.producer!r} and "
                f"{', '.join(map(repr, b.consumers))}; costs must not be negative."
            )
    least = cheapest(table, space)
    cost = table.cost(least)
    if cost < 0:
        quantized = listed(least.quantized_ops)
        how = f"with {quantized} quantized" if quantized else "in FP32"
        raise ValueError(
            f"costs: by the table {table.measure!r} the model costs {cost:g} {how}; costs must "
            "not be negative."
        )


def _call(function: Callable[[QuantConfig], Any], config: QuantConfig) -> float:
    try:
        inspect.signature(function).bind(config)
    except TypeError as error:
        raise TypeError(
            "costs: the function must take one argument, the configuration, and give its seconds "
            f"({error})."
        ) from error
    except ValueError:  # A built-in that does not tell its arguments.
        pass
    return _seconds(function(config), config)


def _seconds(value: Any, config: QuantConfig) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        asked = listed([f"{op} as {config[op].label}" for op in config.quantized_ops])
        raise ValueError(
            "costs: the function must give the seconds of a configuration as a finite number "
            f"that is not negative, but it has given {value!r} for "
            f"{f'that with {asked}' if asked else 'FP32'}."
        )
    return float(value)
