"""RTN against rounding value by value, and what a grouped weight holds."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import numpy as np
import pytest

from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
from optuna_quant.backends.weight_algorithms.levels import Scheme
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


def rtn(
    weight: np.ndarray, bits: int = 4, group_size: int | None = 32, scheme: Scheme = "asym"
) -> GroupedWeight:
    return quantize_grouped(
        weight, bits=bits, group_size=group_size, scheme=scheme, algorithm="rtn"
    )


def by_hand(weight: np.ndarray, bits: int, size: int, scheme: str) -> np.ndarray:
    """The dequantized weight, value by value in float64."""
    result = np.empty(weight.shape)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            group = [float(value) for value in weight[row, start : start + size]]
            if scheme == "sym":
                scale, zero = max(group, key=abs) / -middle, middle
            else:
                low, high = min([0.0, *group]), max([0.0, *group])
                scale = (high - low) / top
                zero = 0 if scale == 0 else round(-low / scale)
            for i, value in enumerate(group):
                code = zero if scale == 0 else min(max(round(value / scale + zero), 0), top)
                result[row, start + i] = (code - zero) * scale
    return result


@pytest.mark.parametrize("scheme", ["sym", "asym"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("inputs", "group_size"), [(64, 16), (50, 16), (7, 32), (33, None)])
def test_as_by_hand(bits: int, scheme: Scheme, inputs: int, group_size: int | None) -> None:
    weight = np.random.default_rng(bits).normal(size=(9, inputs)).astype(np.float32)
    found = rtn(weight, bits, group_size, scheme)
    expected = by_hand(weight, bits, group_size or inputs, scheme)
    np.testing.assert_allclose(found.dequantized(), expected, atol=1e-5)
    groups = -(-inputs // (group_size or inputs))
    assert found.codes.shape == weight.shape
    assert found.codes.max() < 2**bits
    assert found.scales.shape == (9, groups)
    assert (found.zero_points is None) == (scheme == "sym")
    assert (found.bits, found.group_size) == (bits, group_size or inputs)
    assert found.input_scale is None


def test_sizes() -> None:
    weight = np.ones((6, 100), np.float32)
    symmetric, asymmetric = rtn(weight, 4, 32, "sym"), rtn(weight, 2, 32, "asym")
    assert symmetric.nbytes == 600 + 6 * 4 * 4
    # Each output: 4 groups of 32 codes of 4 bits, and 4 scales.
    assert symmetric.packed_nbytes == 6 * (4 * 16 + 16)
    assert asymmetric.nbytes == 600 + 6 * 4 * 5
    # 4 zero points of 2 bits fill a byte.
    assert asymmetric.packed_nbytes == 6 * (4 * 8 + 16 + 1)


def test_digest_tells_weights_apart() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    assert rtn(weight).digest == rtn(weight.copy()).digest
    # Twice the weight has the same codes and twice the scales.
    others = [rtn(weight), rtn(2 * weight), rtn(weight, scheme="sym"), rtn(weight, 8)]
    assert len({each.digest for each in others}) == 4


@pytest.mark.parametrize("scheme", ["sym", "asym"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 3e38, -3e38, 1e-45, 1e-30])
def test_constant_groups_are_kept(value: float, scheme: Scheme) -> None:
    weight = np.full((2, 40), value, np.float32)
    values = rtn(weight, scheme=scheme).dequantized()
    # A scale is a normal float32, which a value below 1e-37 is not.
    np.testing.assert_allclose(values, weight, rtol=1e-6 if abs(value) < 1e38 else 0.5, atol=1e-37)


shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)
floats = arrays.arrays(np.float32, shapes, elements=st.floats(width=32, allow_infinity=False))


@given(
    floats.filter(lambda weight: not np.isnan(weight).any()),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 50) | st.none(),
    st.sampled_from(["sym", "asym"]),
)
def test_any_finite_weight(
    weight: np.ndarray, bits: int, group_size: int | None, scheme: Scheme
) -> None:
    found = rtn(weight, bits, group_size, scheme)
    assert found.codes.max() < 2**bits
    values = found.dequantized()
    assert np.isfinite(values).all()
    if np.abs(weight).max() < 1e37:
        # A step, and half of one more where the zero point was rounded.
        size = group_size or weight.shape[1]
        steps = np.repeat(np.abs(found.scales), size, axis=1)[:, : weight.shape[1]]
        assert np.all(np.abs(values - weight) <= 1.01 * steps + 1e-37)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_and_layouts(dtype: type) -> None:
    weight = np.random.default_rng(0).normal(size=(40, 30)).astype(dtype)
    contiguous = rtn(weight)
    assert contiguous.scales.dtype == np.float32
    assert rtn(np.asfortranarray(weight)).digest == contiguous.digest
    assert rtn(weight.astype(np.float32)).digest == contiguous.digest


def test_large_weights_take_little_more_than_their_codes() -> None:
    # As a MatMul has it: transposed, so that each chunk of rows must be copied.
    weight = np.random.default_rng(0).standard_normal((2048, 4096), np.float32).T
    tracemalloc.start()
    try:
        found = rtn(weight, group_size=128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - found.nbytes < 0.25 * weight.nbytes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    weight = np.ones((3, 8), np.float32)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match="finite.*leave this op in floats"):
        rtn(weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, r"bits must be one of \(2, 3, 4, 8\), but it is 5"),
        ({"group_size": 0}, "group_size must be at least 1 or None, but it is 0"),
        ({"scheme": "both"}, "scheme must be one of .*, but it is 'both'"),
        ({"algorithm": "teq"}, "algorithm must be one of .*, but it is 'teq'"),
        ({"weight": np.ones((2, 2), np.int8)}, "must be of floats, but its dtype is int8"),
        ({"weight": np.ones(4, np.float32)}, r"\[outputs, inputs\], but its shape is \(4,\)"),
        ({"weight": np.ones((0, 4), np.float32)}, r"its shape is \(0, 4\)"),
        ({"weight": np.full((2, 2), 1e300)}, "finite in float32"),
    ],
)
def test_bad_arguments(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"weight": np.ones((2, 2), np.float32), "bits": 4}
    good |= {"group_size": 32, "scheme": "sym", "algorithm": "rtn"}
    with pytest.raises(ValueError, match=message):
        quantize_grouped(**(good | change))  # type: ignore[arg-type]
