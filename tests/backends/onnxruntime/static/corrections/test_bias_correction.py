"""What biases take: expected values are the mean outputs of plain NumPy layers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import pytest

from optuna_quant.backends.onnxruntime.static.corrections.bias import conv_shift
from optuna_quant.backends.onnxruntime.static.corrections.bias import conv_transpose_shift
from optuna_quant.backends.onnxruntime.static.corrections.bias import product_shift


Floats = NDArray[np.float64]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_product() -> None:
    x = rng().standard_normal((3, 5, 8)) + 1.0
    error = rng().standard_normal((8, 6))
    shift = product_shift(error, x.mean((0, 1)))
    np.testing.assert_allclose(shift, (x @ error).mean((0, 1)))


def convolved(x: Floats, weight: Floats, groups: int, padding: int = 0) -> Floats:
    """A convolution, one output channel and one place at a time."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    outputs, inputs, *kernel = weight.shape
    height, width = (x.shape[2 + i] - kernel[i] + 1 for i in (0, 1))
    y = np.zeros((len(x), outputs, height, width))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for i in range(height):
            for j in range(width):
                window = x[:, first : first + inputs, i : i + kernel[0], j : j + kernel[1]]
                y[:, o, i, j] = (window * weight[o]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 6, 1), (4, 6, 2), (5, 5, 5)])
def test_convolution_of_constant_channels_is_exact(inputs: int, outputs: int, groups: int) -> None:
    means = rng().standard_normal(inputs)
    x = np.broadcast_to(means[None, :, None, None], (2, inputs, 6, 6))
    error = rng().standard_normal((outputs, inputs // groups, 3, 3))
    shift = conv_shift(error, means, groups=groups)
    expected = convolved(x, error, groups).mean((0, 2, 3))
    np.testing.assert_allclose(shift, expected)


def test_convolution_of_inputs_that_vary_takes_most_of_the_shift() -> None:
    x = rng().standard_normal((20, 4, 12, 12)) + 2.0
    error = rng().standard_normal((6, 4, 3, 3))
    shift = conv_shift(error, x.mean((0, 2, 3)))
    mean = convolved(x, error, 1, padding=1).mean((0, 2, 3))
    # Exact but for the borders, which are a tenth of the windows or less.
    assert np.all(np.abs(mean - shift) < 0.35 * np.abs(mean).max())
    assert np.square(mean - shift).mean() < 0.03 * np.square(mean).mean()


def transposed(x: Floats, weight: Floats, groups: int, stride: int) -> Floats:
    """A transposed convolution: each input adds its kernel to the output."""
    samples, inputs, height, width = x.shape
    _, outputs, *kernel = weight.shape
    size = (height - 1) * stride + kernel[0], (width - 1) * stride + kernel[1]
    y = np.zeros((samples, outputs * groups, *size))
    for c in range(inputs):
        first = c // (inputs // groups) * outputs
        for i in range(height):
            for j in range(width):
                rows = slice(i * stride, i * stride + kernel[0])
                columns = slice(j * stride, j * stride + kernel[1])
                y[:, first : first + outputs, rows, columns] += (
                    x[:, c, i, j][:, None, None, None] * weight[c]
                )
    return y


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 1), (1, 2)])
def test_transposed_convolution_is_exact_away_from_the_borders(groups: int, stride: int) -> None:
    means = rng().standard_normal(4)
    x = np.broadcast_to(means[None, :, None, None], (1, 4, 8, 8))
    error = rng().standard_normal((4, 3, 2, 2))
    shift = conv_transpose_shift(error, means, groups=groups, strides=(stride, stride))
    y = transposed(x, error, groups, stride)
    np.testing.assert_allclose(y[:, :, 2:-2, 2:-2].mean((0, 2, 3)), shift)
