"""Call a metric for the scores of samples, whatever the shapes of outputs and labels."""

from __future__ import annotations

from collections.abc import Callable
import copy
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.data.sample_runs import Rows


def scores_of(
    metric: SampleMetric, outputs: Outputs, labels: Outputs, chosen: NDArray[np.integer[Any]]
) -> object:
    """The score of each sample, as the metric gives it.

    Args:
        metric:
            The metric.
        outputs:
            The outputs for the samples.
        labels:
            Their labels.
        chosen:
            Their numbers, for error messages.

    Raises:
        ValueError:
            If a metric of single samples does not give a number.
    """
    # The labels may be the user's own arrays, and a metric may write into what it gets.
    return _called(metric, "score", metric.score, outputs, own_copy(labels), chosen)


def margins_of(
    metric: SampleMetric, outputs: Outputs, labels: Outputs, chosen: NDArray[np.integer[Any]]
) -> object:
    """As :func:`scores_of`, how far each sample is from being decided; :obj:`None` if unknown."""
    if metric.margin is None:
        return None
    outputs, labels = own_copy(outputs), own_copy(labels)
    return _called(metric, "margin", metric.margin, outputs, labels, chosen)


def own_copy(given: Outputs) -> Outputs:
    """A copy to write into; of objects, such as lists of boxes, of these as well."""
    if isinstance(given, np.ndarray) and not given.dtype.hasobject:
        return given.copy()
    if isinstance(given, tuple):
        return tuple(copy.deepcopy(each) for each in given)
    return copy.deepcopy(given)


def _called(
    metric: SampleMetric,
    what: str,
    function: Callable[[Any, Any], object],
    outputs: Outputs,
    labels: Outputs,
    chosen: NDArray[np.integer[Any]],
) -> object:
    if metric.per_sample:
        assert isinstance(outputs, list)  # Of what each run has given.
        given = [function(o, label) for o, label in zip(outputs, labels, strict=True)]
        if what == "margin" and any(value is None for value in given):
            return None
        return np.array(
            [_number(metric, what, v, i) for v, i in zip(given, chosen, strict=True)],
            dtype=np.float64,
        )
    both = [*_columns(outputs), *_columns(labels)]
    if not any(isinstance(each, list) for each in both):
        return function(outputs, labels)
    # Of several shapes: each depends on its own sample only, so that it can be asked alone.
    found: list[Any] = []
    for i in range(len(chosen)):
        one, other = (
            tuple(_alone(each, i) for each in given)
            if isinstance(given, tuple)
            else _alone(given, i)
            for given in (outputs, labels)
        )
        found.append(function(one, other))
    return None if any(value is None for value in found) else np.concatenate(found)


def _columns(given: Outputs) -> tuple[Rows, ...]:
    return given if isinstance(given, tuple) else (given,)


def _alone(rows: Rows, sample: int) -> NDArray[Any]:
    """An array with one sample along its first axis."""
    if not isinstance(rows, list):
        return rows[sample : sample + 1]
    row = rows[sample]
    if isinstance(row, np.ndarray):
        return row[None]
    held = np.empty(1, dtype=object)
    held[0] = row
    return held


def _number(metric: SampleMetric, what: str, value: object, sample: int) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"The {what} of the metric {metric.name!r} must be one number per sample "
            f"(per_sample=True), but is {value!r} for sample {sample}."
        )
    return float(array.reshape(())[()])
