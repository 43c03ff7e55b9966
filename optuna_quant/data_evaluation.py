"""Evaluation on labelled data with a metric that is given by name."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.calibration_data import InputSpec


Score: TypeAlias = "Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]"

LABELS = ("labels", "label", "targets", "target", "y")
"""Under one of these names the labels are looked for; otherwise in what is no model input."""


def accuracy(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the class with the highest score is the right one.

    Args:
        output:
            Scores of shape ``(samples, classes)``, ``(samples, ..., classes)`` or
            ``(samples, classes, ...)``, or predicted classes as integers.
        labels:
            The right classes: the shape of ``output`` without the axis of the classes.

    Returns:
        The part that is right in each sample, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes do not fit together.
    """
    right = _predicted(output, labels) == labels
    return np.asarray(right.reshape(len(labels), -1).mean(axis=1), dtype=np.float64)


def top5(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Whether the right class is among the five with the highest scores.

    Args:
        output:
            Scores of shape ``(samples, classes)``.
        labels:
            The right classes, of shape ``(samples,)``.

    Returns:
        1.0 where it is and 0.0 where it is not, of shape ``(samples,)``.

    Raises:
        ValueError:
            If the shapes are others.
    """
    if output.ndim != 2 or labels.shape != output.shape[:1]:
        raise ValueError(
            "top5 needs scores of shape (samples, classes) and labels of shape (samples,), but "
            f"got {output.shape} and {labels.shape}."
        )
    best = np.argsort(-output, axis=1, kind="stable")[:, :5]
    return np.asarray((best == labels[:, None]).any(axis=1), dtype=np.float64)


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
    return np.asarray(np.square(_difference(output, labels)).mean(axis=1))


def mae(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The mean absolute error of each sample.

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
    return np.asarray(np.abs(_difference(output, labels)).mean(axis=1))


def metrics() -> dict[str, tuple[Score, bool]]:
    """The metrics by name: the score of each sample, and whether higher is better."""
    return {
        "accuracy": (accuracy, True),
        "top5": (top5, True),
        "mse": (mse, False),
        "mae": (mae, False),
    }


class DataEvaluation:
    """The mean of a metric over labelled data, for a model in an ONNX Runtime session.

    Args:
        data:
            An array for each input of the model and one of labels, samples along the first axis:
            a dict of arrays, or a path to an ``.npz`` file. The labels are named ``labels``,
            ``label``, ``targets``, ``target`` or ``y``, or are the one array that is no input.
        metric:
            ``"accuracy"``, ``"top5"``, ``"mse"`` or ``"mae"``, of the model's first output.
        batch_size:
            How many samples are run at once, unless the model has a fixed batch size.

    Raises:
        ValueError:
            If the metric is not known, or the data cannot be read.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Mapping[str, Any],
        metric: str = "accuracy",
        *,
        batch_size: int = 64,
    ) -> None:
        known = metrics()
        if metric not in known:
            raise ValueError(
                f"There is no metric {metric!r}; the metrics are: {', '.join(known)}. For another "
                "one give your own function as evaluate."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but got {batch_size}.")
        self.metric = metric
        self._score, self.higher_is_better = known[metric]
        self._batch_size = batch_size
        if isinstance(data, Mapping):
            self._where = "the evaluation data"
            self._arrays = {name: np.asarray(array) for name, array in data.items()}
        else:
            self._where = f"the evaluation data {os.fspath(data)!r}"
            self._arrays = _load(Path(data))

    def __call__(self, session: Any) -> float:
        """The metric of the model in a session.

        Raises:
            ValueError:
                If the data do not fit the model.
        """
        features, labels = self.check(session)
        samples = len(labels)
        fixed = [i.shape[0] for i in session.get_inputs() if i.shape and _is_fixed(i.shape[0])]
        size = fixed[0] if fixed else self._batch_size
        output = session.get_outputs()[0].name
        total = 0.0
        for start in range(0, samples, size):
            batch = {name: array[start : start + size] for name, array in features.items()}
            count = min(size, samples - start)
            if fixed and count < size:
                batch = {name: _padded(array, size) for name, array in batch.items()}
            (result,) = session.run([output], batch)
            scores = self._score(np.asarray(result)[:count], labels[start : start + count])
            total += float(scores.sum())
        return total / samples

    def check(self, session: Any) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """The inputs and the labels, for the model in a session.

        Raises:
            ValueError:
                If the data do not fit the model; it says what does not.
        """
        from optuna_quant.backends.onnxruntime.feeds import to_feed

        specs = _specs(session)
        names = [spec.name for spec in specs]
        missing = [name for name in names if name not in self._arrays]
        if missing:
            raise ValueError(
                f"Input {missing[0]!r} is missing in {self._where}, which holds: "
                f"{', '.join(self._arrays) or 'nothing'}. Name the arrays as the model's inputs "
                f"({', '.join(names)}), and the labels 'labels'."
            )
        labels = self._arrays[self._find_labels(names)]
        inputs = {name: self._arrays[name] for name in names if name in self._arrays}
        features = to_feed(inputs, specs, self._where, on_cast=lambda *_: None)
        self._arrays |= features  # What had to be cast is cast once.
        lengths = {name: array.shape[:1] for name, array in features.items()}
        lengths["the labels"] = labels.shape[:1]
        if len(set(lengths.values())) > 1 or () in lengths.values():
            shown = ", ".join(f"{name}: {n[0] if n else 'none'}" for name, n in lengths.items())
            raise ValueError(
                f"The inputs and labels in {self._where} must have the same number of samples, "
                f"along the first axis, but have: {shown}."
            )
        if labels.ndim == 2 and labels.shape[1] == 1 and self._score in (accuracy, top5):
            labels = labels[:, 0]
        return features, labels

    def _find_labels(self, inputs: list[str]) -> str:
        rest = [name for name in self._arrays if name not in inputs]
        named = [name for name in LABELS if name in rest] or rest
        if not rest or (named == rest and len(rest) > 1):
            raise ValueError(
                f"There must be one array of labels in {self._where}, named 'labels', besides the "
                f"model's inputs ({', '.join(inputs)}); there are: {', '.join(self._arrays)}."
            )
        return named[0]


def _specs(session: Any) -> list[InputSpec]:
    """What the model in a session expects, whatever the number of samples."""
    from optuna_quant.backends.onnxruntime.calibration_data import InputSpec

    kinds = {"float": "float32", "double": "float64", "string": "object"}
    specs = []
    for given in session.get_inputs():
        kind = given.type.removeprefix("tensor(").removesuffix(")")
        shape = (None, *given.shape[1:]) if given.shape else None
        specs.append(InputSpec(given.name, np.dtype(kinds.get(kind, kind)), shape))
    return specs


def _is_fixed(size: object) -> bool:
    return isinstance(size, int) and size > 0


def _load(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix != ".npz":
        raise ValueError(f"Evaluation data must be an .npz file, but got {str(path)!r}.")
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ValueError(f"There is no file {str(path)!r}.") from None
    except Exception as error:
        raise ValueError(f"The evaluation data {str(path)!r} cannot be read: {error}") from error


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with its last sample repeated; what the model gives for it is not used."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _predicted(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    if output.shape == labels.shape and output.dtype.kind in "iub":
        return output
    if output.ndim == labels.ndim + 1:
        for axis in (output.ndim - 1, 1):
            if output.shape[:axis] + output.shape[axis + 1 :] == labels.shape:
                return np.asarray(output.argmax(axis=axis))
    raise ValueError(
        "accuracy needs labels of the shape of the model's first output without the axis of the "
        f"classes, but the output has the shape {output.shape} and the labels {labels.shape}."
    )


def _difference(output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    count = len(labels)
    if output.size != labels.size:
        raise ValueError(
            f"The model's first output has the shape {output.shape}, but the labels have "
            f"{labels.shape}."
        )
    difference = output.astype(np.float64).reshape(count, -1)
    return np.asarray(difference - labels.astype(np.float64).reshape(count, -1))
