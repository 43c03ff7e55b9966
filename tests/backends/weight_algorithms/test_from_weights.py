"""HQQ and k-quant: never worse than RTN by what they minimize, and better by how much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import numpy as np
import pytest

from optuna_quant.backends.weight_algorithms import hqq
from optuna_quant.backends.weight_algorithms.levels import Scheme
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


def objective(algorithm: str, weight: np.ndarray, values: np.ndarray, size: int) -> float:
    """What an algorithm minimizes, group by group in float64."""
    total = 0.0
    for row, found in zip(weight.astype(np.float64), values.astype(np.float64), strict=True):
        for start in range(0, len(row), size):
            group, error = row[start : start + size], (found - row)[start : start + size]
            if algorithm == "hqq":
                total += float((np.abs(error) ** hqq.NORM).sum())
            else:
                importance = np.abs(group) + np.sqrt((group**2).mean())
                total += float((importance * error**2).sum())
    return total


def errors(
    weight: np.ndarray, algorithm: str, bits: int, size: int, scheme: Scheme
) -> tuple[float, float]:
    """What an algorithm minimizes, of its own result and of RTN's."""
    found, rtn = (
        quantize_grouped(weight, bits=bits, group_size=size, scheme=scheme, algorithm=name)
        for name in (algorithm, "rtn")
    )
    assert found.codes.max() < 2**bits
    assert np.isfinite(found.dequantized()).all()
    own, of_rtn = (objective(algorithm, weight, q.dequantized(), size) for q in (found, rtn))
    return own, of_rtn


@pytest.mark.parametrize(
    ("algorithm", "scheme", "bits", "expected"),
    [
        ("hqq", "sym", 2, 0.94),
        ("hqq", "asym", 2, 0.86),
        ("hqq", "asym", 3, 0.96),
        ("hqq", "sym", 4, 0.99),
        ("hqq", "asym", 4, 0.97),
        ("k_quant", "sym", 2, 0.92),
        ("k_quant", "asym", 2, 0.80),
        ("k_quant", "asym", 3, 0.90),
        ("k_quant", "sym", 4, 0.95),
        ("k_quant", "asym", 4, 0.90),
    ],
)
def test_better_than_rtn(algorithm: str, scheme: Scheme, bits: int, expected: float) -> None:
    weight = np.random.default_rng(0).standard_t(5, size=(64, 96)).astype(np.float32)
    for unit in (1.0, 1e-3):
        own, of_rtn = errors(weight * np.float32(unit), algorithm, bits, 32, scheme)
        assert own < expected * of_rtn


@pytest.mark.parametrize(("bits", "expected"), [(2, 0.97), (4, 0.98)])
def test_zero_points_between_codes_are_better_than_rounded_ones(
    bits: int, expected: float
) -> None:
    weight = np.random.default_rng(0).standard_t(5, size=(64, 96)).astype(np.float32)
    weight[:4] += 20  # Far from zero, which such a range need not contain.
    between, rounded = (
        quantize_grouped(weight, bits=bits, group_size=32, scheme="asym", algorithm=name)
        for name in ("hqq_float", "hqq")
    )
    assert between.zero_points is not None
    assert between.zero_points.dtype == np.float32
    assert between.packed_nbytes > rounded.packed_nbytes
    for rows in (slice(0, 4), slice(4, None)):
        own, other = (
            objective("hqq", weight[rows], found.dequantized()[rows], 32)
            for found in (between, rounded)
        )
        assert own < expected * other


def test_a_grid_that_zero_is_not_on_is_kept_by_zero_points_between_codes() -> None:
    """As that of files with a step and a least value for each group."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (40, 3, 32))
    codes[..., :2] = 0, 15
    step, least = rng.uniform(0.01, 0.1, (2, 40, 3, 1))
    weight = (codes * step - 7 * least).astype(np.float32).reshape(40, 96)
    options = {"bits": 4, "group_size": 32, "scheme": "asym"}
    kept = quantize_grouped(weight, algorithm="hqq_float", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(kept.dequantized(), weight, atol=1e-6)
    rounded = quantize_grouped(weight, algorithm="rtn", **options)  # type: ignore[arg-type]
    assert np.abs(rounded.dequantized() - weight).max() > 0.01


def test_symmetric_weights_have_no_zero_points_between_codes() -> None:
    with pytest.raises(ValueError, match="'hqq_float' has zero points, but scheme is 'sym'"):
        quantize_grouped(
            np.ones((2, 4), np.float32),
            bits=4,
            group_size=4,
            scheme="sym",
            algorithm="hqq_float",
        )


@settings(deadline=None)
@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=30),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    st.sampled_from(["hqq", "k_quant"]),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 40),
    st.sampled_from(["sym", "asym"]),
)
def test_never_worse_than_rtn(
    weight: np.ndarray, algorithm: str, bits: int, size: int, scheme: Scheme
) -> None:
    own, of_rtn = errors(weight, algorithm, bits, size, scheme)
    # What float32 cannot hold does not count.
    near = weight + np.float32(1e-6) * np.abs(weight).max()
    assert own <= 1.0001 * of_rtn + objective(algorithm, weight, near, size)


@pytest.mark.parametrize("algorithm", ["hqq", "k_quant"])
@pytest.mark.parametrize("value", [0.0, 1.5, -2.5, 1e37, 1e-30, 1e-44])
def test_constant_groups(algorithm: str, value: float) -> None:
    weight = np.full((2, 40), value, np.float32)
    for scheme in ("sym", "asym"):
        found = quantize_grouped(weight, bits=4, group_size=32, scheme=scheme, algorithm=algorithm)
        np.testing.assert_allclose(found.dequantized(), weight, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("algorithm", ["hqq", "hqq_float", "k_quant"])
def test_deterministic(algorithm: str) -> None:
    weight = np.random.default_rng(0).normal(size=(300, 1000)).astype(np.float32)
    digests = {
        quantize_grouped(each, bits=4, group_size=32, scheme="asym", algorithm=algorithm).digest
        for each in (weight, np.asfortranarray(weight))
    }
    assert len(digests) == 1
