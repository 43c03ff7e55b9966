"""Fast bias correction: what the rounding of a weight adds to the mean of an op's output.

The outputs of a layer with the weight ``W`` and its quantized form ``Q`` differ in their mean by
``E[W x] - E[Q x] = (W - Q) E[x]``, and a bias can take that back (Nagel et al., "Data-free
quantization through weight equalization and bias correction", 2019, section 4.2). Of the
calibration data that needs one mean for each input channel.

For a matrix product this is exact on the calibration data, for inputs as the FP32 model has them.
For a convolution each window is taken to see the channels' means, which is nearly so without
padding; where a window reaches into the padding the input is zero, so that the correction is a
little too large at the borders. A transposed convolution is taken to spread its kernel evenly over
the outputs, which holds where its stride divides the kernel's size. Not corrected is what the
quantization of the activations changes, here and in the layers before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def product_shift(error: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the bias of a matrix product takes.

    Args:
        error:
            The weight less its quantized form, of shape ``[inputs, outputs]``.
        means:
            The mean of each input, of shape ``[inputs]``.

    Returns:
        What to add to each output, of shape ``[outputs]``.
    """
    return means @ error


def conv_shift(
    error: NDArray[np.float64], means: NDArray[np.float64], *, groups: int = 1
) -> NDArray[np.float64]:
    """What the bias of a convolution takes.

    Args:
        error:
            The weight less its quantized form, of shape ``[outputs, inputs / groups, ...]``.
        means:
            The mean of each input channel, of shape ``[inputs]``.
        groups:
            The number of groups.

    Returns:
        What to add to each output channel, of shape ``[outputs]``.
    """
    return _shift(error, means, groups, "goi")


def conv_transpose_shift(
    error: NDArray[np.float64],
    means: NDArray[np.float64],
    *,
    groups: int = 1,
    strides: Sequence[int] = (),
) -> NDArray[np.float64]:
    """What the bias of a transposed convolution takes.

    Args:
        error:
            The weight less its quantized form, of shape ``[inputs, outputs / groups, ...]``.
        means:
            The mean of each input channel, of shape ``[inputs]``.
        groups:
            The number of groups.
        strides:
            The strides; none for 1 along each axis.

    Returns:
        What to add to each output channel, of shape ``[outputs]``.
    """
    # Each output lies in one window of as many as there are outputs between two inputs.
    return _shift(error, means, groups, "gio") / math.prod(strides)


def _shift(
    error: NDArray[np.float64], means: NDArray[np.float64], groups: int, axes: str
) -> NDArray[np.float64]:
    """The shift of each output; ``axes`` says where the weight has its inputs and outputs."""
    windows = error.reshape(groups, error.shape[0] // groups, error.shape[1], -1).sum(-1)
    shift = np.einsum(f"{axes},gi->go", windows, means.reshape(groups, -1))
    return np.asarray(shift.reshape(-1))
