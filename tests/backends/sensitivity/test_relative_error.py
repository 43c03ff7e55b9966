from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
from onnx_models import samples
import pytest

from optuna_quant.backends.sensitivity.relative_error import RelativeError


def error_of(exact: Any, actual: Any, axis: int | None = None) -> RelativeError:
    error = RelativeError(axis)
    error.update(np.asarray(exact), np.asarray(actual))
    return error


@pytest.mark.parametrize("axis", [1, -1])
def test_error_is_mean_square_over_variance(axis: int) -> None:
    exact = samples(6, 4, 5) + 3.0
    actual = exact + samples(6, 4, 5, seed=2) * 0.1
    others = tuple(i for i in range(3) if i != axis % 3)
    squared, variance = ((actual - exact) ** 2).mean(others), exact.var(others)
    error = error_of(exact, actual, axis)
    assert error.whole == pytest.approx(squared.sum() / variance.sum(), rel=0.02)
    assert error.by_channel == pytest.approx((squared / variance).mean(), rel=0.02)
    assert error_of(exact, actual).whole == pytest.approx(squared.mean() / exact.var(), rel=0.02)


def test_a_small_channel_shows_by_channel_only() -> None:
    exact = samples(64, 2) * np.array([100.0, 0.1])
    error = error_of(exact, exact * np.array([1.0, 0.0]), axis=1)
    assert error.whole < 1e-5
    assert error.by_channel == pytest.approx(0.5, abs=0.01)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.sampled_from([None, 1]))
def test_batches_do_not_matter(sizes: list[int], axis: int | None) -> None:
    exact = samples(sum(sizes), 3)
    actual = exact + samples(sum(sizes), 3, seed=2) * 0.1
    error, start = RelativeError(axis), 0
    for size in sizes:
        error.update(exact[start : start + size], actual[start : start + size])
        start += size
    at_once = error_of(exact, actual, axis)
    assert error.whole == pytest.approx(at_once.whole)
    assert error.by_channel == pytest.approx(at_once.by_channel)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constants(value: float) -> None:
    exact = np.full((8, 3), value, np.float32)
    assert error_of(exact, exact, axis=1).whole == 0.0
    assert error_of(exact, exact, axis=1).by_channel == 0.0
    # A constant is not a total loss because it is rounded.
    rounded = error_of(exact, exact * 1.001, axis=1)
    assert rounded.whole <= 0.002
    assert rounded.by_channel <= 0.002
    assert error_of(exact * 0, exact * 0 + 1, axis=1).whole == 1.0
    assert error_of(exact * 0, exact * 0 + 1, axis=1).by_channel == 1.0


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite(value: float) -> None:
    exact = samples(50)
    masked = exact.copy()
    masked[:10] = value
    assert error_of(masked, masked).whole == 0.0
    broken = error_of(exact, masked)
    assert broken.whole == pytest.approx(
        error_of(exact, np.where(np.arange(50) < 10, 0, exact)).whole
    )
    assert 0 < broken.whole < 1


@pytest.mark.parametrize(
    ("exact", "actual"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 7]),
        ([True, False, True, True], [True, True, True, True]),
        (np.array(["a", "b", "c", "d"], object), np.array(["a", "b", "c", "e"], object)),
    ],
)
def test_labels_count_by_how_many_are_wrong(exact: Any, actual: Any) -> None:
    assert error_of(exact, exact).whole == 0.0
    assert error_of(exact, actual).whole == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("exact", [samples(4, 3), np.arange(12).reshape(4, 3)])
def test_another_shape_is_all_wrong(exact: NDArray[Any]) -> None:
    assert error_of(exact, exact[:2]).whole == pytest.approx(1.0, rel=0.3)


def test_channels_that_change_in_number_are_none() -> None:
    error = RelativeError(1)
    for width in (3, 5, 3):
        exact = samples(4, width)
        error.update(exact, exact * 1.1)
    assert error.by_channel == pytest.approx(error.whole)
    assert error.whole == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("axis", [None, 0, 1, -2])
def test_scalars_and_short_tensors(axis: int | None) -> None:
    error = error_of(np.float32(2.0), np.float32(2.0), axis)
    assert (error.whole, error.by_channel) == (0.0, 0.0)
    assert 0 < error_of(samples(3), samples(3) + 0.1, axis).by_channel <= 1
