"""The base class of all samplers: it fulfils Optuna's contract from the study's record."""

from __future__ import annotations

import abc
import time
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

from optuna.logging import get_logger
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.criteria import check_one_criterion
from optuna_quant.samplers._engine.arguments import check_types
from optuna_quant.samplers._engine.conclusion import conclude
from optuna_quant.samplers._engine.contract import criterion_of
from optuna_quant.samplers._engine.direction_sign import looks_reversed
from optuna_quant.samplers._engine.direction_sign import warn_of_direction
from optuna_quant.samplers._engine.keywords import refuse_unknown
from optuna_quant.samplers._engine.limits import Limits
from optuna_quant.samplers._engine.other_parameters import OtherParameters
from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.reports import Abandoned
from optuna_quant.samplers._engine.reports import Speculation
from optuna_quant.samplers._engine.session import StudySession
from optuna_quant.samplers._engine.sessions import Sessions
from optuna_quant.samplers._engine.sessions import start_session
from optuna_quant.samplers._engine.trial_history import TrialHistory
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.claims import announce
from optuna_quant.study.claims import failed_if_raised
from optuna_quant.study.enqueued import warn_of_unknown_names


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

    The first trial evaluates the FP32 model, as the study's baseline, if the space has it; the
    next one again, if that trial is pruned or fails. Parameters that are not the space's get their
    value from ``independent_sampler``.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough. If given, it is written to each trial as a constraint
            (unless the objective has done so; a trial that ends without a baseline is
            infeasible), and the study records it at its first trial, for
            what reads the storage alone. The metric is the first objective of the study, whose
            direction must agree.
        independent_sampler:
            The sampler of all other parameters, one by one or, where it samples so, together.
            Default: Optuna's random sampler.
        seed:
            The seed of everything random. Workers of one study use the same.
        baseline:
            Whether the first trial evaluates the FP32 model.
        max_failures:
            After how many failed evaluations a configuration is abandoned; the FP32 model also
            after so many trials that were pruned.
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

    begins_from_studies: ClassVar[bool] = False
    """Whether it has a use for an earlier study (``from_study``): its parameter ``prior``."""

    learns_from_blocks: ClassVar[bool] = False
    """Whether :func:`~optuna_quant.tune` gives it the parts of the model that repeat by default,
    where nothing scores the ops: its parameter ``blocks``."""

    tunes_recipes: ClassVar[bool] = False
    """Whether it has a place for recipes, so that the usual ones are tuned by default; for others
    a recipe is one more dimension of the space."""

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
        check_types(space, criterion, independent_sampler)
        self._limits = Limits(
            max_failures=max_failures,
            max_deaths=max_deaths,
            grace_period=grace_period,
            claim_timeout=claim_timeout,
        )
        self._space = space
        self._criterion = criterion
        self._others = OtherParameters(independent_sampler or RandomSampler(seed=seed))
        self._seed = seed
        self._baseline = baseline
        self._distributions = space.distributions()
        self._sessions = Sessions(self._start_session)
        self.stops_studies = True
        """Whether the sampler stops a study that it runs out of; :func:`~optuna_quant.tune`, which
        looks at more than that, sets it to :obj:`False`."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_sessions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._sessions = Sessions(self._start_session)

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
        with self._sessions.lock:
            session = self._sessions.of(study)
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
        return self._sessions.of(study).stopped_after == number

    def owes_baseline(self, study: optuna.Study) -> bool:
        """Whether a trial that is still to come has to evaluate the FP32 model.

        One that was pruned, or has failed, is repeated up to ``max_failures`` times.
        """
        with self._sessions.refreshed(study) as session:
            return session.owes_baseline()

    def is_first(self, study: optuna.Study, number: int) -> bool:
        """Whether a running trial of this process evaluates what no trial had evaluated before.

        Not so if its configuration was given, or if nothing else was left.
        """
        return self._sessions.of(study).is_new(number)

    def is_answer(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial that meets the criterion answers the search.

        A strategy may pass the criterion on its way, as when it goes on from the FP32 model; what
        it has not concluded is not its answer.
        """
        key = self._space.key_from_params(trial.params)
        with self._sessions.refreshed(study) as session:
            return key is not None and session.policy.is_answer(session.history, key)

    def speculation(self, study: optuna.Study) -> Speculation:
        """How much was evaluated on a guess, and how much of that was used.

        A worker guesses rather than waits for what others still evaluate.
        """
        with self._sessions.refreshed(study) as session:
            return session.speculation(study)

    def abandoned(self, study: optuna.Study) -> tuple[Abandoned, ...]:
        """The abandoned configurations: every attempt to evaluate them failed."""
        with self._sessions.refreshed(study) as session:
            return session.history.abandoned()

    # Optuna's contract.

    @property
    def seed(self) -> int:
        """The seed of everything random in the search."""
        return self._seed

    def reseed_rng(self) -> None:
        """Reseed the sampler of the other parameters; the search itself is a pure function."""
        self._others.sampler.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Claim a configuration for the trial."""
        with failed_if_raised(study, trial):
            self._others.sampler.before_trial(study, trial)
            started = time.monotonic()
            whole = _optuna.whole_study(study)
            check_one_criterion(sampler=self._criterion, pruner=criterion_of(study.pruner))
            announce(whole, trial)  # Before anything that takes time: the others wait for it.
            warn_of_unknown_names(trial, self._space)
            self._sessions.of(whole).start(whole, trial, started)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters of the tuning space, and what ``independent_sampler`` gives together."""
        return self._others.search_space(study, trial) | self._distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The parameters of the configuration that the trial has claimed, and the others."""
        whole = _optuna.whole_study(study)
        session = self._sessions.of(whole)
        config = session.config_of(trial.number)
        if config is None and any(name in self._distributions for name in search_space):
            config = session.claim(whole, trial, time.monotonic())
        params = {} if config is None else self._space.params_of(config)
        return self._others.complete(params, study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> object:
        """The value of a parameter outside the space."""
        return self._others.sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Keep the baseline, and write the criterion as a constraint if it is not there."""
        self._others.sampler.after_trial(study, trial, state, values)
        study = _optuna.whole_study(study)
        session = self._sessions.of(study)
        conclude(study, trial, state, values, session=session, constrains=self._constrains)
        if self.stops_studies:
            session.stop_if_over(study, trial.number, state, values, sampler=type(self).__name__)
        if self._criterion is None and looks_reversed(session.history):
            session.say_once("direction", lambda: warn_of_direction(study))

    def _constrains(self, study: optuna.Study) -> bool:
        """Whether missing the criterion makes a trial infeasible."""
        return True

    def _check_study(self, study: optuna.Study) -> None:
        """Refuse a study that was started with what a strategy cannot go on with.

        Raises:
            ValueError:
                If it was.
        """

    def _start_session(self, study: optuna.Study) -> StudySession:
        return start_session(
            study,
            self._space,
            criterion=self._criterion,
            limits=self._limits,
            seed=self._seed,
            measures_baseline=self.measures_baseline,
            make_policy=self._policy,
            check=self._check_study,
            lock=self._sessions.lock,
        )
