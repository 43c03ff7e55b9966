"""Bags of an embedding whose rows have been read one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.backends.torch.converted.reference_ops import ATEN


if TYPE_CHECKING:
    from torch.fx import Node


_PADDING = 8
"""The position of the index that counts for nothing, among the arguments."""


def read_bag(bag: Node, rows: Node, width: int) -> None:
    """Let an embedding of bags read rows that are there already, in their order.

    So only rows that are asked for are made floats.

    Args:
        bag:
            The node of ``aten.embedding_bag``, which is changed.
        rows:
            Gives one row for each of its indices.
        width:
            The length of a row.
    """
    call = bag.graph.call_function
    args: list[Any] = list(bag.args)
    indices = args[1]
    padding = args[_PADDING] if len(args) > _PADDING else None
    count = call(ATEN.sym_size.int, (indices, 0))
    if padding is None:
        args[:2] = rows, call(ATEN.arange.default, (count,))
    else:
        # What counts for nothing has the first row.
        none = call(ATEN.new_zeros.default, (rows, [1, width]))
        places = call(ATEN.add.Scalar, (call(ATEN.arange.default, (count,)), 1))
        padded = call(ATEN.eq.Scalar, (indices, padding))
        args[:2] = (
            call(ATEN.cat.default, ([none, rows],)),
            call(ATEN.masked_fill.Scalar, (places, padded, 0)),
        )
        args[_PADDING] = 0
    bag.args = tuple(args)
