"""Round to nearest (RTN): the range of each group from its extremes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.weight_algorithms.by_group import quantize_by_group


if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.levels import Levels


def round_to_nearest(weight: NDArray[Any], levels: Levels, group_size: int) -> GroupedWeight:
    """Quantize a weight by rounding, with the ranges of ONNX Runtime's quantizer.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
    """
    return quantize_by_group(weight, levels, group_size, min_max)


def min_max(
    groups: NDArray[np.float32], levels: Levels
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scales and zero points that cover the values of each group, without shrinking."""
    return levels.min_max(groups)
