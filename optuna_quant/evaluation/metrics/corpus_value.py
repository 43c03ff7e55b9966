"""Compute a metric of the whole set from the outputs and labels of batches."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.data.sample_runs import Rows
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric


def corpus_value(
    metric: CorpusMetric, outputs: Sequence[Outputs], labels: Sequence[Outputs]
) -> float:
    """The metric of all samples.

    Args:
        metric:
            The metric.
        outputs:
            The outputs of each batch.
        labels:
            The labels of each batch.

    Raises:
        ValueError:
            If samples differ in shape and the metric does not take that, or if it gives no finite
            number.
    """
    value = metric.score(_all(metric, "outputs", outputs), _all(metric, "labels", labels))
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"The metric {metric.name!r} must be a finite number, but is {value!r}.")
    return number


def _all(metric: CorpusMetric, what: str, batches: Sequence[Outputs]) -> Outputs:
    """The outputs of all samples, or the labels."""
    if metric.per_sample or not isinstance(batches[0], tuple):
        return _joined(metric, what, batches)
    several = range(len(batches[0]))
    return tuple(_joined(metric, what, [b[i] for b in batches]) for i in several)


def _joined(metric: CorpusMetric, what: str, batches: Sequence[Any]) -> Rows:
    if metric.per_sample:
        return [row for batch in batches for row in batch]
    shapes = sorted({np.shape(row) for batch in batches for row in batch})
    if len(shapes) > 1 or any(isinstance(batch, list) for batch in batches):
        raise ValueError(
            f"The metric {metric.name!r} needs the {what} of all samples in one shape, but "
            f"there are the shapes {', '.join(map(str, shapes))}. With per_sample=True it gets "
            "lists of them."
        )
    return np.concatenate(batches)
