"""In which form the metrics of Keras take labels: they compute a number of any other as well."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from numpy.typing import NDArray


_ONE_HOT = {
    "CategoricalAccuracy": "SparseCategoricalAccuracy() or metric='accuracy'",
    "CategoricalCrossentropy": "SparseCategoricalCrossentropy() or metric='log_loss'",
    "F1Score": "metric='f1_macro'",
    "FBetaScore": "metric='f1_macro'",
    "TopKCategoricalAccuracy": "SparseTopKCategoricalAccuracy() or metric='top5'",
}
"""Metrics of one-hot labels, and what takes class numbers."""

_NUMBERS = {
    "SparseCategoricalAccuracy": "CategoricalAccuracy()",
    "SparseCategoricalCrossentropy": "CategoricalCrossentropy()",
    "SparseTopKCategoricalAccuracy": "TopKCategoricalAccuracy()",
}
"""Metrics of class numbers, and what takes one-hot labels."""

_VALUES = frozenset({"Accuracy", "BinaryAccuracy"})
"""Metrics that compare a label with one value of the output."""


def is_of_classes(metric: object) -> bool:
    """Whether it is a metric of Keras of which labels are known to be classes."""
    return _keras_name(metric) in {*_ONE_HOT, *_NUMBERS}


def check_labels(metric: object, output: NDArray[Any], labels: NDArray[Any]) -> None:
    """Refuse labels in a form that a metric of Keras does not take.

    Args:
        metric:
            The metric; nothing is known of those of others.
        output:
            What the model gives.
        labels:
            The labels.

    Raises:
        ValueError:
            If they are in another form.
    """
    name = _keras_name(metric)
    if output.ndim < 2 or output.shape[-1] < 2:
        return
    single = labels.shape in (output.shape[:-1], (*output.shape[:-1], 1))
    shapes = f"but the output has the shape {output.shape} and the labels {labels.shape}"
    if name in _ONE_HOT and labels.shape != output.shape:
        raise ValueError(
            f"{name} takes one-hot labels, {shapes}: for class numbers use {_ONE_HOT[name]}."
        )
    if name in _NUMBERS and labels.shape == output.shape:
        raise ValueError(
            f"{name} takes class numbers, {shapes}: for one-hot labels use {_NUMBERS[name]}."
        )
    if name in _VALUES and single:
        raise ValueError(
            f"{name} compares each label with one value, {shapes}: for the scores of classes use "
            "SparseCategoricalAccuracy() or metric='accuracy'."
        )


def _keras_name(metric: object) -> str:
    """The name of the first class from Keras; empty if there is none."""
    return next(
        (
            cls.__name__
            for cls in type(metric).__mro__
            if cls.__module__.partition(".")[0] in ("keras", "tf_keras")
        ),
        "",
    )
