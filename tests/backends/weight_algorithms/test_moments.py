"""The moments of a layer's inputs, and the output error that they give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optuna_quant.backends.weight_algorithms.moments import InputMoments
from optuna_quant.backends.weight_algorithms.output_error import output_errors
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


def batches(lengths: tuple[int, ...] = (5, 1, 9000), inputs: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(1, 3, size=(2, length, inputs)).astype(np.float32) for length in lengths]


def test_as_of_all_inputs_at_once() -> None:
    moments = InputMoments(12)
    for batch in batches():
        moments.add(batch)
    x = np.concatenate([batch.reshape(-1, 12) for batch in batches()]).astype(np.float64)
    assert moments.count == len(x)
    np.testing.assert_allclose(moments.gram(), x.T @ x, rtol=1e-4)
    np.testing.assert_array_equal(moments.gram(), moments.gram().T)
    np.testing.assert_array_equal(moments.block(slice(3, 8)), moments.gram()[3:8, 3:8])
    np.testing.assert_allclose(moments.squares(), (x**2).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.mean_magnitude(), np.abs(x).mean(axis=0), rtol=1e-5)


def test_memory_is_bounded() -> None:
    moments = InputMoments(12)
    before = moments.nbytes
    for batch in batches():
        moments.add(batch)
    assert moments.nbytes == before == 12 * 12 * 4 + 12 * 8


def test_output_errors_are_those_of_the_outputs() -> None:
    moments = InputMoments(12)
    x = batches()[2]
    moments.add(x)
    rng = np.random.default_rng(1)
    weight, other = rng.normal(size=(2, 7, 12)).astype(np.float32)
    quantized = quantize_grouped(other, bits=2, group_size=5, scheme="sym", algorithm="rtn")
    factors = rng.uniform(0.5, 2, size=12).astype(np.float32)
    quantized = replace(quantized, input_scale=factors)
    found = output_errors(weight, quantized, moments)
    outputs = (x * factors).astype(np.float64) @ quantized.dequantized().T
    change = outputs - x.astype(np.float64) @ weight.T
    np.testing.assert_allclose(found, (change**2).sum(axis=(0, 1)), rtol=1e-4)


def test_a_single_input_and_none() -> None:
    moments = InputMoments(3)
    moments.add(np.zeros((0, 3), np.float32))
    assert moments.count == 0
    assert np.all(moments.mean_magnitude() == 0)
    moments.add(np.array([1.0, -2.0, 0.5]))
    np.testing.assert_array_equal(moments.gram()[1], [-2, 4, -1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_bad_inputs_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="inputs must be finite and below 1e18.*calibration"):
        InputMoments(2).add(np.array([[1.0, bad]]))


def test_wrong_sizes_are_refused() -> None:
    moments = InputMoments(3)
    with pytest.raises(ValueError, match=r"has 3 inputs, but a batch of shape \(5, 4\)"):
        moments.add(np.ones((5, 4)))
    with pytest.raises(ValueError, match="inputs must be at least 1, but it is 0"):
        InputMoments(0)


def test_merged_moments_are_those_of_all_inputs() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(rows, 6)).astype(np.float32) for rows in (40, 25)]
    merged, together = InputMoments(6), InputMoments(6)
    for part in parts:
        one = InputMoments(6)
        one.add(part)
        merged.merge(one)
        together.add(part)
    assert merged.count == together.count == 65
    np.testing.assert_allclose(merged.gram(), together.gram(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(merged.mean_magnitude(), together.mean_magnitude(), rtol=1e-6)
    with pytest.raises(ValueError, match="moments of 5 inputs cannot be merged into those of 6"):
        merged.merge(InputMoments(5))
