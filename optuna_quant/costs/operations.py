"""Tables of operations, from how many multiply-adds each op makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.costs.table import CostTable
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.space import TuningSpace


FLOAT_BITS = 32
_RUNTIME_BITS = 8
"""The activation's bits where it is quantized at run time."""
_INT8_LEVEL = 4
"""The accuracy level of ops whose weights alone are quantized, and that compute on integers."""


def bits(option: OpConfig) -> tuple[int, int]:
    """The bits of the two operands of an op's products in an option."""
    if not option.is_quantized:
        width = FLOAT_BITS if option.mode == "fp32" else FLOAT_BITS // 2
        return width, width
    if option.mode == "weight_only":
        assert option.weight is not None
        is_integer = option.accuracy_level == _INT8_LEVEL
        return _RUNTIME_BITS if is_integer else FLOAT_BITS, option.weight.bits
    first = _RUNTIME_BITS if option.activation is None else option.activation.bits
    return first, first if option.weight is None else option.weight.bits


def operation_tables(
    counts: Mapping[str, float], space: TuningSpace
) -> tuple[CostTable, CostTable]:
    """The tables of multiply-adds in floats and of bit operations, for one sample.

    Args:
        counts:
            The multiply-adds of each node of the model for one sample, by name; those of ops that
            are not in the space are fixed.
        space:
            The tuning space.
    """
    others = dict(counts)
    floats: dict[str, dict[str, float]] = {}
    products: dict[str, dict[str, float]] = {}
    for tunable in space.tunables:
        for op in tunable.ops:
            count = others.pop(op, 0.0)
            options = dict.fromkeys((*tunable.options, FP32))
            floats[op] = {o.label: 0.0 if o.is_quantized else count for o in options}
            products[op] = {o.label: count * bits(o)[0] * bits(o)[1] for o in options}
    rest = sum(others.values())
    return (
        CostTable("multiply_adds", "", floats, (), rest),
        CostTable("bit_operations", "", products, (), rest * FLOAT_BITS**2),
    )
