"""A model's output and the labels as what a metric of the whole set takes.

Each function gives what is right, and what was predicted; what does not fit is an error that
names the metric. Those of scikit-learn (``library``) read by them, and so does a module with a
metric of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.evaluation.metrics.classes import classes_of


if TYPE_CHECKING:
    from numpy.typing import NDArray


Pair: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"
"""What is right, and what was predicted."""

Form: TypeAlias = "Callable[[str, NDArray[Any], NDArray[Any]], Pair]"
"""Takes the name of the metric, the model's output and the labels."""

_SUM_OF_PROBABILITIES = 0.01


def class_pair(name: str, output: NDArray[Any], labels: NDArray[Any]) -> Pair:
    """The right classes and the predicted ones, or a table of them where there are several."""
    if _is_table(output, labels):
        return labels.astype(np.int64), (_decisions(output) > 0.5).astype(np.int64)
    if _is_one_score(output, labels):
        predicted = (_decisions(output.reshape(-1)) > 0.5).astype(np.int64)
        return _numbers(name, labels.reshape(-1)), predicted
    predicted, right = classes_of(name, output, labels)
    return _numbers(name, right.reshape(-1)), predicted.reshape(-1).astype(np.int64)


def ranking_pair(name: str, output: NDArray[Any], labels: NDArray[Any]) -> Pair:
    """The right classes, and how probable each class is; of two classes, the second one."""
    if _is_table(output, labels):
        return labels.astype(np.int64), output
    if _is_one_score(output, labels):
        return _numbers(name, labels.reshape(-1)), output.reshape(-1)
    probabilities, right = _probabilities(name, output, labels)
    return right, probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities


def tabled_ranking_pair(name: str, output: NDArray[Any], labels: NDArray[Any]) -> Pair:
    """As :func:`ranking_pair`, with a table of the right classes if there are more than two."""
    right, scores = ranking_pair(name, output, labels)
    if right.ndim == 1 and scores.ndim == 2:
        right = np.eye(scores.shape[1], dtype=np.int64)[right]
    return right, scores


def probability_pair(name: str, output: NDArray[Any], labels: NDArray[Any]) -> Pair:
    """The right classes, and the probabilities of all."""
    if _is_one_score(output, labels):
        return _numbers(name, labels.reshape(-1)), _decisions(output.reshape(-1))
    probabilities, right = _probabilities(name, output, labels)
    return right, probabilities


def value_pair(name: str, output: NDArray[Any], labels: NDArray[Any]) -> Pair:
    """The right values and the predicted ones, a row for each sample."""
    count = len(labels)
    if output.size != labels.size:
        raise ValueError(
            f"{name} needs as many values as the model gives, but its output has the shape "
            f"{output.shape} and the labels {labels.shape}."
        )
    return (
        labels.astype(np.float64).reshape(count, -1),
        output.astype(np.float64).reshape(count, -1),
    )


def _probabilities(name: str, output: NDArray[Any], labels: NDArray[Any]) -> Pair:
    """The probability of each class for each position, and the right classes."""
    if output.dtype.kind != "f":
        raise ValueError(
            f"{name} needs a score for each class, but the model gives {output.dtype}."
        )
    _, right = classes_of(name, output, labels)
    axis = next(
        axis
        for axis in (output.ndim - 1, 1)
        if output.shape[:axis] + output.shape[axis + 1 :] == right.shape
    )
    scores = np.moveaxis(output, axis, -1).astype(np.float64)
    scores = scores.reshape(-1, scores.shape[-1])
    sums = scores.sum(axis=1, keepdims=True)
    if not (bool((scores >= 0).all()) and bool((np.abs(sums - 1) <= _SUM_OF_PROBABILITIES).all())):
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        sums = scores.sum(axis=1, keepdims=True)
    numbers = _numbers(name, right.reshape(-1))
    wrong = numbers[(numbers < 0) | (numbers >= scores.shape[1])]
    if len(wrong):
        raise ValueError(
            f"{name} needs labels from 0 to {scores.shape[1] - 1}, because the model has "
            f"{scores.shape[1]} classes, but one is {wrong[0]}."
        )
    return scores / sums, numbers


def _decisions(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of yes or no as probabilities: as they are if all may be, otherwise by the logistic
    function.
    """
    exact = scores.astype(np.float64)
    if bool(((exact >= 0) & (exact <= 1)).all()):
        return exact
    return np.asarray(0.5 * (1 + np.tanh(exact / 2)))


def _is_table(output: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Whether each sample has a yes or no for each class, and not one class."""
    if output.shape != labels.shape or labels.ndim != 2 or labels.shape[1] < 2:
        return False
    if output.dtype.kind != "f" or not bool(np.isin(labels, (0, 1)).all()):
        return False
    return not bool((labels.sum(axis=1) == 1).all())


def _is_one_score(output: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Whether the model gives one score for each sample, of yes or no."""
    return output.dtype.kind == "f" and output.size == len(output) == labels.size


def _numbers(name: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    numbers = labels.astype(np.int64) if labels.dtype.kind in "iubf" else None
    if numbers is None or not bool((numbers == labels).all()):
        raise ValueError(
            f"{name} needs the labels as class numbers, from 0 on, but they are {labels.dtype}"
            f"{'' if numbers is None else ' with fractions'}."
        )
    return numbers
