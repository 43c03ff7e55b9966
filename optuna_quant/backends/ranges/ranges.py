"""From a histogram of a tensor to its quantization range, scale and zero point; and weights.

Everything here is a pure function. A *range* is a pair ``(rmin, rmax)`` with
``rmin <= 0 <= rmax``; with the scheme ``"sym"``, ``rmin == -rmax``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.ranges.search import divergence
from optuna_quant.backends.ranges.search import search
from optuna_quant.backends.ranges.search import squared_error


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.ranges.extremes import SampleExtremes
    from optuna_quant.backends.ranges.histogram import Histogram

    Floats = NDArray[np.float64]


HISTOGRAM_ALGORITHMS = ("minmax", "kl", "percentile", "mse")
ALGORITHMS = (*HISTOGRAM_ALGORITHMS, "mean_minmax")
WEIGHT_ALGORITHMS = ("minmax", "mse")
DEFAULT_PERCENTILE = 99.999

_BITS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16}
_SCHEMES = ("sym", "asym")
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

# Candidates of the searches, as parts of the full range, widest first. The divergence has many
# local minima, hence an even and dense grid. The squared error is smooth and its best range can
# be a hundredth of the full one, hence a geometric grid, then an even one between neighbours.
_KL_JOINT, _KL_SINGLE = np.linspace(1.0, 0.0, 512), np.linspace(1.0, 0.0, 192)
_MSE_JOINT, _MSE_SINGLE = np.geomspace(1.0, 2.0**-8, 40), np.geomspace(1.0, 2.0**-8, 20)
_MSE_REFINE = np.geomspace(_MSE_JOINT[1], 1.0 / _MSE_JOINT[1], 13)
_WEIGHT_JOINT, _WEIGHT_SINGLE = np.linspace(1.0, 0.3, 29), np.linspace(1.0, 0.3, 15)
# Elements of a weight that are searched at once: small enough for the cache.
_WEIGHT_CHUNK = 1 << 16


def quantized_limits(dtype: str, scheme: str) -> tuple[int, int]:
    """Return the smallest and the largest quantized value in use.

    ``"asym"`` uses all values of the dtype. ``"sym"`` leaves out the lowest, so that both sides
    of the zero point have equally many: -127 to 127 for int8, 1 to 255 for uint8.

    Args:
        dtype:
            ``"int8"``, ``"uint8"``, ``"int16"``, ``"uint16"``, ``"int4"`` or ``"uint4"``.
        scheme:
            ``"sym"`` or ``"asym"``.

    Raises:
        ValueError:
            If either is unknown.
    """
    if dtype not in _BITS:
        raise ValueError(f"Unknown quantized dtype {dtype!r}; choose one of {', '.join(_BITS)}.")
    if scheme not in _SCHEMES:
        raise ValueError(f"Unknown scheme {scheme!r}; choose one of {', '.join(_SCHEMES)}.")
    levels = 1 << _BITS[dtype]
    low = 0 if dtype.startswith("u") else -levels // 2
    return (low + 1 if scheme == "sym" else low), low + levels - 1


def compute_range(
    histogram: Histogram,
    algorithm: str,
    dtype: str,
    scheme: str,
    *,
    percentile: float = DEFAULT_PERCENTILE,
    extremes: SampleExtremes | None = None,
) -> tuple[float, float]:
    """Return the range of a tensor by the named algorithm.

    Where that keeps nothing but zero of a tensor that holds other values (a few among very many
    zeros), it is the full range.

    Args:
        histogram:
            The tensor's values. If there are none the range is ``(0.0, 0.0)``.
        algorithm:
            ``"minmax"``, ``"kl"``, ``"percentile"``, ``"mse"`` or ``"mean_minmax"``.
        dtype:
            Quantized dtype, see :func:`quantized_limits`.
        scheme:
            ``"sym"`` or ``"asym"``.
        percentile:
            For ``"percentile"``: the percentage of values to keep.
        extremes:
            For ``"mean_minmax"``, which needs them: the extremes of the samples.

    Raises:
        ValueError:
            If the algorithm, the dtype, the scheme or the percentile is not one of these.
    """
    if algorithm == "percentile":
        found = percentile_range(histogram, dtype, scheme, percentile=percentile)
    elif algorithm == "kl":
        found = kl_range(histogram, dtype, scheme)
    elif algorithm == "mse":
        found = mse_range(histogram, dtype, scheme)
    elif algorithm == "minmax":
        found = minmax_range(histogram, dtype, scheme)
    elif algorithm == "mean_minmax" and extremes is not None:
        found = mean_minmax_range(extremes, dtype, scheme)
    else:
        raise ValueError(
            f"Unknown calibration algorithm {algorithm!r}; choose one of {', '.join(ALGORITHMS)}."
        )
    empty = found == (0.0, 0.0)
    return minmax_range(histogram, dtype, scheme) if empty else found


def minmax_range(histogram: Histogram, dtype: str, scheme: str) -> tuple[float, float]:
    """Return the range that holds every value."""
    quantized_limits(dtype, scheme)
    low, high = min(histogram.min, 0.0), max(histogram.max, 0.0)
    return (-max(-low, high), max(-low, high)) if scheme == "sym" else (low, high)


def mean_minmax_range(extremes: SampleExtremes, dtype: str, scheme: str) -> tuple[float, float]:
    """Return the range from the mean of the samples' minima to the mean of their maxima.

    ``"sym"`` uses the mean of the samples' largest magnitudes. So a single sample with large
    values moves the range by its share only. It is the default for activations in NNCF
    (``RangeEstimatorParametersSet.MEAN_MINMAX``, nncf/quantization/range_estimator.py), and there
    too each sample counts (``batchwise_statistics``), as far as samples can be told apart.
    """
    quantized_limits(dtype, scheme)
    if scheme == "sym":
        return -extremes.mean_magnitude, extremes.mean_magnitude
    return min(extremes.mean_low, 0.0), max(extremes.mean_high, 0.0)


def percentile_range(
    histogram: Histogram, dtype: str, scheme: str, *, percentile: float = DEFAULT_PERCENTILE
) -> tuple[float, float]:
    """Return the range that holds ``percentile`` percent of the values, zeros included.

    ``"asym"`` cuts off half of the rest at either end, ``"sym"`` the largest magnitudes. The ends
    are within one bin width of the exact percentiles (of the values or, for ``"sym"``, of their
    magnitudes).

    Raises:
        ValueError:
            If ``percentile`` is not in (0, 100].
    """
    full = minmax_range(histogram, dtype, scheme)
    if not 0.0 < percentile <= 100.0:
        raise ValueError(f"The percentile must be in (0, 100], but it is {percentile}.")
    if histogram.count == 0:
        return full
    kept = percentile / 100.0
    if scheme == "sym":
        (high,) = _quantiles(0, _fold(histogram), histogram, [kept])
        low = -high
    else:
        ends = [0.5 - kept / 2.0, 0.5 + kept / 2.0]
        low, high = _quantiles(*_around_zero(histogram), histogram, ends)
    return _clip_range(low, high, full)


def kl_range(histogram: Histogram, dtype: str, scheme: str) -> tuple[float, float]:
    """Return the range whose quantized distribution is closest to the tensor's own.

    The divergence is that of Kullback and Leibler between the distribution clipped to a candidate
    range (what lies outside joins the outermost bins) and the same bins merged into as many groups
    as the dtype has levels, each group spread evenly over its non-empty bins: S. Migacz, "8-bit
    Inference with TensorRT", GTC 2017. There the range is symmetric; here ``"asym"`` searches both
    ends. Exact zeros are left out: every range represents them exactly.

    A range of fewer bins than levels is no candidate, because the histogram cannot show what
    quantization does to it. So 16-bit dtypes, with more levels than there are bins, get the full
    range.
    """
    full = minmax_range(histogram, dtype, scheme)
    low, high = quantized_limits(dtype, scheme)
    if scheme == "sym":
        first, counts, levels = 0, _fold(histogram), (high - low) // 2 + 1
    else:
        (first, counts), levels = _around_zero(histogram), high - low + 1
    if histogram.min == histogram.max or counts.size <= levels:
        return full
    loss = divergence(counts, levels)
    start, stop = search(
        lambda lows, highs: loss(np.rint(lows) - first, np.rint(highs) - first),
        (float(first), float(first + counts.size)),
        _KL_JOINT,
        _KL_SINGLE,
    )
    rmin, rmax = np.rint(start) * histogram.width, np.rint(stop) * histogram.width
    return _clip_range(-rmax if scheme == "sym" else rmin, rmax, full)


def mse_range(histogram: Histogram, dtype: str, scheme: str) -> tuple[float, float]:
    """Return the range with the least mean squared error of quantization, clipping included.

    The error is integrated exactly over the histogram, taken as evenly spread within each bin, so
    that it is right for grids coarser (8 bits) and finer (16 bits) than the bins. ``"asym"``
    searches both ends.
    """
    full = minmax_range(histogram, dtype, scheme)
    if histogram.min == histogram.max:
        return full
    sym = scheme == "sym"
    first, counts = (0, _fold(histogram)) if sym else _around_zero(histogram)
    low, high = quantized_limits(dtype, scheme)

    def grid(lows: Floats, highs: Floats) -> tuple[Floats, Floats]:
        scales, zero_points = _grid(lows, highs, dtype, scheme)
        return scales, low - zero_points

    loss = squared_error(first, counts, histogram.width, grid, high - low)
    ends = (0.0, full[1]) if sym else full
    rmin, rmax = search(loss, ends, _MSE_JOINT, _MSE_SINGLE, refine=_MSE_REFINE)
    return _clip_range(-rmax if sym else rmin, rmax, full)


def scale_zero_point(
    rmin: float, rmax: float, dtype: str, scheme: str
) -> tuple[np.float32, NDArray[Any]]:
    """Return the scale and the zero point that map a range to a quantized dtype.

    The range is first widened to hold zero. ``"asym"`` maps it to all values of the dtype;
    ``"sym"`` maps the larger magnitude to the largest value, with the zero point in the middle (0
    for signed dtypes, 128 for uint8), see :func:`quantized_limits`.

    Args:
        rmin:
            Lower end of the range.
        rmax:
            Upper end of the range.
        dtype:
            Quantized dtype; the 4-bit ones are held in int8 and uint8.
        scheme:
            ``"sym"`` or ``"asym"``.

    Returns:
        The scale, a normal number: 1.0 if the range is zero alone, and never below the smallest
        normal float32. The zero point, an array of shape ``()``.

    Raises:
        ValueError:
            If the range is not finite or ``rmin > rmax``.
    """
    if not (np.isfinite(rmin) and np.isfinite(rmax) and rmin <= rmax):
        raise ValueError(
            f"[{rmin}, {rmax}] is not a range: it needs two finite ends, the lower one first."
        )
    scale, zero_point = _grid(np.array([rmin]), np.array([rmax]), dtype, scheme)
    return np.float32(scale[0]), np.array(zero_point[0], dtype=_storage(dtype))


def quantize_weight(
    weight: NDArray[Any],
    dtype: str,
    scheme: str,
    axis: int | None = None,
    algorithm: str = "minmax",
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[Any]]:
    """Quantize a weight as ONNX QuantizeLinear does: round half to even, then saturate.

    Args:
        weight:
            Floating-point array.
        dtype:
            Quantized dtype; the 4-bit ones are held in int8 and uint8.
        scheme:
            ``"sym"`` or ``"asym"``.
        axis:
            Channel axis for one scale per channel; None for one scale per tensor.
        algorithm:
            ``"minmax"``, or ``"mse"``: search the range of least squared error, per channel; never
            worse than minmax.

    Returns:
        The quantized weight, with the shape of ``weight``; the scale (float32) and the zero point,
        each of shape ``(channels,)``, or ``()`` if ``axis`` is None. A channel of zeros has the
        largest scale of the others, 1.0 if there is none.

    Raises:
        ValueError:
            If ``weight`` holds NaN or infinities, ``axis`` is not one of its axes, or the dtype,
            scheme or algorithm is unknown.
    """
    if algorithm not in WEIGHT_ALGORITHMS:
        names = ", ".join(WEIGHT_ALGORITHMS)
        raise ValueError(f"Unknown weight algorithm {algorithm!r}; choose one of {names}.")
    if axis is not None and not -weight.ndim <= axis < weight.ndim:
        raise ValueError(f"A weight of shape {weight.shape} has no channel axis {axis}.")
    low, high = quantized_limits(dtype, scheme)
    values = weight.astype(np.float32, copy=False)
    moved = values[np.newaxis] if axis is None else np.moveaxis(values, axis, 0)
    rows = moved.reshape(moved.shape[0], -1 if weight.size else 0)
    rmin = rows.min(axis=1, initial=0.0).astype(np.float64)
    rmax = rows.max(axis=1, initial=0.0).astype(np.float64)
    if not (np.isfinite(rmin).all() and np.isfinite(rmax).all()):
        raise ValueError("The weight holds NaN or infinite values, so it cannot be quantized.")
    if algorithm == "mse":
        step = max(1, _WEIGHT_CHUNK // max(1, rows.shape[1]))
        for start in range(0, rows.shape[0], step):
            part = slice(start, start + step)
            rmin[part], rmax[part] = _search_rows(
                rows[part], rmin[part], rmax[part], dtype, scheme
            )
    exact_scale, zero_point = _grid(rmin, rmax, dtype, scheme)
    scale = exact_scale.astype(np.float32)
    used = (rmin < 0.0) | (rmax > 0.0)
    if used.any():
        # A channel of zeros fits any grid; 1.0 would be a coarse one for its bias.
        scale[~used] = scale[used].max()
    levels = np.rint(rows / scale[:, np.newaxis]) + zero_point[:, np.newaxis]
    storage = _storage(dtype)
    quantized = np.clip(levels, low, high).astype(storage).reshape(moved.shape)
    zero_points = zero_point.astype(storage)
    if axis is None:
        return quantized[0], scale.reshape(()), zero_points.reshape(())
    return np.ascontiguousarray(np.moveaxis(quantized, 0, axis)), scale, zero_points


def _storage(dtype: str) -> np.dtype[Any]:
    return np.dtype(f"{dtype.rstrip('0123456789')}{max(8, _BITS[dtype])}")


def _grid(rmin: Floats, rmax: Floats, dtype: str, scheme: str) -> tuple[Floats, Floats]:
    """Scales (float32 values) and zero points (whole numbers) of ranges, each of shape (n,)."""
    low, high = quantized_limits(dtype, scheme)
    rmin, rmax = np.minimum(rmin, 0.0), np.maximum(rmax, 0.0)
    if scheme == "sym":
        extent, steps = np.maximum(-rmin, rmax), (high - low) // 2
    else:
        extent, steps = rmax - rmin, high - low
    scale = np.maximum(np.where(extent > 0.0, extent / steps, 1.0), _SMALLEST_SCALE)
    scale = scale.astype(np.float32).astype(np.float64)
    if scheme == "sym":
        return scale, np.full_like(scale, (low + high) // 2)
    return scale, np.clip(np.rint(low - rmin / scale), low, high)


def _clip_range(rmin: float, rmax: float, full: tuple[float, float]) -> tuple[float, float]:
    low, high = min(0.0, max(float(rmin), full[0])), max(0.0, min(float(rmax), full[1]))
    return low, high


def _around_zero(histogram: Histogram) -> tuple[int, NDArray[np.int64]]:
    """First bin and counts of the non-zero values, padded to reach zero."""
    first, counts = histogram.first, histogram.counts
    before, after = max(first, 0), max(-(first + counts.size), 0)
    return first - before, np.pad(counts, (before, after))


def _fold(histogram: Histogram) -> NDArray[np.int64]:
    """Counts of the magnitudes of the non-zero values; the first bin starts at zero."""
    first, counts = _around_zero(histogram)
    negative, positive = counts[:-first][::-1] if first else counts[:0], counts[-first:]
    folded = np.zeros(max(negative.size, positive.size), dtype=np.int64)
    folded[: positive.size] += positive
    folded[: negative.size] += negative
    return folded


def _quantiles(
    first: int, counts: NDArray[np.int64], histogram: Histogram, parts: list[float]
) -> Floats:
    """Quantiles of all values, zeros included, with numpy's linear rule between two values."""
    # The zeros are one more bin, of no width.
    lefts = np.insert((first + np.arange(counts.size)) * histogram.width, -first, 0.0)
    widths = np.insert(np.full(counts.size, histogram.width), -first, 0.0)
    sizes = np.insert(counts, -first, histogram.zeros)
    totals = np.cumsum(sizes)

    def value(rank: Floats) -> Floats:
        bins = np.searchsorted(totals, rank, side="right")
        inside = (rank - totals[bins] + sizes[bins] + 0.5) / sizes[bins]
        return np.asarray(lefts[bins] + widths[bins] * inside)

    ranks = np.array(parts) * (totals[-1] - 1)
    below, above = value(np.floor(ranks)), value(np.ceil(ranks))
    return np.asarray(below + (above - below) * (ranks - np.floor(ranks)))


def _search_rows(
    rows: NDArray[np.float32], rmin: Floats, rmax: Floats, dtype: str, scheme: str
) -> tuple[Floats, Floats]:
    """Range of least squared error for each row, shape ``(rows,)`` each."""
    low, high = quantized_limits(dtype, scheme)
    best_low, best_high, best = rmin.copy(), rmax.copy(), np.full(rmin.shape, np.inf)
    scratch = np.empty_like(rows)

    def improve(lows: Floats, highs: Floats) -> None:
        scales, zero_points = _grid(lows, highs, dtype, scheme)
        columns = scales.astype(np.float32)[:, np.newaxis]
        bottom = (low - zero_points).astype(np.float32)[:, np.newaxis]
        units = rows / columns
        np.clip(np.rint(units, out=scratch), bottom, bottom + np.float32(high - low), out=scratch)
        units -= scratch
        losses = np.einsum("ij,ij->i", units, units, dtype=np.float64) * scales**2
        better = losses < best
        best[better], best_low[better] = losses[better], lows[better]
        best_high[better] = highs[better]

    for part in _WEIGHT_JOINT:
        improve(rmin * part, rmax * part)
    if scheme == "asym":
        for part in _WEIGHT_SINGLE:
            improve(best_low.copy(), rmax * part)
        for part in _WEIGHT_SINGLE:
            improve(rmin * part, best_high.copy())
    return best_low, best_high
