"""Where a search stands, by its storage alone."""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from typing import Any

from optuna.trial import TrialState

from optuna_quant.callbacks.spent import busy_seconds
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.callbacks.trial_line import clock
from optuna_quant.callbacks.trial_line import shown_best
from optuna_quant.callbacks.wording import shown_loss
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import MeasureObjective
from optuna_quant.costs.recorded_objective import objective_name
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import closest
from optuna_quant.selection.answer import ranked
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.criterion import criterion_or_default
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.study.others import running_now
from optuna_quant.study.recorded_space import recorded_left_out
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.measured_once import measured_first
from optuna_quant.tuning.recorded_study import RecordedTrials
from optuna_quant.workers.identity import host_of
from optuna_quant.workers.identity import process_of


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.costs.objective import Objective


MET = "met"
NOT_OURS = "no search of optuna_quant"

# That of all studies that tune() and the command make.
_PREFIX = "quant"


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a search stands.

    Args:
        study:
            The name of the study.
        outcome:
            ``"met"``, ``"not met yet"``, ``"not met"``, ``"not started"``, or
            ``"no search of optuna_quant"`` for a study that has only trials of something else.
            Those do not count in what follows.
        criterion:
            When a metric is good enough, or that the study records none.
        objective:
            What is best.
        baseline:
            The FP32 model's metric; :obj:`None` if it was not measured yet.
        best:
            The best trial in words, or the closest one.
        best_trial:
            Its number; :obj:`None` if there is none.
        other_params:
            Its parameters beside those of the tuning space, which an objective of one's own
            suggests.
        evaluated:
            How many models were evaluated, those that failed among them.
        trials:
            How many trials there are.
        failed:
            How many of those that were evaluated have failed.
        running:
            How many of them run, by workers that are not known to have died.
        lost:
            How many of them run by the record, but their worker has died.
        baseline_trials:
            How many of them evaluated the FP32 model.
        waiting:
            How many of them wait to be run.
        workers:
            The machines of the workers, with their number.
        seconds:
            For how long trials ran.
        last:
            When the last trial ended; :obj:`None` if none has.
        stopped:
            Why the last search of it ended; :obj:`None` if none has, or one is going on.
    """

    study: str
    outcome: str
    criterion: str
    objective: str
    baseline: float | None
    best: str
    best_trial: int | None
    other_params: dict[str, Any]
    evaluated: int
    trials: int
    failed: int
    running: int
    lost: int
    baseline_trials: int
    waiting: int
    workers: dict[str, int]
    seconds: float
    last: datetime | None
    stopped: str | None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        found = asdict(self)
        found["last"] = None if self.last is None else self.last.isoformat(timespec="seconds")
        return found

    def __str__(self) -> str:
        goes_on = ", and the search goes on" if self.outcome == "met" and self.running else ""
        lines = [f"study {self.study!r}: {self.outcome}{goes_on}"]
        lines.append(f"criterion: {self.criterion}; objective: {self.objective}")
        if self.baseline is not None:
            lines.append(f"FP32: metric {self.baseline:.6g}")
        if self.best:
            lines.append(f"{'best' if self.outcome == 'met' else 'closest'}: {self.best}")
        if self.other_params:
            shown = "; ".join(f"{name}={value}" for name, value in self.other_params.items())
            lines.append(f"its other parameters: {shown}")
        lines.append(f"trials: {self.trials} ({', '.join(self._counts())})")
        lines.append(f"workers: {self._shown_workers()}")
        ended = "" if self.last is None else f", the last trial ended {_ago(self.last)}"
        lines.append(f"time: {clock(self.seconds)} of evaluation{ended}")
        if self.stopped is not None:
            lines.append(f"stopped: {self.stopped}")
        return "\n".join(lines)

    def _counts(self) -> list[str]:
        """What became of the trials; the numbers add up to all of them."""
        failures = f", {self.failed} of them failed" if self.failed else ""
        counts = {
            f"evaluated{failures}": self.evaluated,
            "of the FP32 model": self.baseline_trials,
            "running": self.running,
            "whose worker has died": self.lost,
            "waiting": self.waiting,
        }
        rest = self.trials - sum(counts.values())
        counts["that repeat or continue another, or were cut short"] = rest
        shown = (f"evaluated{failures}", "running")
        return [f"{count} {what}" for what, count in counts.items() if count or what in shown]

    def _shown_workers(self) -> str:
        if not self.workers:
            return "none (no trial is running)"
        return ", ".join(f"{count} on {host}" for host, count in self.workers.items())


def status_of(study: optuna.Study) -> Status:
    """Where the search of a study stands.

    Args:
        study:
            The study, which is only read.
    """
    every = study.get_trials(deepcopy=False)
    trials = [trial for trial in every if not TrialView(trial).is_foreign]
    recorded, baseline = RecordedTrials(study), get_baseline(study)
    objective = _objective(recorded)
    alive = [trial for trial in running_now(study) if not TrialView(trial).is_foreign]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    found = candidates(study, recorded.criterion, trials)
    met = measured_first(study, ranked(found, objective), objective)
    nearest = met[0] if met else closest(found, objective)
    stopped = study.user_attrs.get(record.STOPPED_BECAUSE)
    best = ""
    if nearest is not None and baseline is not None:
        metric = shown_loss(nearest.metric, baseline.value, recorded.criterion)
        left_out = recorded_left_out(study, _PREFIX)
        best = shown_best(study, [nearest], objective, left_out=len(left_out))
        best = f"{best}, {metric}"
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
    return Status(
        study=study.study_name,
        outcome=(
            NOT_OURS
            if every and not trials
            else _outcome(bool(met), bool(trials), at_work=bool(alive))
        ),
        criterion=_criterion(study),
        objective=objective_name(study),
        baseline=None if baseline is None else baseline.value,
        best=best,
        best_trial=None if nearest is None else nearest.trial.number,
        other_params={} if nearest is None else nearest.view.other_params,
        evaluated=trials_used(trials),
        trials=len(trials),
        failed=trials_used(trial for trial in trials if trial.state == TrialState.FAIL),
        running=len(alive),
        lost=len(running) - len(alive),
        baseline_trials=sum(
            trial.state.is_finished() and TrialView(trial).is_baseline for trial in trials
        ),
        waiting=sum(trial.state == TrialState.WAITING for trial in trials),
        workers=_workers(alive),
        seconds=busy_seconds(trials),
        last=max(ended, default=None),
        stopped=stopped["message"] if stopped and not alive else None,
    )


def _objective(recorded: RecordedTrials) -> Objective:
    try:
        return recorded.objective()
    except ValueError:  # A function of the user's, which is not in the record.
        return MeasureObjective(OPS)


def _criterion(study: optuna.Study) -> str:
    recorded = recorded_criterion(study)
    if recorded is not None:
        return str(recorded)
    return f"none recorded, judged here by {criterion_or_default(study)}"


def _outcome(met: bool, has_trials: bool, *, at_work: bool) -> str:
    if met:
        return MET
    if not has_trials:
        return "not started"
    return "not met yet" if at_work else "not met"


def _workers(running: Sequence[FrozenTrial]) -> dict[str, int]:
    """How many processes are at work on each machine."""
    processes = {process_of(TrialView(trial).worker or "") for trial in running}
    hosts = [host_of(f"{process}|") for process in sorted(processes)]
    return {host: hosts.count(host) for host in dict.fromkeys(hosts)}


def _ago(moment: datetime) -> str:
    seconds = max(0.0, (datetime.now(moment.tzinfo) - moment).total_seconds())
    days, rest = divmod(seconds, 86400)
    return f"{days:.0f} days ago" if days >= 2 else f"{clock(days * 86400 + rest)} ago"
