"""The FP32 model, evaluated sample by sample: what candidates are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.evaluation.sample_evaluation import EvaluationProgress
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.sample_evaluation import Watch
from optuna_quant.evaluation.sample_evaluation import check_scores
from optuna_quant.evaluation.sample_evaluation import checked_batch
from optuna_quant.sequential import Population
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels
from optuna_quant.sequential.population import is_bounded
from optuna_quant.study.population_record import write_population


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna

    from optuna_quant.backends.base import NativeModel
    from optuna_quant.criteria import AccuracyCriterion


def measure_baseline(
    trial: optuna.Trial,
    model: NativeModel,
    evaluation: SampleEvaluation,
    criterion: AccuracyCriterion,
    *,
    error_probability: float,
    method: str,
    seed: int,
    watch: Watch | None,
) -> tuple[float, str]:
    """Evaluate the FP32 model on all samples, and keep in the study what that says of each.

    Returns:
        The mean, and the key under which the study keeps the rest.

    Raises:
        ValueError:
            If the mean is no baseline.
    """
    samples = evaluation.samples
    scores: list[NDArray[np.float64]] = []
    margins: list[NDArray[np.float64]] = []
    seen, total = 0, 0.0
    for given, margin in evaluation.scores_and_margins(model, np.arange(samples)):
        some = checked_batch(given)
        scores.append(some)
        if margin is not None:
            margins.append(margin)
        seen += len(some)
        total += float(some.sum())
        if watch is not None:
            watch(EvaluationProgress(trial.number, seen, samples, total / seen))
    if seen != samples:
        raise ValueError(
            f"The evaluation must give one score for each of the {samples} samples, but it gave "
            f"{seen}."
        )
    found = np.concatenate(scores)
    check_scores(found, evaluation)
    value = float(found.sum() / samples)
    criterion.check_baseline(value)
    # Hard samples first tell soonest how the candidate differs; without pairs that is no help.
    by_margin = np.concatenate(margins) if margins and method == "paired" else None
    if evaluation.bounds is not None and not is_bounded(evaluation.bounds):
        # Where errors are large anyhow, sums of errors become too large soonest.
        by_margin = found if criterion.higher_is_better else -found
    levels = difficulty_levels(by_margin, samples)
    population = Population(
        order=SampleOrder.draw(levels, seed=seed),
        baseline=found,
        bounds=evaluation.bounds or (0.0, 1.0),
        higher_is_better=criterion.higher_is_better,
        error_probability=error_probability,
        method=method,
        metric_name=str(getattr(evaluation, "name", "")),
        in_parts=bool(getattr(evaluation, "in_parts", True)),
    )
    return value, write_population(trial.study, population, levels=levels, seed=seed)
