from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
import pytest

from optuna_quant.backends.ranges.histogram import BINS_PER_SIDE
from optuna_quant.backends.ranges.histogram import Histogram
from optuna_quant.backends.ranges.histogram import StreamingHistogram
from optuna_quant.backends.ranges.histogram import histograms_from_arrays
from optuna_quant.backends.ranges.histogram import histograms_to_arrays


def histogram_of(*batches: NDArray[np.floating]) -> Histogram:
    stream = StreamingHistogram("t")
    for batch in batches:
        stream.update(batch)
    return stream.snapshot()


def float32_values(max_size: int = 40) -> st.SearchStrategy[list[float]]:
    anything = st.floats(width=32, allow_nan=False, allow_infinity=False)
    ordinary = st.floats(-10.0, 10.0, width=32)
    return st.lists(st.one_of(anything, ordinary), max_size=max_size)


@given(values=float32_values(), data=st.data())
@settings(max_examples=examples(200))
def test_histogram_independent_of_order_and_split(
    values: list[float], data: st.DataObject
) -> None:
    whole = np.array(values, dtype=np.float32)
    shuffled = np.array(data.draw(st.permutations(values)), dtype=np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    assert histogram_of(*np.split(shuffled, cuts)) == histogram_of(whole)


@given(values=float32_values())
@settings(max_examples=examples(200))
def test_histogram_counts_match_their_definition(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32).astype(np.float64)
    histogram = histogram_of(array.astype(np.float32))
    nonzero = array[array != 0]
    bins, counts = np.unique(np.floor(nonzero / histogram.width), return_counts=True)
    expected = dict(zip(bins.astype(int).tolist(), counts.tolist(), strict=True))
    found = {histogram.first + i: int(n) for i, n in enumerate(histogram.counts) if n}
    assert found == expected
    assert histogram.zeros == array.size - nonzero.size
    assert histogram.count == array.size
    assert (histogram.min, histogram.max) == (
        (array.min(), array.max()) if array.size else (0.0, 0.0)
    )


@given(values=float32_values())
@settings(max_examples=examples(100))
def test_histogram_resolution_is_a_thousandth_of_the_range(values: list[float]) -> None:
    array = np.array([*values, 1.5e-20], dtype=np.float32)
    histogram = histogram_of(array)
    largest = float(np.abs(array).max())
    assert BINS_PER_SIDE // 2 * histogram.width <= largest <= BINS_PER_SIDE * histogram.width
    assert histogram.counts.size <= 2 * BINS_PER_SIDE


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_histogram_of_float_dtypes(dtype: type[np.floating]) -> None:
    values = np.array([[-3.0, 0.5], [0.0, 2.25]], dtype=dtype)
    assert histogram_of(values) == histogram_of(values.astype(np.float32))


def test_histogram_spans_several_chunks() -> None:
    values = np.random.default_rng(0).standard_normal(200_001).astype(np.float32)
    histogram = histogram_of(values.reshape(3, -1))
    reference, _ = np.histogram(values, bins=histogram.edges)
    # numpy's last bin is closed; ours is not, and nothing lies on that edge.
    assert np.array_equal(histogram.counts, reference)
    assert histogram_of(values[::-1]) == histogram


def test_histogram_of_tiny_float64_counts_as_zero() -> None:
    histogram = histogram_of(np.array([1e-300, -1e-200, 1.0]))
    assert (histogram.zeros, histogram.count) == (2, 3)


def test_histogram_of_zeros_and_of_nothing() -> None:
    zeros = histogram_of(np.array([0.0, -0.0], dtype=np.float32))
    assert (zeros.zeros, zeros.count, zeros.counts.size) == (2, 2, 0)
    nothing = histogram_of(np.zeros((0, 3), dtype=np.float32))
    assert nothing.count == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_histogram_non_finite_names_tensor_and_changes_nothing(bad: float) -> None:
    stream = StreamingHistogram("encoder/output")
    stream.update(np.ones(3, dtype=np.float32))
    before = stream.snapshot()
    with pytest.raises(ValueError, match="'encoder/output' holds"):
        stream.update(np.array([1.0, bad, 5.0], dtype=np.float32))
    assert stream.snapshot() == before


def test_histogram_float64_beyond_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="0 NaN and 1 infinite"):
        StreamingHistogram("t").update(np.array([1e300]))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_histogram_of_other_dtypes_is_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(TypeError, match="'ids' has dtype"):
        StreamingHistogram("ids").update(np.ones(3, dtype=dtype))


def test_snapshot_is_frozen() -> None:
    stream = StreamingHistogram("t")
    stream.update(np.array([1.0], dtype=np.float32))
    before = stream.snapshot()
    stream.update(np.array([100.0, 1.0], dtype=np.float32))
    assert before == histogram_of(np.array([1.0], dtype=np.float32))
    with pytest.raises(ValueError, match="read-only"):
        before.counts[0] = 7


@given(values=st.lists(float32_values(10), max_size=4))
@settings(max_examples=examples(50))
def test_arrays_round_trip(values: list[list[float]]) -> None:
    histograms = {f"é/{i}": histogram_of(np.array(v, np.float32)) for i, v in enumerate(values)}
    assert histograms_from_arrays(histograms_to_arrays(histograms)) == histograms


def test_arrays_that_do_not_fit_are_refused() -> None:
    arrays = histograms_to_arrays({"a": histogram_of(np.array([1.0], dtype=np.float32))})
    with pytest.raises(ValueError, match="number of bins"):
        histograms_from_arrays({**arrays, "counts": np.zeros(5, dtype=np.int64)})
    with pytest.raises(ValueError, match="number of tensors"):
        histograms_from_arrays({**arrays, "extremes": np.zeros((2, 2))})
