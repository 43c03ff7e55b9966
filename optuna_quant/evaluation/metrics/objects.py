"""Metrics that are objects which take the samples in parts, as in torchmetrics and Keras."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol
from typing import TypeAlias
from typing import TypeGuard
from typing import cast

import numpy as np

from optuna_quant.evaluation.metrics.label_forms import check_labels
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_METHODS = ("update", "compute", "reset")
_KERAS_METHODS = ("update_state", "result", "reset_state")
_AT_ONCE = 256


Values: TypeAlias = Any
"""Arrays or tensors, as the user's object takes them."""


class MetricObject(Protocol):
    """An object that computes a metric of outputs and labels that it is given in parts."""

    def update(self, output: Values, labels: Values, /) -> object:
        """Take the outputs and the labels of some samples: arrays, or tensors."""

    def compute(self) -> object:
        """The metric of all that it was given: a number, or an array or tensor with one."""

    def reset(self) -> object:
        """Forget all that it was given."""


class _KerasMetric(Protocol):
    """The same with the names and the order that Keras has."""

    def update_state(self, labels: Values, output: Values, /) -> object:
        """Take the labels and the outputs of some samples."""

    def result(self) -> object:
        """The metric of all that it was given."""

    def reset_state(self) -> object:
        """Forget all that it was given."""


def is_metric_object(given: object) -> TypeGuard[MetricObject | _KerasMetric]:
    """Whether it is such an object, and not a class of them."""
    return _has(given, _METHODS) or _has(given, _KERAS_METHODS)


def is_class_of_metrics(given: object) -> TypeGuard[type]:
    """Whether it is a class of such objects."""
    return isinstance(given, type) and any(
        all(callable(getattr(given, method, None)) for method in methods)
        for methods in (_METHODS, _KERAS_METHODS)
    )


def object_of(metric: CorpusMetric) -> object:
    """The user's object that a metric computes with; None if it is no such metric."""
    if not isinstance(metric.score, _Computed):
        return None
    given = metric.score.metric
    return given.metric if isinstance(given, _FromKeras) else given


def _has(given: object, methods: Sequence[str]) -> bool:
    return not isinstance(given, type) and all(
        callable(getattr(given, method, None)) for method in methods
    )


def of_object(
    given: MetricObject | _KerasMetric, *, higher_is_better: bool | None = None
) -> CorpusMetric:
    """The metric that such an object computes.

    Args:
        given:
            The object. It is copied, and not changed. Where its class comes from a library of
            PyTorch's, its ``update`` gets tensors, otherwise arrays.
        higher_is_better:
            Whether more is better, if the object does not say it with an attribute of that name.

    Raises:
        ValueError:
            If nothing says whether more is better.
    """
    name = type(given).__name__
    own = getattr(given, "higher_is_better", None)
    better = higher_is_better if own is None else bool(own)
    if better is None:
        raise ValueError(
            f"The metric {name} does not say whether higher is better: give higher_is_better=True "
            "or False, on the command line --higher-is-better or --lower-is-better."
        )
    is_ready = _has(given, _METHODS)
    metric = cast("MetricObject", given) if is_ready else _FromKeras(cast("_KerasMetric", given))
    return CorpusMetric(name=name, score=_Computed(metric), higher_is_better=better)


@dataclass(frozen=True)
class _FromKeras:
    """A metric of Keras under the other names."""

    metric: _KerasMetric

    def update(self, output: Values, labels: Values, /) -> None:
        check_labels(self.metric, np.asarray(output), np.asarray(labels))
        self.metric.update_state(labels, output)

    def compute(self) -> object:
        return self.metric.result()

    def reset(self) -> None:
        self.metric.reset_state()


@dataclass(frozen=True)
class _Computed:
    """What an object computes of outputs and labels."""

    metric: MetricObject

    def __call__(self, output: NDArray[Any], labels: NDArray[Any]) -> float:
        metric = copy.deepcopy(self.metric)  # Several threads may evaluate at once.
        metric.reset()
        wrap = _as_tensor if _is_of_torch(metric) else np.asarray
        for start in range(0, len(labels), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            metric.update(wrap(output[part]), wrap(labels[part]))
        value = metric.compute()
        detached = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        try:
            (number,) = np.asarray(detached, dtype=np.float64).reshape(-1).tolist()
        except (TypeError, ValueError):
            raise ValueError(
                f"The metric {_name_of(metric)} must compute one number, but it computed "
                f"{value!r}. If it gives one for each class, choose an average."
            ) from None
        return float(number)


def _name_of(metric: object) -> str:
    return type(metric.metric if isinstance(metric, _FromKeras) else metric).__name__


def _is_of_torch(metric: object) -> bool:
    modules = (cls.__module__.partition(".")[0] for cls in type(metric).__mro__)
    return any(module.startswith("torch") for module in modules)


def _as_tensor(array: NDArray[Any]) -> Any:
    import torch

    # What is mapped from a file or comes from a runtime may not be written to.
    return torch.from_numpy(np.array(array))
