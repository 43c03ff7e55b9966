"""The batch on which times are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.calibration.first_batch import first_batch
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.data.inputs import InputSpec


X = InputSpec("x", np.dtype(np.float32), ("batch", 3))
STATE = InputSpec("state", np.dtype(np.float32), ("batch", 2))
FIXED = InputSpec("x", np.dtype(np.float32), (4, 3))
IDS = InputSpec("ids", np.dtype(np.int64), ("batch", "length"))


def rows(samples: int) -> NDArray[np.float32]:
    return np.arange(3 * samples, dtype=np.float32).reshape(samples, 3)


@pytest.mark.parametrize("batches", [[10], [4, 4, 2], [1] * 10])
@pytest.mark.parametrize("samples", [1, 3, 4, 6, 10])
def test_the_first_samples_however_they_are_cut(batches: list[int], samples: int) -> None:
    data = CalibrationData(np.split(rows(10), np.cumsum(batches)[:-1]), [X])
    batch = first_batch(data, samples)
    assert batch.samples == samples
    assert list(batch.feed) == ["x"]
    np.testing.assert_array_equal(batch.feed["x"], rows(10)[:samples])


def test_few_samples_come_again() -> None:
    batch = first_batch(CalibrationData([rows(2), rows(3)[2:]], [X]), 7)
    np.testing.assert_array_equal(batch.feed["x"], rows(3)[[0, 1, 2, 0, 1, 2, 0]])


def test_inputs_that_are_the_same_for_all_have_the_same_batch() -> None:
    state = np.array([[1.0, 2.0]], np.float32)
    constants = ConstantInputs({"state": state}).bind([X, STATE])
    data = CalibrationData([rows(2), rows(2)], [X, STATE], constants=constants)
    batch = first_batch(data, 6)
    assert batch.feed["x"].shape == (6, 3)
    np.testing.assert_array_equal(batch.feed["state"], np.repeat(state, 6, axis=0))


def test_a_fixed_batch_is_taken_as_it_is_or_refused() -> None:
    data = CalibrationData(rows(8), [FIXED])
    assert first_batch(data, 1).samples == 4
    np.testing.assert_array_equal(first_batch(data, 4).feed["x"], rows(4))
    with pytest.raises(ValueError, match=r"^latency_batch_size is 8, .* fix the batch: it is 4"):
        first_batch(data, 8)


def test_texts_of_different_lengths_are_refused() -> None:
    texts = [np.ones((1, 5), np.int64), np.ones((1, 7), np.int64)]
    data = CalibrationData(texts, [IDS])
    assert first_batch(data, 1).feed["ids"].shape == (1, 5)
    with pytest.raises(ValueError, match=r"different shapes of .*'ids': \(5,\) and \(7,\)"):
        first_batch(data, 2)
