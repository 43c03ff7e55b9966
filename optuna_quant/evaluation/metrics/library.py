"""Metrics of the whole set by their usual names, computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from functools import partial
import importlib.util
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.evaluation.metrics.output_forms import class_pair
from optuna_quant.evaluation.metrics.output_forms import probability_pair
from optuna_quant.evaluation.metrics.output_forms import ranking_pair
from optuna_quant.evaluation.metrics.output_forms import tabled_ranking_pair
from optuna_quant.evaluation.metrics.output_forms import value_pair
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.evaluation.metrics.output_forms import Form
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
    from optuna_quant.evaluation.metrics.score_bounds import Bounds


@dataclass(frozen=True)
class _Function:
    """A function of ``sklearn.metrics``, and its arguments.

    Args:
        name:
            Its name there.
        form:
            Makes of a model's output and the labels what the function takes.
        higher_is_better:
            Whether more is better.
        options:
            More arguments.
        root:
            Whether the metric is the root of what the function gives.
    """

    name: str
    form: Form
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
            f"{name}_score", class_pair, options={"average": average, "zero_division": 0}
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
        "balanced_accuracy": _Function("balanced_accuracy_score", class_pair),
        "mcc": _Function("matthews_corrcoef", class_pair),
        "kappa": _Function("cohen_kappa_score", class_pair),
        "roc_auc": _Function("roc_auc_score", ranking_pair),
        "average_precision": _Function("average_precision_score", tabled_ranking_pair),
        "log_loss": _Function("log_loss", probability_pair, higher_is_better=False),
        "r2": _Function("r2_score", value_pair),
        "rmse": _Function("mean_squared_error", value_pair, higher_is_better=False, root=True),
        "mape": _Function("mean_absolute_percentage_error", value_pair, higher_is_better=False),
    }
