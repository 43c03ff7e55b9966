"""A sampler's session in one study: it reads the record, claims and writes heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import math
import threading
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.samplers._engine.reports import Speculation
from optuna_quant.study import record
from optuna_quant.study.baseline import measures_baseline
from optuna_quant.study.baseline import who_measures
from optuna_quant.study.claims import ClaimQueue
from optuna_quant.study.claims import is_claimed_twice
from optuna_quant.study.enqueued import waiting
from optuna_quant.study.liveness import TrialHeartbeats
from optuna_quant.study.liveness import TrialMonitor
from optuna_quant.study.liveness import reap
from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.policy import Proposal
    from optuna_quant.samplers._engine.proposer import Proposer
    from optuna_quant.samplers._engine.trial_history import Outcome
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

# How much of a trial's time may pass before a worker that waits for its end notices it.
_PART_OF_A_TRIAL = 0.02


class StudySession:
    """The state of a sampler in one study; all of it can be derived from the record.

    Args:
        study:
            The study.
        space:
            The tuning space.
        criterion:
            When a metric is good enough; None if the sampler does not know.
        history:
            The trials of the study.
        proposer:
            What is to be evaluated.
        claim_timeout:
            See :class:`~optuna_quant.samplers.QuantSampler`.
        grace_period:
            The same.
        lock:
            Held while the session looks and chooses.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: TuningSpace,
        criterion: AccuracyCriterion | None,
        history: TrialHistory,
        proposer: Proposer,
        *,
        claim_timeout: float | None,
        grace_period: float,
        lock: threading.RLock,
    ) -> None:
        self._storage, _ = _optuna.study_identity(study)  # So that its identity is not used again.
        self.space = space
        self.criterion = criterion
        self.history = history
        self._proposer = proposer
        self._lock = lock
        self._monitor = TrialMonitor(claim_timeout)
        self._heartbeats = TrialHeartbeats(study, claim_timeout, self._monitor)
        self._queue = ClaimQueue(self.look, grace_period=grace_period)
        self._configs: dict[int, QuantConfig] = {}  # By trial, from the claim to the trial's end.
        self._said: set[str] = set()
        self.stopped_after: int | None = None
        """The number of the trial at whose end the sampler has stopped the study, and said so."""
        self._new: set[int] = set()  # The trials among them that evaluate something new.

    @property
    def policy(self) -> Policy:
        """The policy of the sampler in this study."""
        return self._proposer.policy

    def look(
        self, study: optuna.Study, trials: Sequence[FrozenTrial] | None = None
    ) -> Mapping[int, FrozenTrial]:
        """Read the record; claims of stale trials become free again.

        Args:
            study:
                The study.
            trials:
                All its trials, if they have just been read.

        Returns:
            The running trials, by number.
        """
        with self._lock:
            self.history.refresh(study, trials)
            if reap(study, self._monitor, self.history.running):
                self.history.refresh(study)
            return self.history.running

    def speculation(self, study: optuna.Study) -> Speculation:
        """How much was evaluated on a guess, and how much of it has been asked for since."""
        with self._lock:
            guessed = {
                self.space.key_from_params(trial.params)
                for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
                if (claim := TrialView(trial).claim) is not None and claim.speculative
            }
            used = sum(
                key is not None and self.policy.has_asked_for(self.history, key) for key in guessed
            )
            return Speculation(len(guessed), used)

    def who_measures(self, study: optuna.Study) -> str | None:
        """The worker that evaluates the FP32 model now; :obj:`None` if none that lives does."""
        with self._lock:
            return who_measures(self.look(study).values(), self.space.fp32().key)

    def owes_baseline(self) -> bool:
        """Whether a trial that is still to come has to evaluate the FP32 model."""
        return self._proposer.baseline.is_open(self.history)

    def gives_up_baseline(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> bool:
        """Whether a trial that ends was the last attempt at a baseline, and the study has none.

        Args:
            study:
                The study.
            trial:
                The trial.
            state:
                How it ends.
            values:
                What it found.
        """
        if state == TrialState.COMPLETE or not measures_baseline(trial, self.space.fp32().key):
            return False
        with self._lock:
            self.history.take_ahead(study, trial.number, state, values)
            return not self.owes_baseline() and self.history.baseline is None

    def why_no_baseline(self, study: optuna.Study) -> str:
        """Why the study has no baseline and the sampler measures none, and what to do."""
        return self._proposer.baseline.why_missing(study, self.history)

    def is_over(self) -> bool:
        """Whether the sampler has nothing left to evaluate."""
        return self._proposer.is_over(self.history)

    def stop_if_over(
        self,
        study: optuna.Study,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
        *,
        sampler: str,
    ) -> None:
        """Stop the study if the trial that ends was the last that there was to evaluate.

        Args:
            study:
                The study.
            number:
                The number of the trial.
            state:
                How it ends.
            values:
                What it found.
            sampler:
                What to call the sampler.
        """
        with self._lock:
            self.history.take_ahead(study, number, state, values)
            if not self.is_over() or waiting(study):
                return
        with contextlib.suppress(RuntimeError):  # Nothing runs its trials: ask and tell.
            study.stop()
            self.stopped_after = number
            _logger.info(
                f"{sampler} sees nothing left that is worth a trial after trial {number}, so it "
                f"stops the study {study.study_name!r}."
            )

    def is_new(self, number: int) -> bool:
        """Whether a running trial evaluates what no trial had evaluated before."""
        return number in self._new

    def config_of(self, number: int) -> QuantConfig | None:
        """The configuration that a running trial of this process has claimed."""
        return self._configs.get(number)

    def say_once(self, what: str, say: Callable[[], None]) -> None:
        """Say what holds for every trial of the study: once in this process.

        Args:
            what:
                The kind of what is said.
            say:
                Says it.
        """
        with self._lock:
            is_new = what not in self._said
            self._said.add(what)
        if is_new:
            say()

    # One trial, from its start to its end.

    def start(self, study: optuna.Study, trial: FrozenTrial, started: float) -> None:
        """Claim a configuration for a trial, with heartbeats from now on; see :meth:`claim`."""
        self._heartbeats.start(trial)
        try:
            self.claim(study, trial, started)
        except BaseException:
            self._heartbeats.end(trial.number)
            raise

    def claim(self, study: optuna.Study, trial: FrozenTrial, started: float) -> QuantConfig:
        """Choose a configuration and claim it; waits until earlier trials have claimed.

        Args:
            study:
                The study.
            trial:
                The trial.
            started:
                When the trial was started at the latest, as :func:`time.monotonic` tells.
        """
        backoff = Backoff(longest=min(0.5, max(0.05, _PART_OF_A_TRIAL * self.history.longest)))
        if self._proposer.leaves_open(trial):
            # From the queue: trials with higher numbers may be at work already.
            started = -math.inf
            self._queue.let_later_look(study, trial)
        self._queue.wait(study, trial)
        while True:
            with self._lock:
                proposal = self._proposer.propose(self.history, trial)
                if proposal is not None and self._try(study, trial, proposal, started):
                    return proposal.config
            backoff(ahead=1)
            if proposal is None:
                self.look(study)
            else:
                started = -math.inf  # From now on, make sure.
                self._queue.let_later_look(study, trial)
                self._queue.wait(study, trial)

    def _try(
        self, study: optuna.Study, trial: FrozenTrial, proposal: Proposal, started: float
    ) -> bool:
        """Claim a proposal; :obj:`False`, and no claim, if another trial claimed the same."""
        before = self.history.outcomes.get(proposal.config.key)
        self._configs[trial.number] = proposal.config
        claim = record.Claim(
            number=trial.number,
            key=proposal.config.key,
            stage=proposal.stage,
            worker=this_worker(),
            provisional=proposal.provisional,
            speculative=proposal.speculative,
            fidelity=proposal.fidelity,
            broken_promises=self.history.broken_promises,
            positions=proposal.positions,
        )
        _optuna.set_trial_system_attr(study, trial, record.CLAIM, claim.to_attr())
        if proposal.forced:
            return True
        in_time = self._queue.is_in_time(trial, started, self.history.running)
        if in_time or not self._is_contested(study, claim, before):
            self._new.add(trial.number)
            return True
        _optuna.set_trial_system_attr(study, trial, record.CLAIM, None)
        return False

    def _is_contested(
        self, study: optuna.Study, claim: record.Claim, before: Outcome | None
    ) -> bool:
        """Whether another running trial claimed the same.

        That happens only if one of the two did not wait for the other any longer, because the
        storage was slow or a process stood still. The worker that sees it withdraws its claim, so
        that of two that claimed at the same time at most one goes on.
        """
        self.history.refresh(study)
        if self.history.outcomes.get(claim.key) != before:  # The other one has even ended.
            return True
        return is_claimed_twice(claim, self.history.running)

    def take_config(self, number: int) -> QuantConfig | None:
        """The configuration that an ending trial had claimed; it is forgotten."""
        self._new.discard(number)
        return self._configs.pop(number, None)

    def end(self, number: int) -> None:
        """A trial has ended: no further heartbeats."""
        self._heartbeats.end(number)
