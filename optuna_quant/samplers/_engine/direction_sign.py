"""A sign that a study has the wrong direction, where no criterion tells which one is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.study import StudyDirection


if TYPE_CHECKING:
    import optuna

    from optuna_quant.samplers._engine.trial_history import TrialHistory


_logger = get_logger(__name__)

_ENOUGH = 2
# By less than this part a quantized model may well be better than FP32.
_CLEARLY = 0.05


def looks_reversed(history: TrialHistory) -> bool:
    """Whether every quantized model so far is better than FP32, and one of them clearly.

    Quantization costs accuracy, so that is what a study looks like that minimizes an accuracy.

    Args:
        history:
            The trials of the study.
    """
    fp32 = history.fp32
    if fp32 is None:
        return False
    gains = [
        outcome.score - fp32.score
        for outcome in history.outcomes.values()
        if outcome.is_complete and not outcome.is_substitute and outcome.key != fp32.key
    ]
    return (
        len(gains) >= _ENOUGH
        and min(gains) > 0
        and max(gains) > _CLEARLY * max(abs(fp32.score), 1e-9)
    )


def warn_of_direction(study: optuna.Study) -> None:
    """Say that the direction of a study may be the wrong one."""
    minimizes = study.directions[0] == StudyDirection.MINIMIZE
    found, other = ("minimizes", "maximize") if minimizes else ("maximizes", "minimize")
    worse = "higher" if minimizes else "lower"
    _logger.warning(
        f"The study {study.study_name!r} {found} the metric, and by that every quantized model so "
        f"far is better than FP32. If a {worse} metric is better, create the study with "
        f"direction={other!r} (Optuna's default is 'minimize'). A sampler that is given "
        "criterion=AccuracyCriterion(...) checks the direction."
    )
