"""Build the evaluations of a search: by data, by a function, and on the hold-out set."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import cast

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.sample_metrics import Metric
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.tuning.holdout import check_other_data
from optuna_quant.workers.cores import available_cores


if TYPE_CHECKING:
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import DataLike


def make_measure(
    evaluate: Evaluate | None,
    data: DataLike | None,
    metric: Metric | None,
    criterion: AccuracyCriterion | None,
    *,
    metric_bounds: tuple[float, float] | None,
    output_names: str | Sequence[str] | None,
    inputs: InputValues | None,
    transform: Transform | None,
    batch_size: int | None,
    threads: int,
) -> Evaluate:
    """What gives the metric of a model."""
    if evaluate is not None and data is None:
        of_data = {
            "metric": metric,
            "output_names": output_names,
        }
        for name, value in of_data.items():
            if value is not None:
                raise ValueError(f"{name}={value!r} is for data, not for evaluate.")
        if not callable(evaluate):
            raise TypeError(f"evaluate must be a function, but got {evaluate!r}.")
        return FunctionEvaluation(
            evaluate,
            metric_bounds=metric_bounds,
            higher_is_better=criterion is None or criterion.higher_is_better,
            batch_size=batch_size,
        )
    if data is None or evaluate is not None:
        given = "both" if evaluate is not None else "neither"
        raise ValueError(
            "Either evaluate (a function that gives the metric of a model) or data (labelled "
            f"data for a metric) must be given, but got {given}."
        )
    if metric is not None and not isinstance(metric, str):
        says = criterion is not None and criterion.says_direction
        higher = criterion.higher_is_better if criterion is not None and says else None
        metric = as_metric_of(metric, bounds=metric_bounds, higher_is_better=higher)
        metric_bounds = None
    return DataEvaluation(
        data,
        "accuracy" if metric is None else metric,
        batch_size=batch_size,
        threads=threads,
        metric_bounds=metric_bounds,
        output_names=output_names,
        inputs=inputs,
        transform=transform,
    )


def make_holdout_measure(
    holdout: float | DataLike | Evaluate,
    evaluate: Evaluate | None,
    data: DataLike | None,
    measured: Callable[[Evaluate | None, DataLike | None], Evaluate],
) -> Evaluate:
    """What gives the metric of a model on the hold-out set."""
    if evaluate is None:
        check_other_data(data, holdout, what="data")
        return measured(None, cast("DataLike", holdout))
    check_other_data(evaluate, holdout, what="evaluate")
    if not callable(holdout):
        raise TypeError(
            "With evaluate, holdout must be a second function, which gives the metric of a "
            f"model on other samples, but got {holdout!r}. Labelled samples are for data."
        )
    is_evaluation = isinstance(holdout, SampleEvaluation)
    given = cast("Evaluate", holdout)
    return given if is_evaluation else measured(given, None)


def usual_threads() -> int:
    """How many batches are run at once: two, which was faster than one at a time on all cores.

    More would be run ahead in vain once a model is given up.
    """
    return min(2, available_cores())
