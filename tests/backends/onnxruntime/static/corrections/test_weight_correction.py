"""Quantized weights with the means and the deviation of the weights in floats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import pytest

from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight
from optuna_quant.backends.onnxruntime.model.weights import quantized
from optuna_quant.backends.onnxruntime.static.corrections.weight import corrected_weight
from optuna_quant.space.config import TensorConfig


PER_CHANNEL = TensorConfig("int8", "sym", "per_channel", "minmax")
PER_TENSOR = TensorConfig("int8", "sym", "per_tensor", "minmax")
UNSIGNED = TensorConfig("uint8", "asym", "per_tensor", "minmax")
COARSE = TensorConfig("int8", "sym", "per_channel", "mse")


def values(weight: QuantizedWeight) -> NDArray[np.float64]:
    shape = [1] * weight.values.ndim
    if weight.axis is not None:
        shape[weight.axis] = -1
    steps = weight.values.astype(np.float64) - weight.zero_point.reshape(shape)
    return steps * weight.scale.astype(np.float64).reshape(shape)


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    # Skewed, with a mean and a width of their own for each channel.
    array = rng.gamma(2.0, size=shape) * rng.uniform(
        0.1, 3.0, (shape[0],) + (1,) * (len(shape) - 1)
    )
    return (array - rng.uniform(0.0, 3.0)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "axis", "reduced"),
    [
        ((6, 4, 3, 3), 0, (1, 2, 3)),  # a convolution,
        ((40, 7), 1, (0,)),  # a matrix,
        ((7, 40), 0, (1,)),  # a transposed one.
        ((8, 1, 3, 3), 0, (1, 2, 3)),  # a depthwise convolution
    ],
)
@pytest.mark.parametrize("config", [PER_CHANNEL, COARSE])
def test_means_and_deviations_of_channels_are_restored(
    shape: tuple[int, ...], axis: int, reduced: tuple[int, ...], config: TensorConfig
) -> None:
    array = random(*shape)
    plain = quantized(array, config, axis, reduce_range=False)
    weight = corrected_weight(array, plain, reduced)
    terms = np.prod([shape[i] for i in reduced])
    rounding = 2e-3 if terms > 30 else 2e-2
    np.testing.assert_allclose(values(weight).std(reduced), array.std(reduced), rtol=rounding)
    off, before = (
        np.abs(values(each).mean(reduced) - array.mean(reduced, dtype=np.float64))
        for each in (weight, plain)
    )
    assert np.all(off <= 0.51 * weight.scale / terms)
    assert off.sum() < before.sum() / 2


@pytest.mark.parametrize("config", [PER_TENSOR, UNSIGNED])
def test_with_one_scale_the_deviation_is_that_of_the_whole(config: TensorConfig) -> None:
    array = random(12, 50)
    plain = quantized(array, config, None, reduce_range=False)
    weight = corrected_weight(array, plain, (1,))
    np.testing.assert_allclose(values(weight).std(), array.std(), rtol=1e-3)
    off = np.abs(values(weight).mean(1) - array.mean(1, dtype=np.float64))
    assert np.all(off <= 0.51 * weight.scale / 50)


def test_no_value_moves_by_a_step_or_leaves_the_range() -> None:
    array = random(5, 30)
    for reduce_range in (False, True):
        plain = quantized(array, PER_CHANNEL, 0, reduce_range=reduce_range)
        weight = corrected_weight(array, plain, (1,))
        moved = np.abs(weight.values.astype(int) - plain.values)
        assert moved.max() == 1
        limit = 63 if reduce_range else 127
        assert np.abs(weight.values.astype(int)).max() <= limit
        assert np.abs(values(weight) - array).max() < 1.02 * weight.scale.max()


def test_the_error_of_products_with_a_common_part_is_smaller() -> None:
    array = random(16, 200, seed=3)
    x = 1.0 + 0.1 * np.random.default_rng(4).standard_normal((100, 200))
    plain = quantized(array, PER_CHANNEL, 0, reduce_range=False)
    weight = corrected_weight(array, plain, (1,))
    before, after = (np.square(x @ (values(each) - array).T).mean() for each in (plain, weight))
    assert after < before / 2


def test_channels_without_deviation_stay() -> None:
    array = np.zeros((3, 8), np.float32)
    array[1] = 0.5
    array[2] = np.linspace(-1, 1, 8)
    plain = quantized(array, PER_CHANNEL, 0, reduce_range=False)
    weight = corrected_weight(array, plain, (1,))
    assert weight.scale[0] == plain.scale[0]
    assert weight.scale[1] == plain.scale[1]
    np.testing.assert_array_equal(weight.values[:2], plain.values[:2])
    np.testing.assert_allclose(values(weight), array, atol=0.02)
