"""Resolve what users give as a metric: a name, a function or an object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
import inspect
import math
import re
from typing import TYPE_CHECKING

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.evaluation.metrics.library import ALIASES
from optuna_quant.evaluation.metrics.library import library_metric
from optuna_quant.evaluation.metrics.library import library_metric_names
from optuna_quant.evaluation.metrics.margins import probability_margin
from optuna_quant.evaluation.metrics.margins import topk_margin
from optuna_quant.evaluation.metrics.objects import is_class_of_metrics
from optuna_quant.evaluation.metrics.objects import is_metric_object
from optuna_quant.evaluation.metrics.objects import of_object
from optuna_quant.evaluation.metrics.reference import reference_metrics
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.evaluation.metrics.sample_metrics import exact_match
from optuna_quant.evaluation.metrics.sample_metrics import iou
from optuna_quant.evaluation.metrics.sample_metrics import mae
from optuna_quant.evaluation.metrics.sample_metrics import mse
from optuna_quant.evaluation.metrics.sample_metrics import top5
from optuna_quant.evaluation.metrics.sample_metrics import topk
from optuna_quant.evaluation.metrics.score_bounds import checked_bounds
from optuna_quant.sequential.population import is_bounded


if TYPE_CHECKING:
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusScore
    from optuna_quant.evaluation.metrics.sample_metrics import Metric
    from optuna_quant.evaluation.metrics.sample_metrics import Score
    from optuna_quant.evaluation.metrics.score_bounds import Bounds


def as_metric_of(
    metric: Metric, *, bounds: Bounds | None = None, higher_is_better: bool | None = None
) -> SampleMetric | CorpusMetric:
    """Return what was given as a metric.

    Args:
        metric:
            A name (see :func:`metrics` and
            :func:`~optuna_quant.evaluation.metrics.library.library_metric_names`, and
            ``"top<K>"`` for any K), a metric, an object with ``update``, ``compute`` and
            ``reset`` (such as those of torchmetrics), one of Keras, or a function that gives the
            score of each sample.
        bounds:
            The lowest and the highest score of a sample, for a metric without bounds.
        higher_is_better:
            Whether more is better, for a function (default: yes), and for an object that does
            not say it; other metrics say it themselves.

    Raises:
        ImportError:
            If the metric is of a library that is not installed.
        TypeError:
            If ``metric`` is none of these.
        ValueError:
            If there is no metric of that name, the bounds do not go with it, or nothing says
            whether more is better.
    """
    found: SampleMetric | CorpusMetric
    higher = True if higher_is_better is None else higher_is_better
    if isinstance(metric, str):
        found = _named(metric)
    elif isinstance(metric, SampleMetric | CorpusMetric):
        found = metric
    elif is_metric_object(metric):
        found = of_object(metric, higher_is_better=higher_is_better)
    elif is_class_of_metrics(metric):
        raise TypeError(
            f"metric is the class {metric.__name__}: give an object of it, {metric.__name__}(...)."
        )
    elif callable(metric):
        _check_order(metric)
        name = getattr(metric, "__name__", type(metric).__name__)
        found = SampleMetric(name=name, score=metric, higher_is_better=higher)
    else:
        raise TypeError(
            "metric must be a name, a SampleMetric, a CorpusMetric, an object of torchmetrics or "
            f"Keras, or a function of the output and the labels, but got {metric!r}."
        )
    if bounds is None:
        return found
    if isinstance(found, CorpusMetric):
        raise ValueError(
            f"metric_bounds={bounds} bound the score of a sample, but {found.name!r} is a "
            "metric of the whole set: leave them out."
        )
    bounds = checked_bounds(found.name, bounds)
    if found.bounds not in (None, bounds) and not _is_narrower(bounds, found.bounds):
        raise ValueError(
            f"The metric {found.name!r} has the bounds {found.bounds}, but got metric_bounds="
            f"{bounds}: leave them out."
        )
    return replace(found, bounds=bounds)


def _check_order(metric: Callable[..., object]) -> None:
    """Refuse a function that takes the labels first, as those of scikit-learn and Keras do.

    Raises:
        ValueError:
            If its first parameter is called ``y_true`` or the like.
    """
    try:
        names = list(inspect.signature(metric).parameters)
    except (TypeError, ValueError):  # One in C.
        return
    if names[:1] in (["y_true"], ["true"], ["labels"], ["label"], ["targets"], ["target"]):
        name = getattr(metric, "__name__", type(metric).__name__)
        raise ValueError(
            f"The metric {name}() takes {names[0]!r} first, but a metric is called with the "
            f"model's output and the labels: give lambda output, label: {name}(label, output)."
        )


def _is_narrower(bounds: Bounds, own: Bounds | None) -> bool:
    """Whether bounds say what a metric leaves open, as that of an error how large it can be."""
    if own is None or is_bounded(own):
        return False
    return own[0] <= bounds[0] and bounds[1] <= own[1]


_ELSEWHERE = {
    "acc": "accuracy",
    "categorical_accuracy": "accuracy",
    "categorical_crossentropy": "log_loss",
    "cross_entropy_loss": "log_loss",
    "f1_score": "f1_macro",
    "jaccard_index": "iou",
    "matthews_corr_coef": "mcc",
    "mean_absolute_error": "mae",
    "mean_absolute_percentage_error": "mape",
    "mean_io_u": "iou",
    "mean_iou": "iou",
    "mean_squared_error": "mse",
    "multiclass_accuracy": "accuracy",
    "r2_score": "r2",
    "root_mean_squared_error": "rmse",
    "sparse_categorical_accuracy": "accuracy",
    "sparse_categorical_crossentropy": "log_loss",
    "sparse_top_k_categorical_accuracy": "top5",
    "top_k_categorical_accuracy": "top5",
}
"""What metrics are called in Keras, torchmetrics and scikit-learn."""

_OF_LIKELIHOODS = ("perplexity", "ppl", "nll", "nll_loss", "loss")


def metrics() -> dict[str, tuple[Score | CorpusScore, bool]]:
    """The metrics by name: the score of each sample or of all, and whether higher is better."""
    return {m.name: (m.score, m.higher_is_better) for m in _known()}


def _known() -> tuple[SampleMetric | CorpusMetric, ...]:
    unit, error = (0.0, 1.0), (0.0, math.inf)
    return (
        SampleMetric(name="accuracy", score=accuracy, bounds=unit, margin=probability_margin),
        SampleMetric(name="top5", score=top5, bounds=unit, margin=partial(topk_margin, k=5)),
        SampleMetric(
            name="exact_match", score=exact_match, bounds=unit, margin=probability_margin
        ),
        SampleMetric(name="iou", score=iou, bounds=unit),
        SampleMetric(name="mse", score=mse, bounds=error, higher_is_better=False),
        SampleMetric(name="mae", score=mae, bounds=error, higher_is_better=False),
        *reference_metrics(),
    )


def _named(given: str) -> SampleMetric | CorpusMetric:
    name = re.sub(r"[\s-]+", "_", given.strip().lower())
    known = {metric.name: metric for metric in _known()}
    if name in known:
        return known[name]
    of_library = library_metric(name)
    if of_library is not None:
        return of_library
    top = re.fullmatch(r"top_?([1-9][0-9]{0,8})", name)
    if top is None:
        others = library_metric_names()
        raise ValueError(
            f"There is no metric {given!r}.{_meant(name, [*known, *others, *ALIASES])} "
            f"The metrics are: {', '.join(known)}, and top<K> for any K; with scikit-learn "
            f"{', '.join(others)} (other names of these: {', '.join(ALIASES)}). For any other, "
            "give a SampleMetric, or your own function as evaluate."
        )
    k = int(top[1])
    return SampleMetric(
        name=f"top{k}",
        score=partial(topk, k=k),
        bounds=(0.0, 1.0),
        margin=partial(topk_margin, k=k),
    )


def _meant(name: str, known: list[str]) -> str:
    """What an unknown name may stand for."""
    if name in _OF_LIKELIHOODS:
        return (
            " The negative log-likelihood of classes is log_loss. For that of words, and for the "
            "perplexity, give a SampleMetric or evaluate with higher_is_better=False, as the page "
            "of the documentation on text shows."
        )
    if name in _ELSEWHERE:
        return f" Did you mean {_ELSEWHERE[name]!r}?"
    return did_you_mean(name, known)
