"""Show the interval of a loss, corrected for having chosen the model on the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.sequential.interval import CONFIDENCE
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna

    from optuna_quant.criteria import AccuracyCriterion


def models_compared(study: optuna.Study) -> int:
    """Among how many different quantized models the study has chosen.

    Every model with a metric counts once, also if it was seen on some of the samples only, or if
    several trials have evaluated it: any of them would have been the answer, had it looked best.

    Args:
        study:
            The study.
    """
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    models = {
        # Trials of other objectives do not say which model they have built.
        view.model
        for view in map(TrialView, trials)
        if view.is_quantized
    }
    return len(models)


def shown_interval(
    interval: tuple[float, float], criterion: AccuracyCriterion, *, models: int = 1
) -> str:
    """An interval of a loss in words: how sure it is, and for a choice among how many models.

    Args:
        interval:
            Its ends.
        criterion:
            Says how a loss is shown.
        models:
            Among how many models the model was chosen by the same samples.
    """
    low, high = map(criterion.show, interval)
    choice = f", corrected for the choice among {models} models" if models > 1 else ""
    return f"{100 * CONFIDENCE:g}% confidence{choice}: {low} to {high}"


def shown_doubt(
    interval: tuple[float, float], criterion: AccuracyCriterion, *, samples: int
) -> str | None:
    """That a model which meets the criterion on its samples need not meet it on others.

    Args:
        interval:
            Between which values the loss is elsewhere.
        criterion:
            The criterion.
        samples:
            How many samples it is met on.

    Returns:
        A line of the summary; :obj:`None` if the interval leaves no doubt.
    """
    if interval[1] <= criterion.tolerable_loss:
        return None
    these = "this sample" if samples == 1 else f"these {samples} samples"
    loss = criterion.show(interval[1])
    return f"met on {these}; on others a loss up to {loss} is not ruled out"
