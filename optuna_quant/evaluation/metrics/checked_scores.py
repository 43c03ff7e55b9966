"""Check the scores of samples: a finite number for each, within the bounds of the metric."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.rounding import bounds_slack


if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
    from optuna_quant.evaluation.metrics.score_bounds import Bounds


def checked_scores(
    metric: SampleMetric, given: object, chosen: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """The scores that a metric has given for a batch.

    Args:
        metric:
            The metric.
        given:
            What it gave.
        chosen:
            The numbers of the samples, for error messages.

    Raises:
        ValueError:
            If they have the wrong shape, are not finite or are out of bounds.
    """
    array = np.asarray(given)
    if array.shape != chosen.shape or array.dtype.kind not in "biuf":
        raise ValueError(
            f"The metric {metric.name!r} must give one number for each sample, of shape "
            f"{chosen.shape}, but gave {array.dtype} of shape {array.shape}. For a metric of the "
            "whole set use CorpusMetric."
        )
    what = f"The metric {metric.name!r} is"
    return valid_scores(
        array,
        metric.bounds,
        not_finite=lambda score, place: (
            f"{what} {score} for sample {chosen[place]}; it must be finite for each sample."
        ),
        outside=lambda score, place: (
            f"{what} {score} for sample {chosen[place]}, which is outside its bounds "
            f"{metric.bounds}. Give bounds that hold for every sample and every model, or none."
        ),
    )


def valid_scores(
    given: NDArray[Any],
    bounds: Bounds | None,
    *,
    not_finite: Callable[[np.float64, int], str],
    outside: Callable[[np.float64, int], str],
) -> NDArray[np.float64]:
    """Scores as float64; one that is out of bounds by no more than rounding is on the bound.

    Args:
        given:
            The scores, a number for each sample.
        bounds:
            The lowest and the highest one; :obj:`None` if they are not known.
        not_finite:
            The error for a score that is not finite, and its place.
        outside:
            That for one that is out of bounds.

    Raises:
        ValueError:
            If a score is not finite or out of bounds.
    """
    scores = given.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ValueError(not_finite(scores[bad[0]], int(bad[0])))
    if bounds is None:
        return scores
    low, high = bounds
    rounding = bounds_slack(bounds, given.dtype)
    bad = np.flatnonzero((scores < low - rounding) | (scores > high + rounding))
    if len(bad):
        raise ValueError(outside(scores[bad[0]], int(bad[0])))
    return np.clip(scores, low, high)


def checked_margins(
    metric: SampleMetric, given: object, chosen: NDArray[np.integer[Any]]
) -> NDArray[np.float64] | None:
    """As :func:`checked_scores`, the margins; :obj:`None` if the metric does not tell them."""
    if given is None:
        return None
    margins = np.asarray(given)
    if margins.shape != chosen.shape or margins.dtype.kind not in "biuf":
        raise ValueError(
            f"The margin of the metric {metric.name!r} must be one number for each sample, of "
            f"shape {chosen.shape}, but is {margins.dtype} of shape {margins.shape}."
        )
    return margins.astype(np.float64)
