"""Metrics of a model's output: of each sample, and of a whole set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.evaluation.metrics.classes import class_labels
from optuna_quant.evaluation.metrics.classes import classes_of
from optuna_quant.evaluation.metrics.score_bounds import Bounds
from optuna_quant.evaluation.metrics.score_bounds import checked_bounds


if TYPE_CHECKING:
    from numpy.typing import NDArray


Score: TypeAlias = "Callable[[Any, Any], Any]"
"""Gives the score of each sample, of shape ``(samples,)``, for a model's output and the labels.

Of several outputs it gets a tuple, in the order in which they were chosen. With ``per_sample`` it
gives one number, for the output and the label of one sample.
"""

Margin: TypeAlias = "Callable[[Any, Any], Any]"
"""Gives how clearly each sample is decided, of shape ``(samples,)``; :obj:`None` if unknown."""

CorpusScore: TypeAlias = "Callable[[Any, Any], float]"
"""Gives one number for a model's output on all samples and all the labels."""

Keep: TypeAlias = "Callable[[Any], Any]"
"""Gives what a metric needs of the FP32 model's output, samples along the first axis."""


REFERENCES = ("labels", "fp32")
"""What a model's output can be compared with: labels, or the FP32 model's own output."""


@dataclass(frozen=True, kw_only=True)
class SampleMetric:
    """A metric that is a mean over samples.

    Where the bounds are known, a part of the samples can be enough to tell whether a model meets
    the criterion.

    Example::

        SampleMetric(name="sample F1", score=f1_of_each, bounds=(0, 1))

    Args:
        name:
            What it is called.
        score:
            Function of a model's output and the labels, both with the samples along the first
            axis. It returns the score of each sample, an array of shape ``(samples,)``; each
            depends on its own sample only. It may write into its arguments, which are its own.
        bounds:
            The lowest and the highest score that any sample can get; :obj:`None` (default) if
            they are not known. Then all samples are always needed. The one on the bad side may be
            infinite, as ``(0, math.inf)`` for an error: then a model is given up as soon as it
            certainly fails.
        higher_is_better:
            Whether more is better. Default: yes.
        margin:
            Function of the same arguments. It returns how far each sample is from being decided
            otherwise, an array of shape ``(samples,)``: the smaller, the harder the sample. In
            any unit; it has influence on the order of samples only. Default: not known.
        per_sample:
            Whether ``score`` and ``margin`` are functions of one sample, which return one number.
            Then the model is run on one sample at a time, and they get what such a run gives (with
            an axis of one sample, if the model has an axis of samples) and the label of the
            sample. So shapes may differ from sample to sample: boxes, texts. Default: no.
        reference:
            What the output is compared with: ``"labels"`` (default), or ``"fp32"``, the FP32
            model's own output for the same samples, which takes the labels' place in ``score``
            and ``margin``. Then no labels are needed, and the metric says how far a model agrees
            with the FP32 model, not how often it is right.
        keep:
            With ``reference="fp32"``: function that gives what ``score`` needs of the FP32
            model's output, such as its classes. That is kept in memory for all samples, and is
            what ``score`` gets. Default: the output as it is.

    Raises:
        TypeError:
            If ``name`` is no string, or ``score``, ``margin`` or ``keep`` no function.
        ValueError:
            If the bounds are not two numbers, the lower one first, of which one is finite, or
            ``reference`` is neither.
    """

    name: str
    score: Score
    bounds: Bounds | None = None
    higher_is_better: bool = True
    margin: Margin | None = None
    per_sample: bool = False
    reference: str = "labels"
    keep: Keep | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check_named(self.name, self.score)
        _check_reference(self.name, self.reference, self.keep)
        if self.margin is not None and not callable(self.margin):
            raise TypeError(
                f"margin of the metric {self.name!r} must be a function, but got {self.margin!r}."
            )
        if self.bounds is not None:
            object.__setattr__(self, "bounds", checked_bounds(self.name, self.bounds))


@dataclass(frozen=True, kw_only=True)
class CorpusMetric:
    """A metric that is not a mean over samples, such as AUC, corpus BLEU or mAP.

    It is always evaluated on all samples, and their outputs are kept in memory until it is: as
    many bytes as the model's first output has for one sample, times the number of samples.

    Args:
        name:
            What it is called.
        score:
            Function of the model's output on all samples and of all the labels, both with the
            samples along the first axis. It returns one number.
        higher_is_better:
            Whether more is better. Default: yes.
        per_sample:
            Whether the model is run on one sample at a time. Then ``score`` gets two lists: what
            each run has given (with an axis of one sample, if the model has an axis of samples),
            and the label of each sample. So shapes may differ. Default: no.
        reference:
            As for :class:`SampleMetric`.
        keep:
            As for :class:`SampleMetric`.

    Raises:
        TypeError:
            If ``name`` is no string, or ``score`` or ``keep`` no function.
        ValueError:
            If ``reference`` is neither.
    """

    name: str
    score: CorpusScore
    higher_is_better: bool = True
    per_sample: bool = False
    reference: str = "labels"
    keep: Keep | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        _check_named(self.name, self.score)
        _check_reference(self.name, self.reference, self.keep)


Metric: TypeAlias = "str | Score | SampleMetric | CorpusMetric | Any"
"""Also an object with ``update``, ``compute`` and ``reset``, as in torchmetrics, or of Keras."""


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the class with the highest score is the right one.

    Args:
        output:
            Scores of shape ``(samples, classes)``, ``(samples, ..., classes)`` or
            ``(samples, classes, ...)``, or predicted classes as integers.
        labels:
            The right classes: the shape of ``output`` without the axis of the classes. A second
            axis of size one is left out. Or one-hot, in the shape of ``output``.

    Returns:
        The part that is right in each sample, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes do not fit together.
    """
    right = _is_right("accuracy", output, labels)
    return np.asarray(right.mean(axis=1), dtype=np.float64)


def exact_match(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the class with the highest score is the right one at all positions of a sample.

    Args:
        output:
            As for :func:`accuracy`.
        labels:
            As for :func:`accuracy`.

    Returns:
        1.0 where all are right and 0.0 where one is not, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes do not fit together.
    """
    right = _is_right("exact_match", output, labels)
    return np.asarray(right.all(axis=1), dtype=np.float64)


def topk(output: NDArray[Any], labels: NDArray[Any], *, k: int) -> NDArray[np.float64]:
    """Whether the right class is among the ``k`` with the highest scores.

    Args:
        output:
            Scores of shape ``(samples, classes)``.
        labels:
            The right classes, of shape ``(samples,)`` or ``(samples, 1)``.
        k:
            How many classes may be named. Of equal scores the first ones count.

    Returns:
        1.0 where it is and 0.0 where it is not, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes are others.
    """
    _check_labels(f"top{k}", labels)
    labels = class_labels(output, labels)
    if output.ndim != 2 or labels.shape != output.shape[:1]:
        raise ValueError(
            f"top{k} needs scores of shape (samples, classes) and labels of shape (samples,), but "
            f"got {output.shape} and {labels.shape}."
        )
    # What has no sign cannot be negated.
    scores = output.astype(np.int64) if output.dtype.kind in "ub" else output
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels[:, None]).any(axis=1), dtype=np.float64)


def top5(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the right class is among the five with the highest scores.

    Args:
        output:
            Scores of shape ``(samples, classes)``.
        labels:
            The right classes, of shape ``(samples,)`` or ``(samples, 1)``.

    Returns:
        1.0 where it is and 0.0 where it is not, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes are others.
    """
    return topk(output, labels, k=5)


def iou(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The intersection over union of the predicted and the right areas, for segmentation.

    Args:
        output:
            Scores of shape ``(samples, classes, ...)`` (or ``(samples, ..., classes)``), or
            predicted classes as integers.
        labels:
            The right class at each position, as integers: the shape of ``output`` without the
            axis of the classes. A second axis of size one is left out. Each value is a class, so
            that a value that marks what is to be left out needs a metric of your own.

    Returns:
        The mean over the classes that are in a sample's labels or in what is predicted for it,
        of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes do not fit together, or the labels are no integers.
    """
    if labels.dtype.kind not in "iub":
        raise ValueError(f"iou needs integers as labels, but got {labels.dtype}.")
    predicted, labels = classes_of("iou", output, labels, classes_first=True)
    return np.array(
        [_iou_of_one(p.ravel(), t.ravel()) for p, t in zip(predicted, labels, strict=True)],
        dtype=np.float64,
    )


def mse(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The mean squared error of each sample.

    Args:
        output:
            Predictions of shape ``(samples, ...)``.
        labels:
            The right values, as many and in the same order; their shape may be another.

    Returns:
        The means, of shape ``(samples,)``.

    Raises:
        ValueError:
            If there are more of the ones than of the others.
    """
    return np.asarray(np.square(_difference("mse", output, labels)).mean(axis=1))


def mae(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The mean absolute error of each sample; otherwise as :func:`mse`."""
    return np.asarray(np.abs(_difference("mae", output, labels)).mean(axis=1))


def _check_named(name: object, score: object) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"The name of a metric must be a string, but got {name!r}.")
    if not callable(score):
        raise TypeError(f"score of the metric {name!r} must be a function, but got {score!r}.")


def _check_reference(name: str, reference: object, keep: object) -> None:
    if reference not in REFERENCES:
        raise ValueError(
            f"reference of the metric {name!r} must be one of {', '.join(REFERENCES)}, but got "
            f"{reference!r}."
        )
    if keep is None:
        return
    if not callable(keep):
        raise TypeError(f"keep of the metric {name!r} must be a function, but got {keep!r}.")
    if reference != "fp32":
        raise ValueError(
            f"keep of the metric {name!r} selects what is kept of the FP32 model's output: it "
            'needs reference="fp32".'
        )


def _is_right(what: str, output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each position is right, of shape ``(samples, positions)``."""
    _check_labels(what, labels)
    predicted, labels = classes_of(what, output, labels)
    return np.asarray(predicted == labels).reshape(len(labels), -1)


def _check_labels(what: str, labels: NDArray[Any]) -> None:
    if labels.dtype.kind not in "iubf":
        raise ValueError(
            f"{what} needs the labels as class numbers, from 0 on, but they are of the type "
            f"{labels.dtype}, such as {str(labels.flat[0])!r}: give the place of each class in "
            "the model's output, [NUMBERS[label] for label in labels]."
        )
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise ValueError(f"{what} needs a label for each sample, but one is NaN.")


def _iou_of_one(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    predicted, labels = predicted.astype(np.int64), labels.astype(np.int64)
    low = min(predicted.min(), labels.min())
    predicted, labels = predicted - low, labels - low
    classes = int(max(predicted.max(), labels.max())) + 1
    both = np.bincount(labels[predicted == labels], minlength=classes)
    one = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes) - both
    return float((both[one > 0] / one[one > 0]).mean())


def _difference(name: str, output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    count = len(labels)
    if output.size != labels.size:
        is_table = output.ndim > 1 and output.size > labels.size
        classes = (
            " If the output has a score for each class, use accuracy, f1_macro or log_loss."
            if is_table
            else ""
        )
        raise ValueError(
            f"The metric {name!r} takes the difference between the model's first output and the "
            f"labels, but these have the shapes {output.shape} and {labels.shape}: give a number "
            f"for each number of the output.{classes}"
        )
    difference = output.astype(np.float64).reshape(count, -1)
    return np.asarray(difference - labels.astype(np.float64).reshape(count, -1))
