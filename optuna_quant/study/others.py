"""Whether a study has results, and which processes work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import is_this_process


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def running_now(study: optuna.Study) -> list[FrozenTrial]:
    """The running trials of our samplers whose process is not known to have ended."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    workers = ((trial, TrialView(trial).worker) for trial in running)
    return [trial for trial, worker in workers if worker and not is_known_dead(worker)]


def running_elsewhere(study: optuna.Study) -> list[FrozenTrial]:
    """Those of them that other processes run."""
    return [t for t in running_now(study) if not is_this_process(TrialView(t).worker or "")]


def has_results(study: optuna.Study) -> bool:
    """Whether the study holds more than its baseline: a metric, or scores, of any other model."""
    return bool(_results(study))


def _results(study: optuna.Study) -> list[TrialView]:
    return [
        view
        for view in views(study)
        if (view.is_complete and not view.is_baseline)
        or (view.state == TrialState.PRUNED and (view.samples or view.metric is not None))
    ]


def is_searched(study: optuna.Study) -> bool:
    """Whether the study has results of a search, and not only of what a user has enqueued."""
    return any(view.stage != record.ENQUEUED_STAGE for view in _results(study))


def where_runs(trial: FrozenTrial) -> str:
    """Which machine and process run a trial, for people."""
    host, _, rest = (TrialView(trial).worker or "").partition("|")
    return f"on the machine {host.partition(' ')[0]!r}, in process {rest.partition('|')[0]}"
