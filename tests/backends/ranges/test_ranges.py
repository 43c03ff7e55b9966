from __future__ import annotations

import time

from effort import examples
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper
import onnxruntime
import pytest

from optuna_quant.backends.ranges.histogram import Histogram
from optuna_quant.backends.ranges.histogram import StreamingHistogram
from optuna_quant.backends.ranges.ranges import HISTOGRAM_ALGORITHMS as ALGORITHMS
from optuna_quant.backends.ranges.ranges import compute_range
from optuna_quant.backends.ranges.ranges import kl_range
from optuna_quant.backends.ranges.ranges import minmax_range
from optuna_quant.backends.ranges.ranges import mse_range
from optuna_quant.backends.ranges.ranges import percentile_range
from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.ranges.ranges import quantized_limits
from optuna_quant.backends.ranges.ranges import scale_zero_point


DTYPES = ["int8", "uint8", "int16", "uint16", "int4", "uint4"]
SCHEMES = ["sym", "asym"]
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram_of(values: NDArray[np.floating]) -> Histogram:
    stream = StreamingHistogram("t")
    stream.update(values)
    return stream.snapshot()


def fake_quantize(
    values: NDArray[np.floating], rmin: float, rmax: float, dtype: str, scheme: str
) -> NDArray[np.float64]:
    scale, zero_point = scale_zero_point(rmin, rmax, dtype, scheme)
    low, high = quantized_limits(dtype, scheme)
    levels = np.clip(np.rint(values / np.float64(scale)) + int(zero_point), low, high)
    return (levels - int(zero_point)) * np.float64(scale)


def error_of(
    values: NDArray[np.floating], found: tuple[float, float], dtype: str, scheme: str
) -> float:
    return float(np.mean((fake_quantize(values, *found, dtype, scheme) - values) ** 2))


def samples(kind: str, size: int = 60_000) -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(size)
    values = {
        "normal": normal,
        "relu": np.maximum(normal, 0.0),
        "negative": -np.abs(normal),
        "laplace": rng.laplace(size=size),
        "heavy": rng.standard_t(3, size),
        "outlier": np.concatenate([normal, [300.0]]),
        "skewed": np.concatenate([normal * 0.2, -40.0 * np.abs(normal[:50])]),
        "offset": rng.uniform(2.0, 3.0, size),
        "few": normal[:6],
    }
    return values[kind].astype(np.float32)


KINDS = ["normal", "relu", "negative", "laplace", "heavy", "outlier", "skewed", "offset", "few"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("scheme", SCHEMES)
@given(values=st.lists(FLOAT32, max_size=30), dtype=st.sampled_from(DTYPES))
@settings(max_examples=examples(40))
def test_ranges_hold_zero_and_stay_within_minmax(
    algorithm: str, scheme: str, values: list[float], dtype: str
) -> None:
    histogram = histogram_of(np.array(values, dtype=np.float32))
    rmin, rmax = compute_range(histogram, algorithm, dtype, scheme)
    low, high = minmax_range(histogram, dtype, scheme)
    assert low <= rmin <= 0.0 <= rmax <= high
    if scheme == "sym":
        assert rmin == -rmax


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("percentile", [99.999, 99.9, 95.0, 50.0, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_within_a_bin_of_numpy(kind: str, percentile: float, scheme: str) -> None:
    values = samples(kind).astype(np.float64)
    histogram = histogram_of(values.astype(np.float32))
    rmin, rmax = percentile_range(histogram, "uint8", scheme, percentile=percentile)
    if scheme == "sym":
        bound = np.percentile(np.abs(values), percentile)
        low, high = -bound, bound
    else:
        cut = (100.0 - percentile) / 2.0
        low, high = np.percentile(values, [cut, 100.0 - cut])
    tolerance = histogram.width * 1.0001
    assert rmin == pytest.approx(min(low, 0.0), abs=tolerance)
    assert rmax == pytest.approx(max(high, 0.0), abs=tolerance)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1, float("nan")])
def test_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="percentile must be in"):
        percentile_range(histogram_of(samples("few")), "int8", "sym", percentile=percentile)


@pytest.mark.parametrize(("dtype", "scheme"), [("int8", "sym"), ("uint8", "asym")])
def test_kl_clips_an_outlier_that_minmax_keeps(dtype: str, scheme: str) -> None:
    histogram = histogram_of(samples("outlier"))
    assert minmax_range(histogram, dtype, scheme)[1] == 300.0
    rmin, rmax = kl_range(histogram, dtype, scheme)
    assert 3.0 < rmax < 40.0
    assert rmin < -3.0


@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy"])
def test_kl_depends_on_the_levels(kind: str) -> None:
    histogram = histogram_of(samples(kind))
    bounds = [kl_range(histogram, dtype, "sym")[1] for dtype in ("int4", "int8", "int16")]
    assert bounds[0] < bounds[1] <= bounds[2] == minmax_range(histogram, "int16", "sym")[1]


def brute_force_kl(histogram: Histogram, levels: int) -> list[float]:
    """Divergence of [0, stop) for each stop, written as the algorithm is described."""
    counts = np.zeros(histogram.first + histogram.counts.size)
    counts[histogram.first :] = histogram.counts
    result = []
    for stop in range(levels, counts.size + 1):
        reference = counts[:stop].copy()
        reference[-1] += counts[stop:].sum()
        bounds = np.unique(np.rint(np.arange(levels + 1) * stop / levels).astype(int))
        # Each part's mass is spread over those of its bins that are filled.
        filled = np.add.reduceat(reference > 0, bounds[:-1], dtype=float)
        mass = np.maximum(np.add.reduceat(counts[:stop], bounds[:-1]), 1.0)
        spread = np.repeat(mass / np.maximum(filled, 1.0), np.diff(bounds))
        candidate = np.where(reference > 0, spread, 0.0)
        p, q = reference / reference.sum(), candidate / candidate.sum()
        inside = p > 0
        result.append(float((p[inside] * np.log(p[inside] / q[inside])).sum()))
    return result


@pytest.mark.parametrize(("dtype", "levels"), [("uint4", 16), ("uint8", 256)])
def test_kl_is_near_the_best_of_all_thresholds(dtype: str, levels: int) -> None:
    histogram = histogram_of(np.abs(samples("laplace", 5_000)))
    divergences = brute_force_kl(histogram, levels)
    found = round(kl_range(histogram, dtype, "asym")[1] / histogram.width) - levels
    assert divergences[found] <= 1.05 * min(divergences)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "uint16"])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_never_worse_than_the_others(kind: str, dtype: str, scheme: str) -> None:
    values = samples(kind)
    histogram = histogram_of(values)
    best = error_of(values, mse_range(histogram, dtype, scheme), dtype, scheme)
    # Six values give a coarse histogram; the error of the search is that of the histogram.
    slack = 1.15 if kind == "few" else 1.02
    for algorithm in ALGORITHMS:
        found = compute_range(histogram, algorithm, dtype, scheme)
        assert best <= slack * error_of(values, found, dtype, scheme)


@pytest.mark.parametrize("kind", ["normal", "heavy", "outlier", "skewed"])
def test_mse_is_near_an_exhaustive_search(kind: str) -> None:
    values = samples(kind, 4_000)
    histogram = histogram_of(values)
    parts = np.geomspace(1.0, 0.01, 40)
    low, high = minmax_range(histogram, "uint8", "asym")
    exhaustive = min(
        error_of(values, (low * a, high * b), "uint8", "asym") for a in parts for b in parts
    )
    assert error_of(values, mse_range(histogram, "uint8", "asym"), "uint8", "asym") <= (
        1.03 * exhaustive
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ranges_of_constants(algorithm: str) -> None:
    three = histogram_of(np.full(10, 3.0, dtype=np.float32))
    assert compute_range(three, algorithm, "uint8", "asym") == (0.0, 3.0)
    assert compute_range(three, algorithm, "int8", "sym") == (-3.0, 3.0)
    for nothing in (np.zeros(10, dtype=np.float32), np.zeros(0, dtype=np.float32)):
        assert compute_range(histogram_of(nothing), algorithm, "uint8", "asym") == (0.0, 0.0)


@pytest.mark.parametrize("algorithm", ["kl", "mse"])
def test_searches_are_fast(algorithm: str) -> None:
    histogram = histogram_of(samples("normal", 500_000))
    took = []
    for _ in range(5):
        started = time.process_time()
        compute_range(histogram, algorithm, "uint8", "asym")
        took.append(time.process_time() - started)
    # About 8 ms on an ordinary core; the margin is for a busy one.
    assert min(took) < 0.05


def test_unknown_names_are_refused() -> None:
    histogram = histogram_of(samples("few"))
    with pytest.raises(ValueError, match="'entropy'; choose one of minmax, kl"):
        compute_range(histogram, "entropy", "int8", "sym")
    with pytest.raises(ValueError, match="dtype 'int3'"):
        compute_range(histogram, "minmax", "int3", "sym")
    with pytest.raises(ValueError, match="scheme 'symmetric'"):
        compute_range(histogram, "mse", "int8", "symmetric")


@pytest.mark.parametrize(
    ("dtype", "scheme", "expected"),
    [
        ("int8", "sym", (-127, 127)),
        ("int8", "asym", (-128, 127)),
        ("uint8", "sym", (1, 255)),
        ("uint8", "asym", (0, 255)),
        ("uint4", "sym", (1, 15)),
        ("int16", "asym", (-32768, 32767)),
    ],
)
def test_quantized_limits(dtype: str, scheme: str, expected: tuple[int, int]) -> None:
    assert quantized_limits(dtype, scheme) == expected


@given(a=FLOAT32, b=FLOAT32, dtype=st.sampled_from(DTYPES), scheme=st.sampled_from(SCHEMES))
@settings(max_examples=examples(300))
def test_scale_zero_point_holds_its_promises(a: float, b: float, dtype: str, scheme: str) -> None:
    rmin, rmax = min(a, b), max(a, b)
    scale, zero_point = scale_zero_point(rmin, rmax, dtype, scheme)
    low, high = quantized_limits(dtype, scheme)
    assert isinstance(scale, np.float32)
    assert np.isfinite(scale) and scale >= np.finfo(np.float32).tiny
    assert zero_point.shape == () and zero_point.dtype.itemsize * 8 >= int(dtype.lstrip("uint"))
    assert low <= int(zero_point) <= high
    if scheme == "sym":
        assert int(zero_point) == (low + high) // 2
    # Both ends and zero are representable to within half a step (a little more: float32 scale).
    step = float(scale)
    for value in (min(rmin, 0.0), 0.0, max(rmax, 0.0)):
        back = fake_quantize(np.array([value]), rmin, rmax, dtype, scheme)[0]
        assert abs(back - value) <= step * 0.51


@pytest.mark.parametrize(
    ("rmin", "rmax", "dtype", "scheme", "scale", "zero_point"),
    [
        (-1.0, 3.0, "uint8", "asym", 4.0 / 255.0, 64),
        (1.0, 3.0, "uint8", "asym", 3.0 / 255.0, 0),
        (-1.0, 3.0, "int8", "asym", 4.0 / 255.0, -64),
        (-1.0, 3.0, "int8", "sym", 3.0 / 127.0, 0),
        (-1.0, 3.0, "uint8", "sym", 3.0 / 127.0, 128),
        (-1.0, 3.0, "uint16", "sym", 3.0 / 32767.0, 32768),
        (0.0, 0.0, "uint8", "asym", 1.0, 0),
        (0.0, 0.0, "int8", "sym", 1.0, 0),
    ],
)
def test_scale_zero_point_values(
    rmin: float, rmax: float, dtype: str, scheme: str, scale: float, zero_point: int
) -> None:
    found_scale, found_zero_point = scale_zero_point(rmin, rmax, dtype, scheme)
    assert found_scale == np.float32(scale)
    assert int(found_zero_point) == zero_point
    assert found_zero_point.dtype == np.dtype(dtype)


@pytest.mark.parametrize(("rmin", "rmax"), [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_scale_zero_point_of_no_range_is_refused(rmin: float, rmax: float) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        scale_zero_point(rmin, rmax, "int8", "sym")


@given(
    shape=st.sampled_from([(5,), (3, 4), (2, 3, 4), (0, 3), (4, 0)]),
    seed=st.integers(0, 1000),
    magnitude=st.integers(-30, 30),
    dtype=st.sampled_from(DTYPES),
    scheme=st.sampled_from(SCHEMES),
    per_channel=st.booleans(),
    algorithm=st.sampled_from(["minmax", "mse"]),
    data=st.data(),
)
@settings(max_examples=examples(200))
def test_quantize_weight_matches_plain_numpy(
    shape: tuple[int, ...],
    seed: int,
    magnitude: int,
    dtype: str,
    scheme: str,
    per_channel: bool,
    algorithm: str,
    data: st.DataObject,
) -> None:
    weight = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    weight *= np.float32(2.0**magnitude)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1)) if per_channel else None
    quantized, scale, zero_point = quantize_weight(weight, dtype, scheme, axis, algorithm)
    low, high = quantized_limits(dtype, scheme)
    channels = () if axis is None else (shape[axis],)
    assert quantized.shape == shape
    assert scale.shape == zero_point.shape == channels
    assert (scale.dtype, zero_point.dtype) == (np.float32, quantized.dtype)
    for channel in range(shape[axis]) if axis is not None else [0]:
        part = weight if axis is None else np.take(weight, channel, axis)
        found = quantized if axis is None else np.take(quantized, channel, axis)
        step, zero = scale.reshape(-1)[channel], int(zero_point.reshape(-1)[channel])
        if algorithm == "minmax" and part.size:
            expected_scale, expected_zero = scale_zero_point(
                float(part.min()), float(part.max()), dtype, scheme
            )
            assert (step, zero) == (expected_scale, int(expected_zero))
        expected = np.clip(np.rint(part / step) + zero, low, high)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "uint4"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantize_weight_mse_is_never_worse_per_channel(
    dtype: str, scheme: str, axis: int | None
) -> None:
    weight = np.random.default_rng(3).standard_t(3, (12, 40)).astype(np.float32)
    errors = []
    for algorithm in ("mse", "minmax"):
        quantized, scale, zero_point = quantize_weight(weight, dtype, scheme, axis, algorithm)
        other = None if axis is None else 1 - axis
        shape = () if other is None else tuple(-1 if i == axis else 1 for i in range(2))
        back = (quantized - zero_point.astype(np.float64).reshape(shape)) * scale.reshape(shape)
        errors.append(np.mean((back - weight) ** 2, axis=other))
    assert (errors[0] <= errors[1] * (1 + 1e-6)).all()
    if dtype.endswith("4"):
        assert errors[0].mean() < 0.99 * errors[1].mean()


def test_quantize_weight_rounds_half_to_even() -> None:
    # The scale is 1, so that the values are the levels.
    weight = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 127.0], dtype=np.float32)
    quantized, scale, _ = quantize_weight(weight, "int8", "sym")
    assert float(scale) == 1.0
    assert quantized.tolist() == [0, 2, 2, 0, -2, 127]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_weight_equals_quantize_linear_of_the_runtime(
    dtype: str, axis: int | None
) -> None:
    weight = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    quantized, scale, zero_point = quantize_weight(weight, dtype, "asym", axis)
    node = helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=1)
    graph = helper.make_graph(
        [node],
        "quantize",
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [7, 5])],
        [helper.make_tensor_value_info("q", TensorProto.DataType.Value(dtype.upper()), [7, 5])],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero_point, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert np.array_equal(session.run(None, {"w": weight})[0], quantized)


def test_quantize_weight_constant_zero_channel() -> None:
    weight = np.array([[0.0, 0.0], [1.0, -2.0]], dtype=np.float32)
    quantized, scale, _ = quantize_weight(weight, "int8", "sym", 0, "mse")
    assert scale[0] == scale[1]
    assert quantized[0].tolist() == [0, 0]
    assert quantize_weight(np.zeros((2, 2), np.float32), "int8", "sym", 0)[1].tolist() == [1, 1]


def test_quantize_weight_float16() -> None:
    weight = np.array([[1.0, -2.0]], dtype=np.float16)
    assert quantize_weight(weight, "int8", "sym")[0].tolist() == [[64, -127]]


def test_quantize_weight_bad_input_is_refused() -> None:
    weight = np.ones((2, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"shape \(2, 3\) has no channel axis 2"):
        quantize_weight(weight, "int8", "sym", 2)
    with pytest.raises(ValueError, match="weight algorithm 'kl'"):
        quantize_weight(weight, "int8", "sym", 0, "kl")
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantize_weight(weight * np.nan, "int8", "sym")


def test_channel_of_zeros_gets_a_fine_scale_for_its_bias() -> None:
    weight = np.array([[0.0, 0.0], [0.5, -1.0], [0.1, 0.2]], np.float32)
    quantized, scale, zero_point = quantize_weight(weight, "int8", "sym", axis=0)
    assert scale[0] == scale[1] == np.float32(1 / 127)
    assert not quantized[0].any()
    assert not zero_point.any()


@pytest.mark.parametrize("scheme", ["sym", "asym"])
def test_percentile_of_almost_only_zeros_is_no_empty_range(scheme: str) -> None:
    stream = StreamingHistogram()
    stream.update(np.append(np.zeros(1_000_000), [2.0, 3.0]).astype(np.float32))
    low = -3.0 if scheme == "sym" else 0.0
    assert compute_range(stream.snapshot(), "percentile", "uint8", scheme) == (low, 3.0)
