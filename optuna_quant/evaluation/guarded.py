"""Run user code so that it can neither end this process nor block it forever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import TypeVar

from optuna_quant._optuna import fail_trial
from optuna_quant._optuna import frozen_trial
from optuna_quant.evaluation.timeout import EvaluationWatchdog
from optuna_quant.evaluation.trial_record import write_failure
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.study.slow_trials import suspicious_after
from optuna_quant.study.trial_writer import StoredTrialWriter


if TYPE_CHECKING:
    import optuna


_Result = TypeVar("_Result")


class GuardedEvaluation:
    """Runs the evaluations of this process, each within its time limit.

    Args:
        timeout:
            After how many seconds an evaluation is ended; :obj:`None` for never.
        on_stuck:
            Called with a message when an evaluation did not react, see
            :class:`~optuna_quant.evaluation.timeout.EvaluationWatchdog`.
    """

    def __init__(self, timeout: float | None, *, on_stuck: Callable[[str], None] | None) -> None:
        self._watch = EvaluationWatchdog(timeout, on_stuck=on_stuck)

    def run(
        self,
        trial: optuna.Trial,
        evaluate: Callable[[Callable[[], None]], _Result],
        *,
        can_be_asked: bool,
        of_baseline: bool = False,
    ) -> _Result:
        """Run the evaluation of a trial.

        Args:
            trial:
                The trial. It is marked as failed if its evaluation cannot be ended.
            evaluate:
                Is given a function that raises if it is late.
            can_be_asked:
                Whether it calls that function often.
            of_baseline:
                Whether it is the FP32 model that is evaluated.

        Raises:
            EvaluationTimeout:
                If it took too long.
        """
        study = trial.study
        what = f"The evaluation of trial {trial.number}"

        def give_up(reason: str) -> None:
            # Not by the trial, which holds back what it writes until it ends.
            frozen = frozen_trial(trial)
            writer = StoredTrialWriter(study, frozen)
            write_failure(writer, f"Not evaluated: {reason}", final=not of_baseline)
            fail_trial(study, frozen)

        with exits_are_errors("The evaluation"):
            return self._watch.run(
                evaluate,
                what=f"{what} (the FP32 model)" if of_baseline else what,
                give_up=give_up,
                usual_seconds=lambda: suspicious_after(study.get_trials(deepcopy=False)),
                can_be_asked=can_be_asked,
            )

    def run_outside(
        self,
        study: optuna.Study,
        evaluate: Callable[[], _Result],
        *,
        what: str,
        give_up: Callable[[str], None] | None = None,
    ) -> _Result:
        """Run an evaluation that is not of a trial; it may take as long as one of a trial.

        Args:
            study:
                The study.
            evaluate:
                Evaluates.
            what:
                What is evaluated, for messages.
            give_up:
                Called with the reason, in another thread, if it cannot be ended.

        Raises:
            EvaluationTimeout:
                If it took longer.
        """
        with exits_are_errors(what):
            return self._watch.run(
                lambda check: evaluate(),
                what=what,
                give_up=give_up,
                usual_seconds=lambda: suspicious_after(study.get_trials(deepcopy=False)),
            )

    def interrupt(self) -> None:
        """End the evaluations of all other threads, until :meth:`resume`."""
        self._watch.interrupt()

    def resume(self) -> None:
        """Let evaluations run again."""
        self._watch.resume()
