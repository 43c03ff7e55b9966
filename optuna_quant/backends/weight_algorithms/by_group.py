"""Quantize a weight group by group, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight


if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any
    from typing import TypeAlias

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.levels import Levels

    Floats: TypeAlias = NDArray[np.float32]
    FitGrid: TypeAlias = Callable[[Floats, Levels], tuple[Floats, Floats]]
    """From groups of shape [n, width] to their scales and zero points, each of shape [n]."""

_CHUNK = 1 << 17
"""Values that are worked on at a time: a few arrays of them fit into a processor's cache."""


def quantize_by_group(
    weight: NDArray[Any],
    levels: Levels,
    group_size: int,
    fit: FitGrid,
    *,
    zero_points: type[np.generic] = np.uint8,
) -> GroupedWeight:
    """Quantize a weight with an algorithm that looks at one group at a time.

    Beside the result it needs memory for some small arrays, however large the
    weight is.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
        fit:
            The algorithm: finds scales and zero points. Each value then gets the nearest code.
        zero_points:
            The type of the zero points of an asymmetric weight.
    """
    empty = empty_grouped(weight.shape, levels, group_size, zero_points=zero_points)
    for rows, values in row_chunks(weight):
        for groups, columns in group_ranges(weight.shape[1], group_size):
            part = values[:, columns]
            count = groups.stop - groups.start
            stacked = np.ascontiguousarray(part).reshape(len(part) * count, -1)
            scale, zero_point = fit(stacked, levels)
            codes = levels.codes(stacked, scale, zero_point)
            empty.codes[rows, columns] = codes.reshape(part.shape)
            empty.scales[rows, groups] = scale.reshape(-1, count)
            if empty.zero_points is not None:
                empty.zero_points[rows, groups] = zero_point.reshape(-1, count)
    return empty


def empty_grouped(
    shape: tuple[int, ...],
    levels: Levels,
    group_size: int,
    input_scale: Floats | None = None,
    *,
    zero_points: type[np.generic] = np.uint8,
) -> GroupedWeight:
    """A grouped weight whose arrays are yet to be written."""
    outputs, inputs = shape
    groups = -(-inputs // group_size)
    return GroupedWeight(
        codes=np.empty((outputs, inputs), np.uint8),
        scales=np.empty((outputs, groups), np.float32),
        zero_points=None if levels.scheme == "sym" else np.empty((outputs, groups), zero_points),
        bits=levels.bits,
        group_size=group_size,
        input_scale=input_scale,
    )


def row_chunks(weight: NDArray[Any], *, least: int = 1) -> Iterator[tuple[slice, Floats]]:
    """Some rows of a weight after the other, at least so many, as float32: which, and values."""
    height = max(least, _CHUNK // weight.shape[1])
    for start in range(0, len(weight), height):
        rows = slice(start, min(start + height, len(weight)))
        yield rows, np.asarray(weight[rows], np.float32)


def group_ranges(inputs: int, group_size: int) -> Iterator[tuple[slice, slice]]:
    """The groups of one width: all whole ones, and then a shorter last one.

    Yields:
        Which groups, and which inputs are theirs.
    """
    whole, rest = divmod(inputs, group_size)
    if whole:
        yield slice(0, whole), slice(0, whole * group_size)
    if rest:
        yield slice(whole, whole + 1), slice(whole * group_size, inputs)
