"""The base class of all samplers: it fulfils Optuna's contract from the study's record."""

from __future__ import annotations

import abc
from collections.abc import Iterable
import contextlib
import threading
import time
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

from optuna.logging import get_logger
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.criteria import check_is_criterion
from optuna_quant.samplers._engine.conclusion import conclude
from optuna_quant.samplers._engine.conclusion import judge
from optuna_quant.samplers._engine.keywords import refuse_unknown
from optuna_quant.samplers._engine.limits import Limits
from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.proposer import Proposer
from optuna_quant.samplers._engine.reports import Abandoned
from optuna_quant.samplers._engine.reports import Speculation
from optuna_quant.samplers._engine.session import StudySession
from optuna_quant.samplers._engine.trial_history import TrialHistory
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.claims import announce
from optuna_quant.study.criterion import keep_criterion
from optuna_quant.study.enqueued import unknown_names
from optuna_quant.study.enqueued import waiting
from optuna_quant.study.foreign import warn_of_foreign_trials
from optuna_quant.study.foreign import warn_of_other_parameters
from optuna_quant.study.record_check import check_fallback_ops
from optuna_quant.study.record_check import check_record
from optuna_quant.study.space_signature import check_space


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import SensitivityKind
    from optuna_quant.criteria import AccuracyCriterion


_logger = get_logger(__name__)


class QuantSampler(BaseSampler, abc.ABC):
    """Base class of the samplers that search a tuning space.

    It evaluates every configuration at most once, on any number of workers: the trial's number is
    the ticket. A trial claims a configuration only when every running trial with a lower number
    has claimed its own, so that two workers never choose at the same time. Claims of failed
    trials, and of trials whose worker has died, go back into the pool; a death is noticed at once
    on the same machine, and otherwise when the trial has had no heartbeat for ``claim_timeout``.

    The first trial evaluates the FP32 model, as the study's baseline, if the space has it.
    Parameters that are not the space's get their value from ``independent_sampler``.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough. If given, it is written to each trial as a constraint
            (unless the objective has done so), and the study records it at its first trial, for
            what reads the storage alone. The metric is the first objective of the study, whose
            direction must agree.
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
            After how many seconds without a heartbeat a running trial is stale whose worker is on
            another machine. Heartbeats are written six times in that time, at least every 30 s.
            The same for all workers. :obj:`None` if no trial is ever stale, as when one process
            asks and, after its end, another one tells.

    Raises:
        TypeError:
            If an argument does not exist or has another type.
        ValueError:
            If an argument is out of its range.
    """

    sensitivity_kind: ClassVar[SensitivityKind | None] = None
    """What scores ops for it, made by the backend unless a ``sensitivity`` is given; :obj:`None`
    if it ranks no ops. It can do without the kind ``"best"``, and with no other."""

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
        **unknown: object,
    ) -> None:
        for name in unknown:  # Those of all classes end here.
            refuse_unknown(type(self), name)
        if not isinstance(space, TuningSpace):
            raise TypeError(
                f"space must be a TuningSpace, such as backend.tuning_space() gives, but got "
                f"{space!r}."
            )
        if criterion is not None:
            check_is_criterion(criterion)
        if independent_sampler is not None and not isinstance(independent_sampler, BaseSampler):
            raise TypeError(
                "independent_sampler must be a sampler of Optuna's, such as "
                f"optuna.samplers.TPESampler(seed=0), but got {independent_sampler!r}."
            )
        self._limits = Limits(
            max_failures=max_failures,
            max_deaths=max_deaths,
            grace_period=grace_period,
            claim_timeout=claim_timeout,
        )
        self._space = space
        self._criterion = criterion
        self._independent = independent_sampler or RandomSampler(seed=seed)
        self._seed = seed
        self._baseline = baseline
        self._distributions = space.distributions()
        self._sessions: dict[tuple[int, int], StudySession] = {}
        self._lock = threading.RLock()
        self.stops_studies = True
        """Whether the sampler stops a study that it runs out of; :func:`~optuna_quant.tune`, which
        looks at more than that, sets it to :obj:`False`."""

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        state["_sessions"] = {}  # It is only derived from the record.
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
        """After how many seconds without a heartbeat a trial of another machine is stale."""
        return self._limits.claim_timeout

    @property
    def measures_baseline(self) -> bool:
        """Whether the first trial evaluates the FP32 model."""
        return self._baseline and self._space.has_fp32

    @abc.abstractmethod
    def _policy(self, history: TrialHistory) -> Policy:
        """A new policy, before anything of the record is known."""

    def is_exhausted(
        self, study: optuna.Study, trials: Sequence[FrozenTrial] | None = None
    ) -> bool:
        """Whether this sampler has nothing left that is worth a trial to its strategy.

        At the end of the trial that leaves nothing, it stops ``study.optimize``, as Optuna's
        samplers of finite spaces do, unless trials wait in the queue. If it is asked all the
        same, it gives configurations that have not been evaluated yet as long as there are any,
        then repeats.

        Args:
            study:
                The study.
            trials:
                All its trials, if they have just been read.
        """
        with self._lock:
            session = self._session(study)
            session.look(study, trials)  # No other worker may come to reap the last stale trial.
            return session.is_over()

    def has_stopped(self, study: optuna.Study, number: int) -> bool:
        """Whether it has stopped the study at the end of a trial of this process, and said so.

        Args:
            study:
                The study.
            number:
                The number of the trial.
        """
        return self._session(study).stopped_after == number

    def is_first(self, study: optuna.Study, number: int) -> bool:
        """Whether a running trial of this process evaluates what no trial had evaluated before.

        Not so if its configuration was given, or if nothing else was left.
        """
        return self._session(study).is_new(number)

    def is_answer(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that meets the criterion answers the search.

        A strategy may pass the criterion on its way, as when it goes on from the FP32 model; what
        it has not concluded is not its answer.
        """
        key = self._space.key_from_params(trial.params)
        with self._lock:
            session = self._session(study)
            session.history.refresh(study)
            return key is not None and session.policy.is_answer(session.history, key)

    def speculation(self, study: optuna.Study) -> Speculation:
        """How much was evaluated on a guess, and how much of that was used.

        A worker guesses rather than waits for what others still evaluate.
        """
        with self._lock:
            return self._session(study).speculation(study, self._space)

    def abandoned(self, study: optuna.Study) -> tuple[Abandoned, ...]:
        """The abandoned configurations: every attempt to evaluate them failed."""
        with self._lock:
            session = self._session(study)
            session.history.refresh(study)
            return session.history.abandoned()

    # Optuna's contract.

    @property
    def seed(self) -> int:
        """The seed of everything random in the search."""
        return self._seed

    def reseed_rng(self) -> None:
        """Reseed the sampler of the other parameters; the search itself is a pure function."""
        self._independent.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Claim a configuration for the trial."""
        try:
            self._independent.before_trial(study, trial)
            started = time.monotonic()
            whole = _optuna.whole_study(study)
            announce(whole, trial)  # Before anything that takes time: the others wait for it.
            ignored = unknown_names(trial, self._space)
            if ignored is not None:
                _logger.warning(ignored)
            self._session(whole).start(whole, trial, started)
        except BaseException:
            # The caller has no trial to tell, and the others would wait for its claim.
            with contextlib.suppress(Exception):
                _optuna.fail_trial(study, trial)
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
        whole = _optuna.whole_study(study)
        session = self._session(whole)
        config = session.config_of(trial.number)
        if config is None and any(name in self._distributions for name in search_space):
            config = session.claim(whole, trial, time.monotonic())
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
    ) -> object:
        """The value of a parameter outside the space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Keep the baseline, and write the criterion as a constraint if it is not there."""
        self._independent.after_trial(study, trial, state, values)
        study = _optuna.whole_study(study)
        session = self._session(study)
        try:
            claimed = session.config_of(trial.number) is not None
            config = conclude(study, trial, state, values, space=self._space, session=session)
            if claimed and config is None and state == TrialState.COMPLETE:
                session.warn_once(lambda: warn_of_other_parameters(study, trial, self._space))
            if config is not None and values and self._constrains(study):
                judge(
                    study,
                    trial,
                    config,
                    values[0],
                    criterion=self._criterion,
                    session=session,
                    fp32_key=self._space.fp32().key,
                )
        finally:
            # Not before: it may have had to wait for the baseline.
            session.end(trial.number)
        if self.stops_studies:
            self._stop_if_over(study, session, trial.number, state, values)

    def _stop_if_over(
        self,
        study: optuna.Study,
        session: StudySession,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Stop the study if the trial that ends was the last that there was to evaluate."""
        with self._lock:
            session.history.take_ahead(study, number, state, values)
            if not session.is_over() or waiting(study):
                return
        with contextlib.suppress(RuntimeError):  # Nothing runs its trials: ask and tell.
            study.stop()
            session.stopped_after = number
            _logger.info(
                f"{type(self).__name__} sees nothing left that is worth a trial after trial "
                f"{number}, so it stops the study {study.study_name!r}."
            )

    def _constrains(self, study: optuna.Study) -> bool:
        """Whether missing the criterion makes a trial infeasible."""
        return True

    def _check_study(self, study: optuna.Study) -> None:
        """Refuse a study that was started with what a strategy cannot go on with.

        Raises:
            ValueError:
                If it was.
        """

    def _should_wait(self, claimants: Iterable[int], history: TrialHistory) -> bool:
        """Whether to wait for claimed configurations when nothing else is left.

        Args:
            claimants:
                The numbers of the trials whose claims are respected.
            history:
                The record.
        """
        return history.others_run(claimants)

    def _session(self, study: optuna.Study) -> StudySession:
        storage, study_id = _optuna.study_identity(study)
        with self._lock:
            session = self._sessions.get((id(storage), study_id))
            if session is None or session.history.is_wrong:
                session = self._sessions[id(storage), study_id] = self._new_session(study)
            return session

    def _new_session(self, study: optuna.Study) -> StudySession:
        check_record(study)
        if self._criterion is not None:
            self._criterion.check_direction(study)
        check_space(study, self._space)
        self._check_study(study)
        check_fallback_ops(study, self._space)
        if self._criterion is not None:
            keep_criterion(study, self._criterion)
        warn_of_foreign_trials(study, self._space)
        history = TrialHistory(
            study,
            self._space,
            max_failures=self._limits.max_failures,
            max_deaths=self._limits.max_deaths,
            criterion=self._criterion,
        )
        proposer = Proposer(
            self._space,
            self._policy(history),
            measures_baseline=self.measures_baseline,
            seed=self._seed,
            should_wait=self._should_wait,
        )
        return StudySession(
            study,
            history,
            proposer,
            claim_timeout=self._limits.claim_timeout,
            grace_period=self._limits.grace_period,
            lock=self._lock,
        )
