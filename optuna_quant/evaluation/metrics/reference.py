"""Metrics without labels: how closely a model's output agrees with the FP32 model's."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.evaluation.metrics.margins import probability_margin
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric


if TYPE_CHECKING:
    from numpy.typing import NDArray


def predicted_classes(output: NDArray[Any]) -> NDArray[Any]:
    """The class with the highest score at each position, in the smallest integer type.

    Args:
        output:
            Scores of shape ``(samples, classes)`` or ``(samples, positions, classes)``. With more
            axes the classes are the second or the last one, whichever is shorter, as in
            ``(samples, classes, height, width)``. Or classes as integers, which are returned.

    Raises:
        ValueError:
            If there is no axis of classes, or only one class.
    """
    if output.dtype.kind in "iub":
        return output
    axis = -1
    if output.ndim >= 4 and output.shape[1] <= output.shape[-1]:
        axis = 1
    if output.ndim < 2 or output.shape[axis] < 2:
        several = output.size > len(output) if output.ndim else False
        cure = "use 'cosine' or 'relative_error'" if several else "use 'relative_error'"
        raise ValueError(
            "agreement compares classes and needs scores of at least two classes, but the "
            f"model's output has the shape {output.shape}: {cure}."
        )
    smallest = np.min_scalar_type(output.shape[axis] - 1)
    return np.asarray(output.argmax(axis=axis).astype(smallest))


def agreement(output: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the class with the highest score is the one of the FP32 model.

    Args:
        output:
            As for :func:`predicted_classes`.
        classes:
            What :func:`predicted_classes` gives for the FP32 model's output.

    Returns:
        The share of the positions where it is, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes differ.
    """
    predicted = predicted_classes(output)
    _check_same_shape("agreement", predicted, classes)
    same = (predicted == classes).reshape(len(classes), -1)
    return np.asarray(same.mean(axis=1), dtype=np.float64)


def cosine(output: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """The cosine of the angle between each output and the FP32 model's.

    Args:
        output:
            Numbers of shape ``(samples, ...)``.
        reference:
            The FP32 model's output for the same samples.

    Returns:
        Numbers from -1 to 1, of shape ``(samples,)``. Two outputs that are zero throughout are the
        same, which is 1; a single one has no direction, which is 0.

    Raises:
        ValueError:
            If the shapes differ, or there is one number for each sample.
    """
    one, other = _flat("cosine", output, reference)
    if one.shape[1] < 2:
        raise ValueError(
            "cosine needs several numbers for each sample, but the model's output has the "
            f"shape {output.shape}: one number has no angle, so all of the same sign would be "
            "equal. Use 'relative_error'."
        )
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("ij,ij->i", one, other)
    found = np.divide(products, sizes, out=np.zeros(len(sizes)), where=sizes != 0)
    found[~(one.any(axis=1) | other.any(axis=1))] = 1.0
    return np.asarray(np.clip(found, -1.0, 1.0))


def relative_error(output: NDArray[Any], reference: NDArray[Any]) -> NDArray[np.float64]:
    """The distance of each output from the FP32 model's, as a part of the latter's size.

    Both are Euclidean: the root of the sum of squares.

    Args:
        output:
            Numbers of shape ``(samples, ...)``.
        reference:
            The FP32 model's output for the same samples.

    Returns:
        Numbers of at least 0, of shape ``(samples,)``. Where the FP32 model's output is zero
        throughout it is 0 if the output is so as well, and otherwise 1.

    Raises:
        ValueError:
            If the shapes differ.
    """
    one, other = _flat("relative_error", output, reference)
    distances, sizes = np.linalg.norm(one - other, axis=1), np.linalg.norm(other, axis=1)
    beside_nothing = (distances > 0).astype(np.float64)
    return np.asarray(np.divide(distances, sizes, out=beside_nothing, where=sizes != 0))


def reference_metrics() -> tuple[SampleMetric, ...]:
    """The metrics of this module."""
    return (
        SampleMetric(
            name="agreement",
            score=agreement,
            bounds=(0.0, 1.0),
            margin=_class_margin,
            reference="fp32",
            keep=predicted_classes,
        ),
        SampleMetric(name="cosine", score=cosine, bounds=(-1.0, 1.0), reference="fp32"),
        SampleMetric(
            name="relative_error",
            score=relative_error,
            bounds=(0.0, np.inf),
            higher_is_better=False,
            reference="fp32",
        ),
    )


def _class_margin(output: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64] | None:
    return None if output.dtype.kind in "iub" else probability_margin(output, classes)


def _flat(
    what: str, output: NDArray[Any], reference: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _check_same_shape(what, output, reference)
    if output.dtype.kind not in "fiub":
        raise ValueError(f"{what} needs numbers, but the model's output is {output.dtype}.")
    count = len(output)
    return (
        output.astype(np.float64).reshape(count, -1),
        reference.astype(np.float64).reshape(count, -1),
    )


def _check_same_shape(what: str, output: NDArray[Any], reference: NDArray[Any]) -> None:
    if output.shape != reference.shape:
        raise ValueError(
            f"{what} needs an output of the shape of the FP32 model's, {reference.shape}, but got "
            f"{output.shape}."
        )
