"""The batch on which times are measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.calibration.timed_batch import timed_batch
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
    batch = timed_batch(data, samples)
    assert batch.samples == samples
    assert list(batch.feed) == ["x"]
    np.testing.assert_array_equal(batch.feed["x"], rows(10)[:samples])


def test_few_samples_come_again() -> None:
    batch = timed_batch(CalibrationData([rows(2), rows(3)[2:]], [X]), 7)
    np.testing.assert_array_equal(batch.feed["x"], rows(3)[[0, 1, 2, 0, 1, 2, 0]])


def test_inputs_that_are_the_same_for_all_have_the_same_batch() -> None:
    state = np.array([[1.0, 2.0]], np.float32)
    constants = ConstantInputs({"state": state}).bind([X, STATE])
    data = CalibrationData([rows(2), rows(2)], [X, STATE], constants=constants)
    batch = timed_batch(data, 6)
    assert batch.feed["x"].shape == (6, 3)
    np.testing.assert_array_equal(batch.feed["state"], np.repeat(state, 6, axis=0))


def test_a_fixed_batch_is_taken_as_it_is_or_refused() -> None:
    data = CalibrationData(rows(8), [FIXED])
    assert timed_batch(data, 1).samples == 4
    np.testing.assert_array_equal(timed_batch(data, 4).feed["x"], rows(4))
    with pytest.raises(ValueError, match=r"^latency_batch_size is 8, .* fix the batch: it is 4"):
        timed_batch(data, 8)


def test_texts_of_different_lengths_are_refused() -> None:
    texts = [np.ones((1, 5), np.int64), np.ones((1, 7), np.int64)]
    data = CalibrationData(texts, [IDS])
    assert timed_batch(data, 1).feed["ids"].shape == (1, 5)  # The lower of two medians.
    with pytest.raises(ValueError, match=r"different shapes of .*'ids': \(5,\) and \(7,\)"):
        timed_batch(data, 2)


@pytest.mark.parametrize(
    "lengths, typical, at",
    [
        ([4, 40, 22, 23, 21, 48], 22, 2),
        ([48, 4, 4, 4], 4, 1),
        ([9, 9, 9], 9, 0),
        ([4] + [30] * 299, 30, 1),
    ],
)
def test_a_text_of_typical_length_is_timed_and_not_the_first(
    lengths: list[int], typical: int, at: int
) -> None:
    texts = [np.full((1, length), i) for i, length in enumerate(lengths)]
    for _ in range(2):  # Every worker takes the same one.
        batch = timed_batch(CalibrationData(texts, [IDS]), 1)
        assert batch.samples == 1
        assert batch.feed["ids"].shape == (1, typical)
        assert batch.feed["ids"][0, 0] == at


def test_batches_count_by_their_samples() -> None:
    batches = [np.zeros((1, 4), int), np.ones((6, 20), int), np.zeros((2, 40), int)]
    batch = timed_batch(CalibrationData(batches, [IDS]), 1)
    assert batch.feed["ids"].tolist() == [[1] * 20]


def test_no_more_data_are_read_for_a_model_of_one_size() -> None:
    read = []

    def batches() -> Iterator[NDArray[np.float32]]:
        for i in range(10):
            read.append(i)
            yield rows(1)

    timed_batch(CalibrationData(batches, [X]), 1)
    assert read == [0]
