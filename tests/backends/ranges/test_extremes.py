from __future__ import annotations

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from optuna_quant.backends.ranges.extremes import SampleExtremes
from optuna_quant.backends.ranges.extremes import extremes_from_arrays
from optuna_quant.backends.ranges.extremes import extremes_of
from optuna_quant.backends.ranges.extremes import extremes_to_arrays
from optuna_quant.backends.ranges.histogram import StreamingHistogram
from optuna_quant.backends.ranges.ranges import compute_range
from optuna_quant.backends.ranges.ranges import mean_minmax_range


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    rows=st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=8), data=st.data()
)
@settings(max_examples=examples(100))
def test_sums_depend_neither_on_order_nor_on_batches(
    rows: list[list[float]], data: st.DataObject
) -> None:
    whole = np.array(rows, dtype=np.float32)
    shuffled = np.array(data.draw(st.permutations(rows)), dtype=np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    total = SampleExtremes()
    for batch in np.split(shuffled, cuts):
        total += extremes_of(batch, max(1, len(batch)))
    assert total == extremes_of(whole, len(rows))
    assert total.mean_low == pytest.approx(whole.min(axis=1).mean(dtype=np.float64), rel=1e-9)
    assert total.mean_high == pytest.approx(whole.max(axis=1).mean(dtype=np.float64), rel=1e-9)


@pytest.mark.parametrize("shape", [(4, 6), (8, 3), (4, 2, 3), (24,)])
def test_samples_are_along_the_first_axis_alone_or_with_others(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal(24).astype(np.float32)
    rows = values.reshape(4, 6)
    found = extremes_of(values.reshape(shape), 4)
    assert found.samples == 4
    assert found.mean_low == pytest.approx(rows.min(axis=1).mean(dtype=np.float64))
    assert found.mean_magnitude == pytest.approx(np.abs(rows).max(axis=1).mean(dtype=np.float64))


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_what_has_no_axis_of_samples_counts_as_a_whole(shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) - 2.0
    found = extremes_of(values, 4)
    assert (found.samples, found.mean_low) == (4, -2.0)
    assert found.mean_high == values.max()


def test_range_is_that_of_the_means_and_holds_zero() -> None:
    values = np.array([[1.0, 3.0], [2.0, 7.0], [-9.0, -1.0]], dtype=np.float32)
    extremes = extremes_of(values, 3)
    assert mean_minmax_range(extremes, "uint8", "asym") == (-2.0, 3.0)
    low, high = mean_minmax_range(extremes, "int8", "sym")
    assert -low == high == pytest.approx((3.0 + 7.0 + 9.0) / 3)
    assert mean_minmax_range(extremes_of(values[:2], 2), "uint8", "asym") == (0.0, 5.0)


def test_means_that_cancel_give_the_full_range() -> None:
    values = np.array([[3.0], [-3.0]], dtype=np.float32)
    stream = StreamingHistogram()
    stream.update(values)
    extremes = extremes_of(values, 2)
    found = compute_range(stream.snapshot(), "mean_minmax", "uint8", "asym", extremes=extremes)
    assert found == (-3.0, 3.0)


def test_arrays_keep_every_bit() -> None:
    extremes = {"a": extremes_of(np.array([1e38, -1e-45, 0.1], dtype=np.float32), 3)}
    arrays = extremes_to_arrays({**extremes, "none": SampleExtremes()})
    assert extremes_from_arrays(arrays) == {**extremes, "none": SampleExtremes()}
    with pytest.raises(ValueError, match="tensor 'a'"):
        damaged = np.frombuffer(b'{"a": [1, 2, 3]}', dtype=np.uint8)
        extremes_from_arrays({"sample_extremes": damaged})
