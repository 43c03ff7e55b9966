"""Metrics of the whole set by their usual names, computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from functools import partial
import importlib.util
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np

from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import classes_of


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.evaluation.metrics.sample_metrics import Bounds
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric


_Pair: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"
_Form: TypeAlias = "Callable[[str, NDArray[Any], NDArray[Any]], _Pair]"

_SUM_OF_PROBABILITIES = 0.01


@dataclass(frozen=True)
class _Function:
    """A function of ``sklearn.metrics``, and its arguments.

    Args:
        name:
            Its name there.
        form:
            Makes of a model's output and the labels what the function takes: what is right, and
            what was predicted.
        higher_is_better:
            Whether more is better.
        options:
            More arguments.
        root:
            Whether the metric is the root of what the function gives.
    """

    name: str
    form: _Form
    higher_is_better: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    root: bool = False


def library_metric(name: str) -> CorpusMetric | None:
    """The metric of that name; :obj:`None` if there is none.

    Raises:
        ImportError:
            If scikit-learn is needed for it and not installed.
    """
    name = ALIASES.get(name, name)
    function = _functions().get(name)
    if function is None:
        return None
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            f"The metric {name!r} is computed by scikit-learn, which is not installed. Run: pip "
            'install scikit-learn (or "optuna_quant[metrics]").'
        )
    return CorpusMetric(
        name=name, score=partial(_score, name=name), higher_is_better=function.higher_is_better
    )


def library_metric_names() -> list[str]:
    """The names of the metrics that scikit-learn computes, whether or not it is installed.

    They are of the whole set of samples: see
    :class:`~optuna_quant.evaluation.metrics.sample_metrics.CorpusMetric`.
    """
    return list(_functions())


def library_bounds(metric: SampleMetric | CorpusMetric) -> Bounds | None:
    """The lowest and the highest value of one of these metrics; :obj:`None` if not known.

    Args:
        metric:
            The metric, which may be another one.
    """
    score = metric.score
    if not (isinstance(score, partial) and score.func is _score):
        return None
    name = score.keywords["name"]
    if name not in CLASS_METRICS or name == "log_loss":
        return None
    return (-1.0, 1.0) if name in ("mcc", "kappa") else (0.0, 1.0)


def _score(output: NDArray[Any], labels: NDArray[Any], *, name: str) -> float:
    from sklearn import metrics

    function = _functions()[name]
    right, predicted = function.form(name, output, labels)
    options = dict(function.options)
    if options.get("average") == "binary":
        _check_binary(name, right, predicted)
    if name == "log_loss":
        options["labels"] = np.arange(max(2, predicted.shape[-1] if predicted.ndim > 1 else 2))
    if name == "roc_auc" and right.ndim == 1 and predicted.ndim == 2:
        options |= {"multi_class": "ovr", "labels": np.arange(predicted.shape[1])}
    try:
        value = float(getattr(metrics, function.name)(right, predicted, **options))
    except ValueError as error:
        raise ValueError(f"The metric {name!r} cannot be computed: {error}") from error
    return float(np.sqrt(value)) if function.root else value


# What the functions take.


def _classes(name: str, output: NDArray[Any], labels: NDArray[Any]) -> _Pair:
    """The right classes and the predicted ones, or a table of them where there are several."""
    if _is_table(output, labels):
        return labels.astype(np.int64), (_decisions(output) > 0.5).astype(np.int64)
    if _is_one_score(output, labels):
        predicted = (_decisions(output.reshape(-1)) > 0.5).astype(np.int64)
        return _numbers(name, labels.reshape(-1)), predicted
    predicted, right = classes_of(name, output, labels)
    return _numbers(name, right.reshape(-1)), predicted.reshape(-1).astype(np.int64)


def _ranking(name: str, output: NDArray[Any], labels: NDArray[Any]) -> _Pair:
    """The right classes, and how probable each class is; of two classes, the second one."""
    if _is_table(output, labels):
        return labels.astype(np.int64), output
    if _is_one_score(output, labels):
        return _numbers(name, labels.reshape(-1)), output.reshape(-1)
    probabilities, right = _probabilities(name, output, labels)
    return right, probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities


def _tabled_ranking(name: str, output: NDArray[Any], labels: NDArray[Any]) -> _Pair:
    """As :func:`_ranking`, with a table of the right classes if there are more than two."""
    right, scores = _ranking(name, output, labels)
    if right.ndim == 1 and scores.ndim == 2:
        right = np.eye(scores.shape[1], dtype=np.int64)[right]
    return right, scores


def _likelihood(name: str, output: NDArray[Any], labels: NDArray[Any]) -> _Pair:
    """The right classes, and the probabilities of all."""
    if _is_one_score(output, labels):
        return _numbers(name, labels.reshape(-1)), _decisions(output.reshape(-1))
    probabilities, right = _probabilities(name, output, labels)
    return right, probabilities


def _values(name: str, output: NDArray[Any], labels: NDArray[Any]) -> _Pair:
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


def _probabilities(name: str, output: NDArray[Any], labels: NDArray[Any]) -> _Pair:
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


def _check_binary(name: str, right: NDArray[Any], predicted: NDArray[Any]) -> None:
    if right.ndim == 1 and bool(np.isin(right, (0, 1)).all() and np.isin(predicted, (0, 1)).all()):
        return
    raise ValueError(
        f"The metric {name!r} is for two classes, 0 and 1, but there are more here: use "
        f"{name}_macro, {name}_micro or {name}_weighted."
    )


CLASS_METRICS = (
    *("f1", "f1_macro", "f1_micro", "f1_weighted"),
    *("precision", "precision_macro", "precision_micro", "precision_weighted"),
    *("recall", "recall_macro", "recall_micro", "recall_weighted"),
    *("balanced_accuracy", "mcc", "kappa", "roc_auc", "average_precision", "log_loss"),
)
"""Those whose labels are classes."""

ALIASES: Mapping[str, str] = {
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "map": "average_precision",
    "matthews_corrcoef": "mcc",
    "cohen_kappa": "kappa",
    "cross_entropy": "log_loss",
    **{
        f"{average}_{name}": f"{name}_{average}"
        for name in ("f1", "precision", "recall")
        for average in ("macro", "micro", "weighted")
    },
}
"""Other names that are in use, and those that messages and results have instead."""


def _functions() -> dict[str, _Function]:
    averaged = {
        f"{name}{suffix}": _Function(
            f"{name}_score", _classes, options={"average": average, "zero_division": 0}
        )
        for name in ("f1", "precision", "recall")
        for suffix, average in (
            ("", "binary"),
            ("_macro", "macro"),
            ("_micro", "micro"),
            ("_weighted", "weighted"),
        )
    }
    return {
        **averaged,
        "balanced_accuracy": _Function("balanced_accuracy_score", _classes),
        "mcc": _Function("matthews_corrcoef", _classes),
        "kappa": _Function("cohen_kappa_score", _classes),
        "roc_auc": _Function("roc_auc_score", _ranking),
        "average_precision": _Function("average_precision_score", _tabled_ranking),
        "log_loss": _Function("log_loss", _likelihood, higher_is_better=False),
        "r2": _Function("r2_score", _values),
        "rmse": _Function("mean_squared_error", _values, higher_is_better=False, root=True),
        "mape": _Function("mean_absolute_percentage_error", _values, higher_is_better=False),
    }
