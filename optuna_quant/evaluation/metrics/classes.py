"""Which class a model's output tells, and which one labels do."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


def classes_of(
    what: str, output: NDArray[Any], labels: NDArray[Any], *, classes_first: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The predicted classes, and the labels in the same shape.

    Args:
        what:
            What they are for, for error messages.
        output:
            As for :func:`~optuna_quant.evaluation.metrics.sample_metrics.accuracy`.
        labels:
            As for :func:`~optuna_quant.evaluation.metrics.sample_metrics.accuracy`.
        classes_first:
            Whether the second axis is that of the classes where the last one may be it as well.

    Raises:
        ValueError:
            If the shapes do not fit together.
    """
    labels = class_labels(output, labels)
    axis = class_axis(what, output, labels, classes_first=classes_first)
    return (output if axis is None else np.asarray(output.argmax(axis=axis))), labels


def class_axis(
    what: str, output: NDArray[Any], labels: NDArray[Any], *, classes_first: bool = False
) -> int | None:
    """The axis of the classes; :obj:`None` if the output is the predicted classes.

    Args:
        what:
            What it is for, for error messages.
        output:
            Scores of classes, or predicted classes.
        labels:
            What :func:`class_labels` gives.
        classes_first:
            Whether the second axis is tried before the last one.

    Raises:
        ValueError:
            If the shapes do not fit together.
    """
    if _is_classes(output, labels):
        return None
    if output.ndim == labels.ndim + 1 and labels.ndim > 0:
        axes = (output.ndim - 1, 1)
        for axis in reversed(axes) if classes_first else axes:
            if output.shape[:axis] + output.shape[axis + 1 :] == labels.shape:
                return axis
    if labels.shape == output.shape and not bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(
            f"The labels have the shape of the output, {labels.shape}, and are not one-hot "
            "(exactly one 1 among zeros for each sample): of probabilities give the likeliest "
            "class, labels.argmax(axis=-1)."
        )
    raise ValueError(
        f"{what} needs labels of the shape of the model's first output without the axis of the "
        f"classes, but the output has the shape {output.shape} and the labels {labels.shape}. "
        "Labels are class numbers from 0 on, or exactly one 1 among zeros for each sample "
        "(one-hot)."
    )


def _is_classes(output: NDArray[Any], labels: NDArray[Any]) -> bool:
    return output.shape == labels.shape and output.dtype.kind in "iub"


def class_labels(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """The labels as class numbers, without an axis of the classes or a second one of size one.

    Args:
        output:
            Scores of classes, or predicted classes.
        labels:
            Class numbers; or, in the shape of the scores, exactly one 1 among zeros for each
            position (one-hot), which is taken for the number of its place.
    """
    if _is_classes(output, labels):
        return labels
    if labels.shape == output.shape and labels.ndim >= 2 and labels.dtype.kind in "iubf":
        if bool(((labels == 0) | (labels == 1)).all()):
            for axis in (labels.ndim - 1, 1):
                if labels.shape[axis] > 1 and bool((labels.sum(axis=axis) == 1).all()):
                    return np.asarray(labels.argmax(axis=axis))
        return labels
    single = labels.ndim >= 2 and labels.ndim == output.ndim and labels.shape[1] == 1
    return labels[:, 0] if single else labels
