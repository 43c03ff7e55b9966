"""A sampler's view of a study's trials: the finished, the running and the failed ones."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import copy
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import datetime
import math
from typing import TYPE_CHECKING
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.samplers._engine.reports import Abandoned
from optuna_quant.sequential import Decision
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.population_record import read_population
from optuna_quant.study.repeated_failures import failures_from
from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.sequential import Population
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class Outcome:
    """What is known about one evaluated configuration.

    Args:
        key:
            The key of the configuration.
        number:
            The trial that counts: the first complete one, else of the pruned ones that with the
            most samples (of equal ones the first), else the last failed one.
        state:
            That trial's state.
        value:
            The metric; :obj:`None` if there is none.
        score:
            The metric turned so that higher is better; minus infinity if there is none.
        violation:
            By how much the criterion is violated (not above zero: met); :obj:`None` if the trial
            does not say.
        params:
            That trial's parameters, not copied; some may be missing if it failed.
        view:
            What the trial says of itself; :obj:`None` if it failed.
        is_substitute:
            Whether another configuration was evaluated in the place of this one.
    """

    key: str
    number: int
    state: TrialState
    value: float | None
    score: float
    violation: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    view: TrialView | None = field(default=None, repr=False, compare=False)
    is_substitute: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the configuration was evaluated in full."""
        return self.state == TrialState.COMPLETE

    @property
    def samples(self) -> int | None:
        """How many samples it was evaluated on; :obj:`None` if single samples are not known."""
        return None if self.view is None else self.view.samples

    @property
    def decision(self) -> Decision:
        """What the trial itself has concluded from its samples."""
        return Decision.OPEN if self.view is None else self.view.decision

    @property
    def is_partial(self) -> bool:
        """Whether further samples can be evaluated."""
        return self.state == TrialState.PRUNED and self.samples is not None


class TrialHistory:
    """The outcome of every configuration that a study holds, by key.

    Args:
        study:
            The study.
        space:
            The space whose parameters are read.
        max_failures:
            After how many failed evaluations a configuration is abandoned.
        max_deaths:
            After how many trials that ended with their worker it is.
        criterion:
            When a metric is good enough, if that is known.

    A finished trial is read once. Of one configuration, the first complete trial counts,
    otherwise the pruned one that has seen most; :attr:`epoch` goes up when an outcome that was
    known before has changed, so that conclusions from it can be drawn again.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: TuningSpace,
        *,
        max_failures: int,
        max_deaths: int,
        criterion: AccuracyCriterion | None = None,
    ) -> None:
        self.study = study
        self._space = space
        self._criterion = criterion
        self._baseline_key = space.fp32().key
        self._most = {True: max_failures, False: max_deaths}
        self._minimize = study.directions[0] == StudyDirection.MINIMIZE
        self._failures_from = failures_from(study)
        self._read = 0
        self._unfinished: set[int] = set()
        self._outcomes: dict[str, Outcome] = {}
        self._failures: dict[tuple[str, bool], int] = {}
        self._pruned_baselines = 0
        self._abandoned: dict[str, Abandoned] = {}
        self.running: dict[int, FrozenTrial] = {}
        self.longest = 0.0
        self.epoch = 0
        self.revision = 0
        self._baseline: float | None = None
        self._population: Population | None = None
        self._knows_population = False
        self._promised: set[str] = set()
        self._failed_to_meet: set[str] = set()
        self._ahead: dict[int, TrialState] = {}
        self.is_wrong = False

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The outcome of each configuration, by key, in the order in which they came in."""
        return self._outcomes

    @property
    def population(self) -> Population | None:
        """The samples; :obj:`None` if the study keeps none, as before the baseline is known."""
        # It is written before the baseline.
        if not self._knows_population and get_baseline(self.study) is not None:
            self._population = read_population(self.study)
            self._knows_population = True
        return self._population

    @property
    def baseline(self) -> float | None:
        """The metric of the FP32 model, if it is known: the study's, by which all is judged."""
        if self._baseline is None:
            stored = get_baseline(self.study)
            self._baseline = None if stored is None else stored.value
        if self._baseline is not None:
            return self._baseline
        outcome = self.fp32
        return None if outcome is None else outcome.value

    @property
    def fp32(self) -> Outcome | None:
        """What a complete trial of the FP32 model has found, if there is one."""
        outcome = self._outcomes.get(self._baseline_key)
        if outcome is None or outcome.is_substitute or not outcome.is_complete:
            return None  # What a pruned one has reported last is no metric.
        return outcome

    @property
    def baseline_attempts(self) -> int:
        """How many trials of the FP32 model were pruned, or failed by themselves."""
        return self._pruned_baselines + self._failures.get((self._baseline_key, True), 0)

    @property
    def threshold(self) -> float | None:
        """The worst metric that meets the criterion as it is now, if both are known."""
        baseline = None if self._criterion is None else self.baseline
        if self._criterion is None or baseline is None:
            return None
        return self._criterion.threshold(baseline)

    @property
    def broken_promises(self) -> int:
        """How many configurations were promised to meet the criterion, and then did not."""
        return len(self._promised & self._failed_to_meet)

    @property
    def size(self) -> int:
        """The number of trials that the study holds, whatever their state."""
        return self._read

    def refresh(self, study: optuna.Study, trials: Sequence[FrozenTrial] | None = None) -> None:
        """Read what is new in the study.

        Args:
            study:
                The study.
            trials:
                All its trials, if they have just been read.
        """
        self.study = study
        if trials is None or len(trials) < self._read:
            trials = _optuna.all_trials(study)
        for number, state in list(self._ahead.items()):
            if trials[number].state.is_finished():
                self.is_wrong |= trials[number].state != state
                del self._ahead[number]
        self.running = {}
        for number in sorted(self._unfinished):
            self._take(trials[number])
        for trial in trials[self._read :]:
            self._take(trial)
        self._read = max(self._read, len(trials))

    def take_ahead(
        self,
        study: optuna.Study,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Read what is new, and take a trial as ended that is just about to be written so.

        If the study then says otherwise, :attr:`is_wrong` is set: all is to be read again.

        Args:
            study:
                The study.
            number:
                The number of the trial.
            state:
                How it ends.
            values:
                What it has found.
        """
        trials = list(_optuna.all_trials(study))
        if not trials[number].state.is_finished():
            ended = trials[number] = copy.copy(trials[number])
            ended.state = state
            ended.values = None if values is None else list(values)
            ended.datetime_complete = datetime.now()
        self.refresh(study, trials)
        self._ahead[number] = state

    def _take(self, trial: FrozenTrial) -> None:
        if not trial.state.is_finished():
            self._unfinished.add(trial.number)
            if trial.state == TrialState.RUNNING:
                self.running[trial.number] = trial
            return
        self._unfinished.discard(trial.number)
        self.revision += 1
        if trial.duration is not None:
            self.longest = max(self.longest, trial.duration.total_seconds())
        key, view = self._space.key_from_params(trial.params), TrialView(trial)
        claim = view.claim
        if trial.state == TrialState.FAIL:
            key = key or (claim.key if claim else None)
            forgiven = trial.number < self._failures_from and view.has_failed_itself
            if key is not None and not forgiven and not view.is_interrupted:
                self._fail(key, view)
        elif key is not None:
            self._pruned_baselines += key == self._baseline_key and not view.is_complete
            self._settle(self._outcome(key, view))
            if claim is not None and claim.key != key:
                # Another sampler decided on the parameters (PartialFixedSampler does): what was
                # claimed will not come, and this is what came in its place.
                self._settle(replace(self._outcome(claim.key, view), is_substitute=True))

    def _outcome(self, key: str, view: TrialView) -> Outcome:
        value = view.metric
        if value is None or math.isnan(value):
            score = -math.inf
        else:
            score = -value if self._minimize else value
        return Outcome(
            key, view.number, view.state, value, score, view.violation, view.trial.params, view
        )

    def _settle(self, outcome: Outcome) -> None:
        if outcome.decision is Decision.PROVISIONALLY_MET:
            self._promised.add(outcome.key)
        elif outcome.decision is Decision.FAILS:
            self._failed_to_meet.add(outcome.key)
        known = self._outcomes.get(outcome.key)
        if known is not None:
            if _rank(known) <= _rank(outcome):
                return
            self.epoch += 1
        self._outcomes[outcome.key] = outcome

    def _fail(self, key: str, view: TrialView) -> None:
        """Count a failed trial; of evaluations that failed, and of workers that died, apart."""
        evaluated = view.has_failed_itself
        count = self._failures[key, evaluated] = self._failures.get((key, evaluated), 0) + 1
        final = view.failure_is_final
        known = self._outcomes.get(key)
        if (final or count >= self._most[evaluated]) and (known is None or known.is_partial):
            # Of what was seen of it nothing more will come.
            self.epoch += known is not None
            self._abandoned[key] = Abandoned(key, view.number, _why(view, evaluated, count))
            self._outcomes[key] = Outcome(
                key, view.number, view.state, None, -math.inf, params=view.trial.params
            )

    def abandoned(self) -> tuple[Abandoned, ...]:
        """The configurations that are not tried again, and that were never evaluated."""
        return tuple(
            found
            for key, found in self._abandoned.items()
            if self._outcomes[key].state == TrialState.FAIL
        )

    def others_run(self, claimants: Iterable[int]) -> bool:
        """Whether what is claimed may end while this thread waits: it runs none of it.

        Args:
            claimants:
                The numbers of the trials that have claimed it.
        """
        workers = {TrialView(self.running[number]).worker for number in claimants}
        return bool(workers) and this_worker() not in workers

    def claims(self, *, without: Collection[int] = ()) -> dict[str, int]:
        """The keys that running trials have claimed, each with the lowest trial number.

        Args:
            without:
                The numbers of trials whose claims do not count.
        """
        claimed: dict[str, int] = {}
        for number, trial in self.running.items():
            if number in without:
                continue
            claim = TrialView(trial).claim
            key = claim.key if claim else self._space.key_from_params(trial.params)
            if key is not None:
                claimed.setdefault(key, number)
        return claimed


def _why(view: TrialView, evaluated: bool, count: int) -> str:
    if not evaluated:
        return f"its worker died, {count} times"
    reason = view.failure or "the evaluation failed"
    return f"{reason}" if count == 1 else f"{reason} ({count} times)"


def _rank(outcome: Outcome) -> tuple[int, int, int]:
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    state = outcome.is_substitute * len(order) + order.index(outcome.state)
    seen = (outcome.samples or 0) if outcome.state == TrialState.PRUNED else 0
    return state, -seen, outcome.number
