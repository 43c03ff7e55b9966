"""What a search has spent: trials that count, and seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna.trial import FrozenTrial


def trials_used(trials: Iterable[FrozenTrial]) -> int:
    """How many trials were evaluated: without the baseline, repeats, and what was cut short."""
    return sum(map(is_evaluated, map(TrialView, trials)))


def every_evaluation_failed(trials: Iterable[FrozenTrial]) -> bool:
    """Whether candidates were evaluated, and none of them to any result."""
    states = [view.state for view in map(TrialView, trials) if is_evaluated(view)]
    return bool(states) and all(state == TrialState.FAIL for state in states)


def busy_seconds(trials: Iterable[FrozenTrial]) -> float:
    """For how long at least one of the finished trials ran.

    One whose worker has died does not count: its end was written by another one's clock.
    """
    # As timestamps: Optuna's times are local and without a zone, a user's may have one.
    spans = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in trials
        if trial.datetime_start is not None
        and trial.datetime_complete is not None
        and (trial.state != TrialState.FAIL or TrialView(trial).has_failed_itself)
    )
    total = 0.0
    end = -math.inf
    for start, complete in spans:
        total += max(0.0, complete - max(start, end))
        end = max(end, complete)
    return total


def is_evaluated(view: TrialView) -> bool:
    """Whether a trial counts as evaluated, see :func:`trials_used`."""
    return (
        view.is_finished
        and not view.is_baseline
        and view.reused_from is None
        # An earlier trial, which counts, has evaluated the first samples of the same model.
        and view.continues is None
        and not _was_cut_short(view)
        and not view.is_foreign
    )


def _was_cut_short(view: TrialView) -> bool:
    """Whether the trial's process ended, or was interrupted, while our objective ran."""
    if view.state != TrialState.FAIL or view.failure is not None:
        return False
    died = (view.worker or view.started_by) is not None and not view.has_failed_itself
    return died or view.is_interrupted or view.is_building
