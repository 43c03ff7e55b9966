"""What a study holds, and which processes work on it: may it be started anew?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.study import record
from optuna_quant.study.sample_record import samples_of
from optuna_quant.workers.identity import is_known_dead
from optuna_quant.workers.identity import is_this_process


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def running_now(study: optuna.Study) -> list[FrozenTrial]:
    """The running trials of our samplers whose process is not known to have ended."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    workers = ((trial, record.worker_of(trial)) for trial in running)
    return [trial for trial, worker in workers if worker and not is_known_dead(worker)]


def running_elsewhere(study: optuna.Study) -> list[FrozenTrial]:
    """Those of them that other processes run."""
    return [t for t in running_now(study) if not is_this_process(record.worker_of(t) or "")]


def has_results(study: optuna.Study) -> bool:
    """Whether the study holds more than its baseline: a metric, or scores, of any other model."""
    return bool(_results(study))


def _results(study: optuna.Study) -> list[FrozenTrial]:
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if (trial.state == TrialState.COMPLETE and not record.is_baseline(trial))
        or (trial.state == TrialState.PRUNED and (samples_of(trial.system_attrs) or trial.values))
    ]


def is_searched(study: optuna.Study) -> bool:
    """Whether the study has results of a search, and not only of what somebody has enqueued."""
    return any(
        (claim := record.claim_of(trial)) is None or claim.stage != record.ENQUEUED_STAGE
        for trial in _results(study)
    )


def where_runs(trial: FrozenTrial) -> str:
    """Which machine and process run a trial, for people."""
    host, _, rest = (record.worker_of(trial) or "").partition("|")
    return f"on the machine {host.partition(' ')[0]!r}, in process {rest.partition('|')[0]}"
