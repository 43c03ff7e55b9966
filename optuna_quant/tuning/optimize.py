"""Run trials until there is an answer, then those that are enqueued."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.logging import get_logger

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.stop import keep_reason
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers._engine.contract import claim_timeout_of
from optuna_quant.study.drain import await_last_trials
from optuna_quant.study.drain import others_running
from optuna_quant.study.enqueued import is_for_space
from optuna_quant.study.enqueued import only_enqueued
from optuna_quant.study.enqueued import take_out_misfits
from optuna_quant.study.enqueued import waiting
from optuna_quant.tuning.quiet import without_trial_lines
from optuna_quant.workers.thread_interrupts import passed_on


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_logger = get_logger(__name__)


def optimize(
    study: optuna.Study,
    objective: QuantObjective,
    policy: ExitPolicy,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    *,
    n_jobs: int,
) -> Stop:
    """Run trials until the policy has enough; what was found before counts as well."""
    exit_policy = _NotesStop(policy)
    try:
        last = None
        take_out_misfits(study, objective.space)
        while True:
            stop = policy.decide(study)
            if stop is None:
                while not optimize_once(study, objective, [*callbacks, exit_policy], n_jobs):
                    pass
                stop = policy.decide(study)
            if stop is None and exit_policy.take():
                # What another worker has found since is not the final answer yet.
                continue
            if stop is None:
                stop = Stop(StopReason.CALLBACK, "A callback stopped the search.")
                break
            if _run_enqueued(study, objective, policy, callbacks, stop):
                continue
            # What others are still at may change the answer.
            last = others_running(study) if last is None else last
            timeout = claim_timeout_of(study.sampler)
            if not await_last_trials(study, last, timeout=timeout):
                stop = _of_now(stop, policy.decide(study))
                break
    except KeyboardInterrupt:
        stop = Stop(StopReason.INTERRUPTED, "The search was interrupted.")
    stop = _with_queue(stop, study)
    keep_reason(study, stop)
    return stop


def in_turn(
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
) -> Callable[[optuna.Study, FrozenTrial], None]:
    """Several callbacks as one, for those that do not change the trial that they are given.

    For each callback that Optuna knows of it copies the trial with all its attributes.
    """

    def call(study: optuna.Study, trial: FrozenTrial) -> None:
        for callback in callbacks:
            callback(study, trial)

    return call


class _NotesStop:
    """The exit policy as a callback, which knows whether it has stopped the study."""

    def __init__(self, policy: ExitPolicy) -> None:
        self._policy = policy
        self._stopped = False

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if self._policy.stop(study, trial):
            self._stopped = True

    def take(self) -> bool:
        """Whether it has since it was last asked."""
        stopped, self._stopped = self._stopped, False
        return stopped


def _of_now(stop: Stop, now: Stop | None) -> Stop:
    """The decision with what other workers have found since: every worker names one answer."""
    return now if now is not None and now.reason == stop.reason else stop


def _run_enqueued(
    study: optuna.Study,
    objective: QuantObjective,
    policy: ExitPolicy,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    stop: Stop,
) -> bool:
    """Evaluate what waits in the queue though the search has its answer: somebody asked for it.

    The limits of time and trials hold for it as well.

    Returns:
        Whether there was anything.
    """
    ran = False
    while stop.reason in (StopReason.MET, StopReason.EXHAUSTED, StopReason.NO_GAIN):
        take_out_misfits(study, objective.space)
        if 0 in (policy.trials_left(study), policy.seconds_left(study)):
            break
        if not any(is_for_space(trial, objective.space) for trial in waiting(study)):
            break
        only = only_enqueued(objective)
        ran = optimize_once(study, objective, callbacks, 1, n_trials=1, function=only) or ran
    return ran


def _with_queue(stop: Stop, study: optuna.Study) -> Stop:
    """The decision to stop, which says how many trials are left in the queue."""
    left = len(waiting(study))
    if not left or stop.reason == StopReason.INTERRUPTED:
        return stop
    told = "1 enqueued trial was" if left == 1 else f"{left} enqueued trials were"
    return Stop(stop.reason, f"{stop.message} {told} not evaluated.")


def optimize_once(
    study: optuna.Study,
    objective: QuantObjective,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    n_jobs: int,
    n_trials: int | None = None,
    function: Callable[[optuna.Trial], float] | None = None,
) -> bool:
    """Run trials; :obj:`False` if there are more to run, because one was lost to other workers."""
    threads = passed_on(objective.interrupt) if n_jobs != 1 else contextlib.nullcontext()
    try:
        with threads, _stopped_by_policy(study), without_trial_lines() as unlogged:
            study.optimize(
                unlogged(function or objective),
                n_trials=n_trials,
                callbacks=callbacks,
                n_jobs=n_jobs,
            )
    except (UpdateFinishedTrialError, ValueError, AssertionError) as error:
        if objective.baseline_error is not None:
            raise objective.baseline_error from objective.baseline_error.__cause__
        # Optuna cannot tell a trial that has ended: it says so with a ValueError, or stumbles.
        lost = objective.take_lost()
        if not lost and not _is_about_an_ended_trial(error):
            raise
        which = f"trial {', '.join(map(str, lost))}" if lost else "trial"
        _logger.warning(
            f"Other workers have ended this process's {which} as stale; it continues with "
            "another one. It had not written a heartbeat for too long, because it was "
            "suspended or could not reach the storage."
        )
        return False
    finally:
        objective.resume()
    return True


@contextlib.contextmanager
def _stopped_by_policy(study: optuna.Study) -> Iterator[None]:
    """Let the exit policy alone say when the search ends, which knows the queue and the limits."""
    sampler = study.sampler
    if not isinstance(sampler, QuantSampler):
        yield
        return
    before, sampler.stops_studies = sampler.stops_studies, False
    try:
        yield
    finally:
        sampler.stops_studies = before


def _is_about_an_ended_trial(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, UpdateFinishedTrialError):
            return True
        error = error.__cause__ or error.__context__
    return False
