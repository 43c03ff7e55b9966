"""When a study stops, and why."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import copy
import threading
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.callbacks.limits import check_limits
from optuna_quant.callbacks.spent import busy_seconds
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.callbacks.stop import Stop
from optuna_quant.callbacks.stop import StopReason
from optuna_quant.callbacks.stop import keep_reason
from optuna_quant.callbacks.stop_words import StopWords
from optuna_quant.callbacks.stop_words import nothing_left
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import Objective
from optuna_quant.costs.objective import ObjectiveLike
from optuna_quant.costs.objective import as_objective
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.criteria import check_is_criterion
from optuna_quant.criteria import check_one_criterion
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers._engine.contract import TellsAnswers
from optuna_quant.samplers._engine.contract import TellsExhaustion
from optuna_quant.samplers._engine.contract import criterion_of
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import fp32_trial
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.criterion import is_other_criterion
from optuna_quant.study.criterion import keep_criterion
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.study.criterion import warn_of_other_criterion
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.repeated_failures import RepeatedFailure
from optuna_quant.study.repeated_failures import repeated_failure
from optuna_quant.study.repeated_failures import try_single_ops
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_logger = get_logger(__name__)

# So many models in a row that were known already: what is left of the space is more of the same.
_MOST_REPEATS = 1000


class ExitPolicy:
    """End a study when the search has its answer, or a limit is reached (a callback).

    There are three ways to search:

    - ``timeout=0``: stop at the first configuration that meets the criterion. (Neither the FP32
      baseline nor an intermediate step of the strategy counts.)
    - ``timeout`` in seconds: search for that long, and keep the best that meets the criterion.
    - ``timeout=None``: search until ``max_trials``, or until the strategy has nothing left.

    The limits apply to the study as a whole, whichever worker runs its trials: the policy has no
    state of its own and reads the study. Time is the time during which at least one trial of the
    study ran, so breaks between runs do not count. If several workers share a study, each stops
    after its current trial, so up to one more trial per worker may be evaluated.

    Example:

        .. code-block:: python

            study.optimize(objective, callbacks=[ExitPolicy(criterion, timeout=600)])

        With the ask-and-tell interface, where callbacks are not called:

        .. code-block:: python

            while (stop := policy.decide(study)) is None:
                trial = study.ask()
                study.tell(trial, objective(trial))
            print(stop.message)

    Args:
        criterion:
            When a metric is good enough.
        timeout:
            Seconds; see above.
        max_trials:
            The maximum number of trials, whether complete, pruned or failed. The baseline, trials
            that reused the result of an equal model or continued with the samples of an earlier
            trial of the same model, and trials whose process was interrupted or killed do not
            count. :obj:`None`: no limit.
        objective:
            What is best among the configurations that meet the criterion, as
            :func:`optuna_quant.costs.as_objective` takes it. Default: the fewest ops in
            fallback.
        stop_at_first:
            Whether to stop at the first configuration that meets the criterion. Default: only if
            ``timeout`` is 0. With :obj:`True` and a timeout, whatever comes first.

    Raises:
        TypeError:
            If an argument has another type.
        ValueError:
            If an argument is out of its range; from :meth:`decide`, if the study's direction
            contradicts ``criterion.higher_is_better``.
    """

    def __init__(
        self,
        criterion: AccuracyCriterion,
        *,
        timeout: float | None = 0,
        max_trials: int | None = 100,
        objective: ObjectiveLike = OPS,
        stop_at_first: bool | None = None,
    ) -> None:
        check_is_criterion(criterion)
        check_limits(timeout, max_trials, stop_at_first)
        self._criterion = criterion
        self._timeout = timeout or None  # 0 is no limit of time.
        self._max_trials = max_trials
        self._objective = as_objective(objective)
        self._stop_at_first = timeout == 0 if stop_at_first is None else stop_at_first
        self._no_gain: str | None = None
        self._told: set[str] = set()  # Studies of which it was said that they had another one.
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @property
    def criterion(self) -> AccuracyCriterion:
        """When a metric is good enough."""
        return self._criterion

    @property
    def objective(self) -> Objective:
        """What is best among the configurations that meet the criterion."""
        return self._objective

    @property
    def stops_at_first(self) -> bool:
        """Whether the search ends at the first configuration that meets the criterion."""
        return self._stop_at_first

    def with_objective(self, objective: ObjectiveLike) -> ExitPolicy:
        """The same policy with another idea of what is best."""
        policy = copy.copy(self)
        policy._objective = as_objective(objective)
        return policy

    def without_gain(self, message: str) -> ExitPolicy:
        """The same policy for a study in which no quantized model is better than FP32.

        It ends as soon as the FP32 model was evaluated.

        Args:
            message:
                Why nothing is to be gained.
        """
        policy = copy.copy(self)
        policy._no_gain = message
        return policy

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Stop the study if it is time to; keep the reason in the study and log it.

        Raises:
            ValueError:
                As :meth:`decide`, or if the objective judges by another criterion.
        """
        self.stop(study, trial)

    def stop(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """What calling the policy does.

        Returns:
            Whether it has stopped the study.

        Raises:
            ValueError:
                As :meth:`decide`, or if the objective judges by another criterion.
        """
        self._check_judge(study, trial)
        stop = self.decide(study)
        keep_criterion(study, self._criterion)
        if stop is None:
            self._look_into_failures(study)
            return False
        keep_reason(study, stop)
        with self._lock:
            unsaid = self._unsaid(study, trial, stop)
            if unsaid is not None:
                _logger.info(unsaid)
            study.stop()
        return True

    def _unsaid(self, study: optuna.Study, trial: FrozenTrial, stop: Stop) -> str | None:
        """What is to be logged of a decision: not again what another thread has said.

        Nor what a sampler of ours has just said.
        """
        sampler = study.sampler
        if isinstance(sampler, QuantSampler) and sampler.has_stopped(study, trial.number):
            if stop.reason != StopReason.EXHAUSTED:
                return stop.message
            return self._words.best(
                candidates(study, self._criterion), study.get_trials(deepcopy=False)
            )
        return None if _optuna.is_stopping(study) else stop.message

    def decide(self, study: optuna.Study) -> Stop | None:
        """Whether to stop now, and why; :obj:`None` to go on. It changes nothing.

        Raises:
            ValueError:
                If the study's direction contradicts ``criterion.higher_is_better``, or its
                sampler or pruner judges by another criterion.
        """
        self._criterion.check_direction(study)
        check_one_criterion(
            exit_policy=self._criterion,
            sampler=criterion_of(study.sampler),
            pruner=criterion_of(study.pruner),
        )
        trials = study.get_trials(deepcopy=False)
        if self._no_gain is not None and fp32_trial(study, trials) is not None:
            return Stop(StopReason.NO_GAIN, self._no_gain)
        found = candidates(study, self._criterion, trials)
        if self._stop_at_first:
            answers = [c for c in found if c.met and is_answer(study, c.trial)]
            if answers:
                return Stop(StopReason.MET, self._words.met(answers))
        failure = None if found else _repeated_failure(study, trials)
        if failure is not None and failure.is_certain:
            message = (
                f"Every candidate failed in the same way ({failure.trials} trials of "
                f"{failure.configs} configurations, some with a single quantized op), so "
                f"nothing could be evaluated. The reason: {failure.reason}"
            )
            return Stop(StopReason.FAILING, message)
        elapsed = busy_seconds(trials)
        if self._timeout is not None and elapsed >= self._timeout:
            message = f"The time limit of {self._timeout:g} s is reached, after {elapsed:.0f} s."
            return Stop(StopReason.TIMEOUT, f"{message} {self._words.best(found, trials)}")
        used = trials_used(trials)
        if self._max_trials is not None and used >= self._max_trials:
            most = self._max_trials
            message = (
                f"All {most} trials are used up." if most > 1 else "The one trial is used up."
            )
            return Stop(StopReason.MAX_TRIALS, f"{message} {self._words.best(found, trials)}")
        if self._has_nothing_left(study, trials):
            message = f"{nothing_left(trials)} {self._words.best(found, trials)}"
            return Stop(StopReason.EXHAUSTED, message)
        repeats = _repeats_at_the_end(trials)
        if repeats >= _MOST_REPEATS:
            message = (
                f"The last {repeats} configurations gave models that had been evaluated before; "
                f"{used} trials were evaluated."
            )
            return Stop(StopReason.EXHAUSTED, f"{message} {self._words.best(found, trials)}")
        if not found:
            _warn_without_baseline(study, trials)
        return None

    def _look_into_failures(self, study: optuna.Study) -> None:
        trials = study.get_trials(deepcopy=False)
        failure = _repeated_failure(study, trials)
        if failure is not None and failure.open:
            assert isinstance(study.sampler, QuantSampler)
            try_single_ops(study, failure, study.sampler.space)

    def _check_judge(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Refuse an objective that judges by another criterion; the first trial tells.

        Where neither the objective nor the sampler judges, say that the study began with another.
        """
        view = TrialView(trial)
        if not view.is_judged:
            if criterion_of(study.sampler) is None and is_other_criterion(study, self._criterion):
                self._tell_of_other_criterion(study)
            return
        judge = view.judged_by or recorded_criterion(study)
        if judge is not None:
            check_one_criterion(exit_policy=self._criterion, objective=judge)

    def _tell_of_other_criterion(self, study: optuna.Study) -> None:
        with self._lock:
            is_new = study.study_name not in self._told
            self._told.add(study.study_name)
        if is_new:
            warn_of_other_criterion(study, self._criterion)

    def trials_left(
        self, study: optuna.Study, trials: Iterable[FrozenTrial] | None = None
    ) -> int | None:
        """How many more trials may be evaluated; :obj:`None` if there is no limit.

        Args:
            study:
                The study.
            trials:
                Its trials, if they have been read already.
        """
        if self._max_trials is None:
            return None
        known = study.get_trials(deepcopy=False) if trials is None else trials
        return max(0, self._max_trials - trials_used(known))

    def seconds_left(
        self, study: optuna.Study, trials: Iterable[FrozenTrial] | None = None
    ) -> float | None:
        """How much time is left; :obj:`None` if there is no limit.

        Args:
            study:
                The study.
            trials:
                Its trials, if they have been read already.
        """
        if self._timeout is None:
            return None
        known = study.get_trials(deepcopy=False) if trials is None else trials
        return max(0.0, self._timeout - busy_seconds(known))

    @property
    def _words(self) -> StopWords:
        return StopWords(self._objective)

    def _has_nothing_left(self, study: optuna.Study, trials: list[FrozenTrial]) -> bool:
        sampler = study.sampler
        return isinstance(sampler, TellsExhaustion) and sampler.is_exhausted(study, trials)


def is_answer(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Whether a trial that meets the criterion is an answer of the study's strategy.

    What one of our samplers has evaluated for a stage of its plan is an answer if the plan says
    so: the sampler knows what it has concluded. What the user has enqueued or added, and what
    another sampler has tried, is an answer in any case.

    Args:
        study:
            The study, with the sampler that has run the trial.
        trial:
            The trial; whether it meets the criterion is not looked at.
    """
    view = TrialView(trial)
    if view.is_probe:
        return False  # A single quantized op is no answer before the strategy has nothing left.
    claim = view.claim
    if claim is None or claim.stage in (record.ENQUEUED_STAGE, record.EXHAUSTED_STAGE):
        return True
    if isinstance(study.sampler, TellsAnswers):
        return study.sampler.is_answer(study, trial)
    return not claim.provisional


def _repeats_at_the_end(trials: list[FrozenTrial]) -> int:
    count = 0
    for view in map(TrialView, reversed(trials)):
        if view.reused_from is None:
            if view.is_complete or view.samples:
                break
            continue
        # What a race takes over is a step of a plan, and plans come to their end.
        count += view.fidelity == FULL
    return count


def _repeated_failure(
    study: optuna.Study, trials: Sequence[FrozenTrial]
) -> RepeatedFailure | None:
    """Whether all candidates fail alike, where the sampler is one of ours and knows them."""
    if not trials or trials[-1].state == TrialState.COMPLETE:
        return None  # Mostly, and told at once.
    if not isinstance(study.sampler, QuantSampler):
        return None
    return repeated_failure(study, trials, study.sampler.space)


def _warn_without_baseline(study: optuna.Study, trials: list[FrozenTrial]) -> None:
    sampler = study.sampler
    if isinstance(sampler, QuantSampler) and (
        sampler.criterion is not None or sampler.owes_baseline(study)
    ):
        return  # It measures the baseline, or says itself why there is none.
    if get_baseline(study) is None and not any(
        trial.state == TrialState.RUNNING for trial in trials
    ):
        done = sum(trial.state == TrialState.COMPLETE for trial in trials)
        if done:
            warn_user(
                "The study has no baseline, so no trial can be compared with the criterion. "
                "Use a sampler or the objective of optuna_quant, which measure it, or set it "
                "with optuna_quant.study.baseline.set_baseline."
            )
