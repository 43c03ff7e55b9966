"""Einsums that are products with a matrix, as layers over several axes are exported.

Keras writes the projections of its attention so: ``abc,cde->abde`` is a product with the weight as
a matrix of ``c`` by ``d * e``, and ``abcd,cde->abe`` one in which ``c`` and ``d`` are summed over
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
import re


@dataclass(frozen=True)
class MatrixProduct:
    """How an Einsum of an activation and a weight is computed as a MatMul.

    Args:
        order:
            The axes of the weight in the order in which those that are summed over come first.
        matrix:
            The shape of the weight as a matrix.
        activation:
            The shape that the activation gets before, 0 for an axis that stays; None if it stays
            as it is.
        output:
            The shape that the result gets; None if it stays as it is.
    """

    order: tuple[int, ...]
    matrix: tuple[int, int]
    activation: tuple[int, ...] | None
    output: tuple[int, ...] | None


def as_matrix_product(equation: str, dims: Sequence[int]) -> MatrixProduct | None:
    """How an Einsum is computed as a MatMul; None if it is none.

    Args:
        equation:
            Its equation; the second operand is the weight.
        dims:
            The shape of the weight.
    """
    found = re.fullmatch(r"(\w+),(\w+)->(\w+)", equation.replace(" ", ""))
    if found is None:
        return None
    left, right, result = found.groups()
    if any(len(set(labels)) < len(labels) for labels in (left, right, result)):
        return None
    kept = "".join(label for label in left if label not in right)
    summed, new = left[len(kept) :], result[len(kept) :]
    if not (kept and summed and new) or len(right) != len(dims):
        return None
    if left != kept + summed or result != kept + new or set(right) != {*summed, *new}:
        return None
    if len(right) != len(summed) + len(new):
        return None
    size = dict(zip(right, dims, strict=True))
    rows = math.prod(size[label] for label in summed)
    return MatrixProduct(
        order=tuple(right.index(label) for label in summed + new),
        matrix=(rows, math.prod(size[label] for label in new)),
        activation=(*(0 for _ in kept), rows) if len(summed) > 1 else None,
        output=(*(0 for _ in kept), *(size[label] for label in new)) if len(new) > 1 else None,
    )
