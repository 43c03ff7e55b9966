"""The sessions of a sampler: one for each study that it works in."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from optuna_quant import _optuna
from optuna_quant.samplers._engine.owed_baseline import OwedBaseline
from optuna_quant.samplers._engine.proposer import Proposer
from optuna_quant.samplers._engine.session import StudySession
from optuna_quant.samplers._engine.trial_history import TrialHistory
from optuna_quant.study.criterion import keep_criterion
from optuna_quant.study.foreign import warn_of_foreign_trials
from optuna_quant.study.record_check import check_fallback_ops
from optuna_quant.study.record_check import check_record
from optuna_quant.study.space_signature import check_space


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    import optuna

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.limits import Limits
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.space.space import TuningSpace


class Sessions:
    """The sessions of a sampler in this process; a copy of it has none: the record has all.

    Args:
        start:
            Starts a session in a study.

    Attributes:
        lock:
            Held while a session is looked up, and while it looks and chooses.
    """

    def __init__(self, start: Callable[[optuna.Study], StudySession]) -> None:
        self.lock = threading.RLock()
        self._start = start
        self._sessions: dict[tuple[int, int], StudySession] = {}

    def of(self, study: optuna.Study) -> StudySession:
        """The session in a study.

        It is started if there is none, or if what it took for the record was wrong.
        """
        storage, study_id = _optuna.study_identity(study)
        with self.lock:
            session = self._sessions.get((id(storage), study_id))
            if session is None or session.history.is_wrong:
                session = self._sessions[id(storage), study_id] = self._start(study)
            return session

    @contextlib.contextmanager
    def refreshed(self, study: optuna.Study) -> Iterator[StudySession]:
        """The session in a study, which has just read the record and does not change meanwhile."""
        with self.lock:
            session = self.of(study)
            session.history.refresh(study)
            yield session

    def clear(self) -> None:
        """Forget all sessions."""
        self._sessions.clear()


def start_session(
    study: optuna.Study,
    space: TuningSpace,
    *,
    criterion: AccuracyCriterion | None,
    limits: Limits,
    seed: int,
    measures_baseline: bool,
    make_policy: Callable[[TrialHistory], Policy],
    check: Callable[[optuna.Study], None],
    lock: threading.RLock,
) -> StudySession:
    """Check that a sampler can go on with a study, and start to work in it.

    Args:
        study:
            The study.
        space:
            The tuning space.
        criterion:
            When a metric is good enough, which the study keeps; None if the sampler does not know.
        limits:
            When the sampler gives up.
        seed:
            The seed of everything random.
        measures_baseline:
            Whether the first trial evaluates the FP32 model.
        make_policy:
            Makes the policy of the sampler.
        check:
            Refuses what its strategy cannot go on with.
        lock:
            Held while the session looks and chooses.

    Raises:
        ValueError:
            If it cannot go on with the study.
    """
    check_record(study)
    if criterion is not None:
        criterion.check_direction(study)
    check_space(study, space)
    check(study)
    check_fallback_ops(study, space)
    if criterion is not None:
        keep_criterion(study, criterion)
    warn_of_foreign_trials(study, space)
    history = TrialHistory(
        study,
        space,
        max_failures=limits.max_failures,
        max_deaths=limits.max_deaths,
        criterion=criterion,
    )
    proposer = Proposer(
        space,
        make_policy(history),
        baseline=OwedBaseline(space, measures=measures_baseline, max_attempts=limits.max_failures),
        seed=seed,
    )
    return StudySession(
        study,
        space,
        criterion,
        history,
        proposer,
        claim_timeout=limits.claim_timeout,
        grace_period=limits.grace_period,
        lock=lock,
    )
