"""Compute the confidence interval of a loss from the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.sequential.population import is_bounded
from optuna_quant.sequential.simultaneous import chosen_loss_interval
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import full_scores


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion


_logger = get_logger(__name__)


def recorded_interval(
    study: optuna.Study, trial: FrozenTrial, criterion: AccuracyCriterion, *, models: int
) -> tuple[float, float] | None:
    """Between which values the loss of a trial's model is, with 95% confidence.

    Args:
        study:
            The study.
        trial:
            A complete trial of it.
        criterion:
            Says what the loss is.
        models:
            Among how many models it was chosen.

    Returns:
        The interval; :obj:`None` if the record does not have the scores of all samples.
    """
    try:
        population = read_population(study)
    except ValueError as error:  # The order of the samples is not known here.
        _logger.warning(f"The loss has no confidence interval. {error}")
        return None
    if population is None or not is_bounded(population.bounds):
        return None
    scores = full_scores(study, TrialView(trial), population.samples)
    if scores is None:
        return None
    # In the data's own order: that of the evaluation depends on what the baseline scores.
    candidate = np.empty(population.samples)
    candidate[population.order.indices] = scores
    return chosen_loss_interval(
        candidate,
        population.baseline,
        models=models,
        bounds=population.bounds,
        higher_is_better=criterion.higher_is_better,
        relative=criterion.criterion == "relative",
    )
