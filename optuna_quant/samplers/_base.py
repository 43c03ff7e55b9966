"""What all samplers of this package share: the study's record, claims, and Optuna's contract."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
from dataclasses import dataclass
from dataclasses import replace
import math
import threading
import time
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.samplers._enumeration import Enumeration
from optuna_quant.samplers._enumeration import Permutation
from optuna_quant.samplers._policy import Policy
from optuna_quant.samplers._policy import Proposal
from optuna_quant.samplers._reports import Abandoned
from optuna_quant.samplers._reports import Speculation
from optuna_quant.samplers._trial_history import Outcome
from optuna_quant.samplers._trial_history import TrialHistory
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.enqueued import valid_choices
from optuna_quant.study.liveness import TrialHeartbeats
from optuna_quant.study.liveness import TrialMonitor
from optuna_quant.study.liveness import reap
from optuna_quant.study.record_check import check_fallback_ops
from optuna_quant.study.record_check import check_record
from optuna_quant.study.space_signature import check_space
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.identity import is_this_process
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.config import QuantConfig


_logger = get_logger(__name__)

_BASELINE_PATIENCE_SECONDS = 600.0
_LONGEST_BETWEEN_LOOKS_SECONDS = 0.5
_MOST_BACKWARDS_SECONDS = 0.5
# How much of a trial's time may pass before a worker that waits for its end notices it.
_PART_OF_A_TRIAL = 0.02


@dataclass
class _StudyState:
    """What a sampler keeps of one study."""

    storage: object  # Held so that its identity is not used again.
    history: TrialHistory
    policy: Policy
    spare: Policy
    ignored: set[int]  # Running trials that were silent for too long, or that are not ours.
    configs: dict[int, QuantConfig]  # By trial number, from the claim to the trial's end.
    first: set[int]  # The trials among them whose configuration was chosen as a new one.
    monitor: TrialMonitor
    heartbeats: TrialHeartbeats


class QuantSampler(BaseSampler, abc.ABC):
    """Base class of the samplers that search a tuning space.

    It evaluates every configuration at most once, whoever asks: the trial's number is the ticket.
    A trial claims a configuration only when every running trial with a lower number has claimed
    its own, so that two workers never choose at the same time. Claims of failed trials, and of
    trials whose worker has died, go back into the pool; a death is noticed at once on the same
    machine, and otherwise when the trial has given no sign of life for ``claim_timeout``.

    The first trial evaluates the FP32 model, as the study's baseline, if the space has it.
    Parameters that are not the space's get their value from ``independent_sampler``.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough. If given, it is written to each trial as a constraint
            (unless the objective has done so).
        independent_sampler:
            The sampler of all other parameters. Default: Optuna's random sampler.
        seed:
            The seed of everything random. Workers of one study use the same.
        baseline:
            Whether the first trial evaluates the FP32 model.
        max_failures:
            After how many failed evaluations a configuration is abandoned.
        max_deaths:
            After how many trials that ended with their worker (killed, out of memory, machine
            lost) a configuration is abandoned.
        grace_period:
            How long, in seconds, a trial waits for an earlier one that does not say whose it is:
            another sampler's, or one whose worker died before it could say anything.
        claim_timeout:
            For how long, in seconds, a running trial is respected whose worker is on another
            machine and gives no sign of life. Signs are given six times in that time, at least
            every 30 s. The same for all workers. :obj:`None` if nobody is to be taken for dead,
            as when one process asks and, after its end, another one tells.

    Raises:
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        criterion: AccuracyCriterion | None = None,
        independent_sampler: BaseSampler | None = None,
        seed: int = 0,
        baseline: bool = True,
        max_failures: int = 3,
        max_deaths: int = 10,
        grace_period: float = 5.0,
        claim_timeout: float | None = 180.0,
    ) -> None:
        if not isinstance(space, TuningSpace):
            raise TypeError(
                f"space must be a TuningSpace, such as backend.tuning_space() gives, but got "
                f"{space!r}."
            )
        for name, count in (("max_failures", max_failures), ("max_deaths", max_deaths)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, but got {count}.")
        for name, value in (("grace_period", grace_period), ("claim_timeout", claim_timeout)):
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, but got {value}.")
        self._space = space
        self._criterion = criterion
        self._independent = independent_sampler or RandomSampler(seed=seed)
        self._seed = seed
        self._baseline = baseline
        self._max_failures = max_failures
        self._max_deaths = max_deaths
        self._grace_period = grace_period
        self._claim_timeout = claim_timeout
        self._distributions = space.distributions()
        self._states: dict[tuple[int, int], _StudyState] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        state["_states"] = {}  # It is only derived from the record.
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @property
    def space(self) -> TuningSpace:
        """The tuning space."""
        return self._space

    @property
    def criterion(self) -> AccuracyCriterion | None:
        """When a metric is good enough, if the sampler knows."""
        return self._criterion

    @property
    def claim_timeout(self) -> float | None:
        """After how many seconds without a sign of life a worker elsewhere is taken for dead."""
        return self._claim_timeout

    @property
    def measures_baseline(self) -> bool:
        """Whether the first trial evaluates the FP32 model."""
        return self._baseline and self._space.has_fp32

    @abc.abstractmethod
    def _policy(self, history: TrialHistory) -> Policy:
        """A new search, before anything of it is known."""

    def is_exhausted(
        self, study: optuna.Study, trials: Sequence[FrozenTrial] | None = None
    ) -> bool:
        """Whether everything that this sampler would evaluate has been evaluated.

        After that, it gives configurations that have not been evaluated yet as long as there are
        any, then repeats; it never stops the study by itself.

        Args:
            study:
                The study.
            trials:
                All its trials, if they have just been read.
        """
        with self._lock:
            state = self._state(study)
            self._look(study, state, trials)  # Nobody else may come to reap the last of the dead.
            return not self._owes_baseline(state.history) and state.policy.is_over(state.history)

    def is_first(self, study: optuna.Study, number: int) -> bool:
        """Whether a running trial of this process evaluates what nobody had evaluated before.

        Not so if its configuration was given, or if nothing else was left.
        """
        return number in self._state(study).first

    def is_answer(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that meets the criterion answers the search.

        A strategy may pass the criterion on its way, as when it starts from the FP32 model; what
        it has not concluded is not its answer.
        """
        key = self._space.key_from_params(trial.params)
        with self._lock:
            state = self._state(study)
            state.history.refresh(study)
            return key is not None and state.policy.is_answer(state.history, key)

    def speculation(self, study: optuna.Study) -> Speculation:
        """How much was evaluated on a guess, and how much of it the strategy has asked for since.

        A worker guesses rather than waits for what others still evaluate.
        """
        with self._lock:
            state = self._state(study)
            state.history.refresh(study)
            guessed = {
                self._space.key_from_params(trial.params)
                for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
                if (claim := record.claim_of(trial)) is not None and claim.speculative
            }
            used = sum(
                key is not None and state.policy.has_asked_for(state.history, key)
                for key in guessed
            )
            return Speculation(len(guessed), used)

    def abandoned(self, study: optuna.Study) -> tuple[Abandoned, ...]:
        """The configurations that are not tried any more, because every attempt failed."""
        with self._lock:
            state = self._state(study)
            state.history.refresh(study)
            return state.history.abandoned()

    # Optuna's contract.

    def reseed_rng(self) -> None:
        """Reseed the sampler of the other parameters; the search itself is a pure function."""
        self._independent.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Claim a configuration for the trial."""
        try:
            self._independent.before_trial(study, trial)
            self._begin(study, trial)
        except BaseException:
            # Whoever asked has no trial to tell, and the others would wait for its claim.
            with contextlib.suppress(Exception):
                _optuna.fail_trial(study, trial)
            raise

    def _begin(self, study: optuna.Study, trial: FrozenTrial) -> None:
        begun = time.monotonic()
        mark = {"number": trial.number, "worker": this_worker()}
        _optuna.set_trial_system_attr(study, trial, record.WORKER, mark)
        heartbeats = self._state(study).heartbeats
        heartbeats.start(trial)
        try:
            self._claim(study, trial, begun)
        except BaseException:
            heartbeats.end(trial.number)
            raise

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters of the tuning space."""
        return dict(self._distributions)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The parameters of the configuration that the trial has claimed."""
        state = self._state(study)
        config = state.configs.get(trial.number)
        if config is None and any(name in self._distributions for name in search_space):
            config = self._claim(study, trial, time.monotonic())
        params = {} if config is None else self._space.params_of(config)
        return {
            name: params[name]
            if name in params
            else self._independent.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of a parameter that is not the space's."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Keep the baseline, and write the criterion as a constraint if nobody has."""
        self._independent.after_trial(study, trial, state, values)
        try:
            self._conclude(study, trial, state, values)
        finally:
            # Not before: it may have had to wait for the baseline.
            self._state(study).heartbeats.end(trial.number)

    def _constrains(self, study: optuna.Study) -> bool:
        """Whether what does not meet the criterion is infeasible."""
        return True

    def _conclude(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._state(study).first.discard(trial.number)
        config = self._state(study).configs.pop(trial.number, None)
        if state == TrialState.FAIL:
            _optuna.set_trial_system_attr(study, trial, record.FAILED, True)
        key = self._space.key_from_params(trial.params)
        if key is None or state != TrialState.COMPLETE or not values:
            return
        if config is None or config.key != key:
            config = self._space.config_from_params(trial.params)
        if key == self._space.fp32().key and record.get_baseline(study) is None:
            record.set_baseline(study, record.Baseline(values[0], trial.number))
        if not self._constrains(study):
            return
        if record.QUANTIZED not in trial.constraints and not config.quantized_ops:
            _optuna.set_constraint(study, trial, record.QUANTIZED, 1.0)
        if self._criterion is not None and record.ACCURACY not in trial.constraints:
            baseline = self._await_baseline(study)
            if baseline is not None:
                violation = self._criterion.violation(values[0], baseline.value)
                _optuna.set_constraint(study, trial, record.ACCURACY, violation)

    # Claims.

    def _state(self, study: optuna.Study) -> _StudyState:
        storage, study_id = _optuna.study_identity(study)
        with self._lock:
            state = self._states.get((id(storage), study_id))
            if state is None:
                check_record(study)
                check_space(study, self._space)
                check_fallback_ops(study, self._space)
                history = TrialHistory(
                    study,
                    self._space,
                    max_failures=self._max_failures,
                    max_deaths=self._max_deaths,
                    criterion=self._criterion,
                )
                monitor = TrialMonitor(self._claim_timeout)
                state = _StudyState(
                    storage,
                    history,
                    self._policy(history),
                    self._spare_policy(),
                    set(),
                    {},
                    set(),
                    monitor,
                    TrialHeartbeats(study, self._claim_timeout, monitor),
                )
                self._states[(id(storage), study_id)] = state
            return state

    def _spare_policy(self) -> Policy:
        size = self._space.count(fallback=True)
        return Enumeration(
            self._space,
            Permutation(size, seed=self._seed),
            fallback=True,
            stage=record.EXHAUSTED_STAGE,
        )

    def _wait_for_turn(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Wait until every earlier running trial has claimed, or has been silent for too long.

        At the end the record has just been read.
        """
        state = self._state(study)
        silent_since: dict[int, float] = {}
        backoff = Backoff()
        while True:
            now = time.monotonic()
            with self._lock:
                self._look(study, state)
                waiting_for = [
                    other
                    for other in state.history.running.values()
                    if other.number < trial.number
                    and other.number not in state.ignored
                    and not record.has_claimed(other)
                    and not other.params  # With parameters and no claim it is not ours.
                ]
                for other in waiting_for:
                    # One that is known to be ours may be computing what all need.
                    if record.worker_of(other) is None:
                        since = silent_since.setdefault(other.number, now)
                        if now - since >= self._grace_period:
                            state.ignored.add(other.number)
            if not waiting_for:
                return
            # The last of them claims when all before it have.
            self._await_claim(study, waiting_for[-1], backoff, ahead=len(waiting_for))

    def _await_claim(
        self, study: optuna.Study, other: FrozenTrial, backoff: Backoff, *, ahead: int
    ) -> None:
        """Wait a little, until another trial has claimed if that is cheap to see."""
        until = time.monotonic() + _LONGEST_BETWEEN_LOOKS_SECONDS
        while True:
            backoff(ahead=ahead)
            attrs = _optuna.quick_system_attrs(study, other)
            if attrs is None or attrs.get(record.CLAIM) or time.monotonic() >= until:
                return

    def _claim(self, study: optuna.Study, trial: FrozenTrial, begun: float) -> QuantConfig:
        """Choose a configuration and claim it; waits for the trial's turn.

        Args:
            study:
                The study.
            trial:
                The trial.
            begun:
                When the trial was begun at the latest, as :func:`time.monotonic` tells.
        """
        state = self._state(study)
        backoff = Backoff(longest=min(0.5, max(0.05, _PART_OF_A_TRIAL * state.history.longest)))
        fixed = trial.system_attrs.get("fixed_params")
        if fixed is not None and not fixed.keys() & self._distributions.keys():
            # From the queue: trials with higher numbers may be at work already.
            begun = -math.inf
            self._let_pass(study, trial)
        self._wait_for_turn(study, trial)
        while True:
            with self._lock:
                proposal = self._choose(study, state, trial)
                if proposal is not None:
                    before = state.history.outcomes.get(proposal.config.key)
                    state.configs[trial.number] = proposal.config
                    claim = record.Claim(
                        trial.number,
                        proposal.config.key,
                        proposal.stage,
                        this_worker(),
                        proposal.provisional,
                        proposal.speculative,
                        proposal.goal,
                        state.history.broken_promises,
                        proposal.positions,
                    )
                    _optuna.set_trial_system_attr(study, trial, record.CLAIM, claim.to_attr())
                    in_time = not state.ignored & state.history.running.keys()
                    in_time = in_time and self._is_in_time(trial, begun)
                    if proposal.forced:
                        return proposal.config
                    if in_time or not self._is_contested(study, state, claim, before):
                        state.first.add(trial.number)
                        return proposal.config
                    _optuna.set_trial_system_attr(study, trial, record.CLAIM, None)
            backoff(ahead=1)
            if proposal is not None:
                begun = -math.inf  # From now on, make sure.
                self._let_pass(study, trial)
                self._wait_for_turn(study, trial)
            else:
                with self._lock:
                    self._look(study, state)

    def _let_pass(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let later trials claim that have looked before this one was there, or without a claim.

        They may be about to claim without another look; after half the grace period they look.
        """
        state = self._state(study)
        until = time.monotonic() + self._grace_period / 2
        backoff = Backoff()
        while time.monotonic() < until:
            with self._lock:
                self._look(study, state)
                later = [
                    other
                    for other in state.history.running.values()
                    if other.number > trial.number and record.claim_of(other) is None
                ]
            if not later:
                return
            backoff(ahead=len(later))

    def _is_in_time(self, trial: FrozenTrial, begun: float) -> bool:
        """Whether nobody can have ceased to wait for the trial's claim.

        By two clocks: the trial may have been visible long before this process went on with it,
        and its start may be by the clock of another machine. Half the time is kept in reserve.
        """
        if time.monotonic() - begun >= self._grace_period / 2 or trial.datetime_start is None:
            return False
        started = trial.datetime_start.timestamp()
        return -_MOST_BACKWARDS_SECONDS < time.time() - started < self._grace_period / 2

    def _look(
        self,
        study: optuna.Study,
        state: _StudyState,
        trials: Sequence[FrozenTrial] | None = None,
    ) -> None:
        """Read the record; what dead workers have claimed goes back into the pool."""
        state.history.refresh(study, trials)
        if reap(study, state.monitor, state.history.running):
            state.history.refresh(study)

    def _is_contested(
        self,
        study: optuna.Study,
        state: _StudyState,
        claim: record.Claim,
        before: Outcome | None,
    ) -> bool:
        """Whether another running trial claimed the same.

        That happens only if one of the two did not wait for the other any longer, because the
        storage was slow or a process stood still. Whoever sees it takes the claim back, so that
        of two that claimed at the same time at most one goes on.
        """
        state.history.refresh(study)
        if state.history.outcomes.get(claim.key) != before:  # The other one has even ended.
            return True
        return any(
            theirs is not None and theirs.key == claim.key and number != claim.number
            for number, other in state.history.running.items()
            for theirs in (record.claim_of(other),)
        )

    def _choose(
        self, study: optuna.Study, state: _StudyState, trial: FrozenTrial
    ) -> Proposal | None:
        fixed = {**trial.params, **trial.system_attrs.get("fixed_params", {})}
        # As Optuna does, which warns of it: a value that is no choice does not count.
        fixed = valid_choices(fixed, self._distributions)
        if self._space.key_from_params(fixed) is not None:
            return self._given(self._space.config_from_params(fixed))
        claimed = state.history.claims(without={trial.number})
        proposal = self._choose_free(study, state, claimed)
        if proposal is None or not fixed:
            return proposal
        params = self._space.params_of(proposal.config) | fixed
        return self._given(self._space.config_from_params(params))

    def _given(self, config: QuantConfig) -> Proposal:
        is_fp32 = config.key == self._space.fp32().key
        stage = record.BASELINE_STAGE if is_fp32 else record.ENQUEUED_STAGE
        return Proposal(config, stage, forced=True)

    def _choose_free(
        self, study: optuna.Study, state: _StudyState, claimed: Mapping[str, int]
    ) -> Proposal | None:
        history = state.history
        if self._owes_baseline(history) and self._space.fp32().key not in claimed:
            return Proposal(self._space.fp32(), record.BASELINE_STAGE)
        proposal = state.policy.next(history, claimed)
        if proposal is not None:
            return proposal
        if state.policy.is_blocked(history):
            return None
        is_over = state.policy.is_over(history)
        if not is_over and self._should_wait(claimed.values(), history):
            return None
        spare = state.spare.next(history, claimed)
        last = Proposal(self._repeatable(history), record.EXHAUSTED_STAGE, forced=True)
        if is_over:
            return spare or last
        if spare is None and self._others_run(claimed.values(), history):
            return None
        # Others still run what the search waits for: one more point in the record, no answer.
        return replace(spare or last, stage=record.SPARE_STAGE, provisional=True, speculative=True)

    def _repeatable(self, history: TrialHistory) -> QuantConfig:
        """What is given when nothing is left: not what fails, or hangs, each time."""
        default = self._space.default()
        outcome = history.outcomes.get(default.key)
        if outcome is not None and outcome.state == TrialState.FAIL:
            for other in history.outcomes.values():
                if other.is_complete and not other.is_substitute:
                    return self._space.config_from_params(other.params)
        return default

    def _should_wait(self, claimants: Iterable[int], history: TrialHistory) -> bool:
        """Whether to wait for what is claimed when nothing else is left to do.

        Args:
            claimants:
                The numbers of the trials whose claims are respected.
            history:
                The record.
        """
        return self._others_run(claimants, history)

    def _others_run(self, claimants: Iterable[int], history: TrialHistory) -> bool:
        """Whether what is claimed may end while we wait: this very thread runs none of it."""
        workers = {record.worker_of(history.running[number]) for number in claimants}
        return bool(workers) and this_worker() not in workers

    def _owes_baseline(self, history: TrialHistory) -> bool:
        fp32 = self._space.fp32()
        return self.measures_baseline and fp32.key not in history.outcomes

    def _await_baseline(self, study: optuna.Study) -> record.Baseline | None:
        """The baseline; waits while another worker that lives measures it.

        A thread of this process that has asked for it may itself wait for this one: not for ever.
        """
        deadline = time.monotonic() + _BASELINE_PATIENCE_SECONDS
        backoff = Backoff()
        while (baseline := record.get_baseline(study)) is None:
            with self._lock:
                state = self._state(study)
                self._look(study, state)
                worker = state.history.worker_of(self._space.fp32().key)
            # What this very thread has asked for and not told cannot end while we wait.
            late = time.monotonic() > deadline
            if worker in (None, this_worker()) or (late and is_this_process(worker)):
                return record.get_baseline(study)
            backoff()
        return baseline
