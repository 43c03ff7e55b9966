"""How clearly a model's output is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.evaluation.metrics.classes import class_axis
from optuna_quant.evaluation.metrics.classes import class_labels


if TYPE_CHECKING:
    from numpy.typing import NDArray


_SUM_OF_PROBABILITIES = 0.01
"""How far from one the sum of probabilities may be, for they may have been rounded."""


def probability_margin(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64] | None:
    """How much more probable the most probable class is than the second one.

    Scores become probabilities by softmax, unless they are probabilities already: none negative,
    and one in sum.

    Args:
        output:
            As for :func:`~optuna_quant.evaluation.metrics.sample_metrics.accuracy`.
        labels:
            As for :func:`~optuna_quant.evaluation.metrics.sample_metrics.accuracy`; used for
            their shape only.

    Returns:
        The smallest difference within each sample, from 0 to 1, of shape ``(samples,)``;
        :obj:`None` if the output tells classes only, or has only one.

    Raises:
        ValueError:
            If the shapes do not fit together.
    """
    axis = class_axis("the margin", output, class_labels(output, labels))
    if axis is None or output.shape[axis] < 2:
        return None
    scores = np.moveaxis(output, axis, -1)
    if scores.dtype.kind != "f" or scores.dtype.itemsize < 4:
        scores = scores.astype(np.float64)
    second, first = np.moveaxis(np.partition(scores, (-2, -1), axis=-1)[..., -2:], -1, 0)
    with np.errstate(invalid="ignore"):  # Of infinite scores nothing can be told.
        powers = np.exp(scores - first[..., None]).sum(axis=-1)
        gap = (1.0 - np.exp(second - first)) / powers
    is_probability = (scores.min(axis=-1) >= 0) & (
        np.abs(scores.sum(axis=-1) - 1) <= _SUM_OF_PROBABILITIES
    )
    gap = np.where(is_probability, first - second, gap)
    return np.asarray(gap.reshape(len(output), -1).min(axis=1), dtype=np.float64)


def topk_margin(
    output: NDArray[Any], labels: NDArray[Any], *, k: int
) -> NDArray[np.float64] | None:
    """How far the last class that is named is above the first one that is not.

    Args:
        output:
            Scores of shape ``(samples, classes)``.
        labels:
            Not used.
        k:
            How many classes are named.

    Returns:
        The difference of their scores, as a part of that between the highest and the lowest
        score of the sample, of shape ``(samples,)``; :obj:`None` if all classes are named.
    """
    if output.ndim != 2 or output.shape[1] <= k:
        return None
    scores = np.sort(output.astype(np.float64), axis=1)
    spread = scores[:, -1] - scores[:, 0]
    gap = scores[:, -k] - scores[:, -k - 1]
    return np.asarray(gap / np.where(spread > 0, spread, 1.0))
