"""The engine of the staged strategies: a plan, replayed over the study's record."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.base import QuantSampler
from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._engine.replay import Replay
from optuna_quant.samplers._engine.replay import typical
from optuna_quant.samplers._engine.reports import RaceReport
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._engine.sampled import SampledOutcomes
from optuna_quant.samplers._engine.scores import SensitivityCache
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# How far ahead of the record a guess is followed.
_MOST_GUESSED_STAGES = 20


class StagedQuantSampler(QuantSampler):
    """Base class of strategies that are written as a plan.

    A strategy is one generator, :meth:`plan`. It yields a :class:`Stage`, a batch of
    configurations, and is sent their evaluations in the same order::

        class FirstOpsLast(StagedQuantSampler):
            def plan(self, space):
                (best,) = yield Stage("default", [space.default()])
                config = best.config
                for tunable in reversed(space.tunables):
                    config = config.with_fallback(*tunable.ops)
                    yield Stage("fallback", [config])

    The plan must be a pure function of what it is sent: it is replayed over what the study holds.
    A configuration that anything has evaluated (an earlier stage, another worker, another
    sampler, an earlier run, an enqueued trial) is not evaluated again; its result is used. That
    gives resume after a crash, parallel workers and warm starts without further code.

    When every configuration of the current stage is evaluated or being evaluated, and some still
    are, a worker takes what the plan would ask for next, with a guess for the missing results; if
    the guess is wrong the configuration is one more point in the record.

    Args:
        space:
            The tuning space.
        sensitivity:
            What scores ops when the plan yields a :class:`Scoring`: a callable that takes a
            configuration and op names and gives ``{op: score}``, higher for an op that hurts
            more. Backends provide some. Scores are kept in the study.
        when_blocked:
            What a worker does while others finish a stage: ``"speculate"`` or ``"wait"``. Waiting
            is not possible for what this very thread has asked for and not told; it speculates
            then.
        **kwargs:
            See :class:`QuantSampler`.

    Raises:
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        sensitivity: Sensitivity | None = None,
        when_blocked: str = "speculate",
        **kwargs: Any,
    ) -> None:
        super().__init__(space, **kwargs)
        self._scores = SensitivityCache(type(self).__name__, sensitivity)
        if when_blocked not in ("speculate", "wait"):
            raise ValueError(
                f"when_blocked must be 'speculate' or 'wait', but got {when_blocked!r}."
            )
        self._when_blocked = when_blocked

    @property
    def has_sensitivity(self) -> bool:
        """Whether a plan may ask for sensitivities: whether ``sensitivity`` was given."""
        return self._scores.is_given

    @abc.abstractmethod
    def plan(self, space: TuningSpace) -> Plan:
        """Yield stages, and conclude from their results what to evaluate next.

        Args:
            space:
                The tuning space.
        """

    def guess(
        self, stage: Stage | Race, known: Mapping[str, Evaluation], config: QuantConfig
    ) -> Evaluation:
        """Guess the result of a configuration that is still being evaluated.

        Args:
            stage:
                The current stage.
            known:
                The results of the stage that are known, by configuration key.
            config:
                The configuration.
        """
        return typical(known, config)

    def races(self, study: optuna.Study) -> tuple[RaceReport, ...]:
        """Reports of the races that were decided on a part of the samples.

        Args:
            study:
                The study.
        """
        with self._sessions.refreshed(study) as session:
            policy = session.policy
            return policy.races(session.history) if isinstance(policy, _StagedPolicy) else ()

    def _plan_in(self, study: optuna.Study) -> Plan:
        """The plan in a study; a plan that depends on more of the record reads it here."""
        return self.plan(self._space)

    def _policy(self, history: TrialHistory) -> Policy:
        return _StagedPolicy(self, history)


class _StagedPolicy(Policy):
    """The plan of one sampler in one study."""

    def __init__(self, sampler: StagedQuantSampler, history: TrialHistory) -> None:
        self._sampler = sampler
        self._replay: Replay | None = None
        self._epoch = 0
        self._guessed: Replay | None = None
        self._guessed_at = -1
        self._sampled = SampledOutcomes()

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        replay = self._current(history, compute=True)
        proposal = self._first_free(replay, history, claimed)
        if proposal is not None or replay.stage is None:
            return proposal
        if self.should_wait(claimed.values(), history):
            return None
        return self._speculate(history, claimed)

    def is_over(self, history: TrialHistory) -> bool:
        return self._current(history).is_over

    def is_blocked(self, history: TrialHistory) -> bool:
        return self._current(history).scoring is not None

    def should_wait(self, claimants: Iterable[int], history: TrialHistory) -> bool:
        return self._sampler._when_blocked == "wait" and super().should_wait(claimants, history)

    def is_answer(self, history: TrialHistory, key: str) -> bool:
        return key in self._current(history).answers

    def has_asked_for(self, history: TrialHistory, key: str) -> bool:
        return key in self._current(history).asked_for

    def races(self, history: TrialHistory) -> tuple[RaceReport, ...]:
        reports = [race_run.report() for race_run in self._current(history).race_runs]
        return tuple(report for report in reports if report is not None)

    def _current(self, history: TrialHistory, *, compute: bool = False) -> Replay:
        """The plan as far as the record goes; restarted only if a known outcome has changed.

        Args:
            history:
                The record.
            compute:
                Whether to compute sensitivities that the study does not hold yet.
        """
        if self._replay is None or self._epoch != history.epoch:
            self._replay = self._begin(history)
            self._epoch = history.epoch
        self._replay.advance()
        scores = self._sampler._scores
        while compute and self._replay.scoring is not None:
            if not scores.compute(history.study, self._replay.scoring):
                break
            self._replay.advance()
        return self._replay

    def _begin(self, history: TrialHistory) -> Replay:
        return Replay(
            self._sampler._plan_in(history.study),
            lambda config, fidelity: self._evaluation(history, config, fidelity),
            lambda: _raced_on(history),
            lambda wanted: self._sampler._scores.read(history.study, wanted),
        )

    def _evaluation(
        self, history: TrialHistory, config: QuantConfig, fidelity: Fidelity
    ) -> Evaluation | None:
        """The result of a configuration; :obj:`None` if it is not evaluated so far yet."""
        outcome = history.outcomes.get(config.key)
        if outcome is None:
            return None
        seen = self._sampled.partial_evaluation(history, outcome)
        if seen is not None and outcome.is_partial:
            if not seen.suffices(fidelity):
                return None
            found = seen.evaluation(config)
            if fidelity.samples is not None:
                # As it was when its round ended, or the plan would go another way now. But what
                # was promised then and surely fails now does not fit.
                met = self._sampled.met_after(seen, fidelity.samples)
                found = replace(found, met=found.met is not False if met else met)
            return found
        violation = outcome.violation
        criterion = self._sampler._criterion
        if criterion is not None and outcome.value is not None:
            # Not what was written when the trial ended: the tolerance may have been moved.
            value = history.baseline
            if value is not None:
                violation = criterion.violation(outcome.value, value)
            elif violation is None and self._sampler.measures_baseline:
                return None  # Not known before the baseline is.
        met = None if violation is None else violation <= 0 and outcome.is_complete
        scores = None if seen is None else seen.scores
        if seen is not None and fidelity.samples is not None and met is False:
            # It was perhaps not known when its round ended.
            met = False if self._sampled.met_after(seen, fidelity.samples) is not None else None
        return Evaluation(config, outcome.score, outcome.value, met, outcome.number, scores)

    def _speculate(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        """What the plan would ask for next, given guesses for the missing results."""
        if self._guessed is None or self._guessed_at != history.revision:
            self._guessed = self._begin(history)
            self._guessed.advance()
            self._guessed_at = history.revision
        for _ in range(_MOST_GUESSED_STAGES):
            proposal = self._first_free(self._guessed, history, claimed, speculative=True)
            if proposal is not None or self._guessed.stage is None:
                return proposal
            self._guessed.assume(self._sampler.guess)
        return None

    def _first_free(
        self,
        replay: Replay,
        history: TrialHistory,
        claimed: Mapping[str, int],
        *,
        speculative: bool = False,
    ) -> Proposal | None:
        stage = replay.stage
        if stage is not None:
            for config in replay.waiting():
                # What is evaluated may still wait for the baseline, to be judged by.
                known = history.outcomes.get(config.key)
                if config.key not in claimed and (known is None or known.is_partial):
                    self._sampler.space.check(config, f"Stage {stage.name!r}")
                    return Proposal(
                        config,
                        stage.name,
                        stage.provisional,
                        speculative,
                        fidelity=replay.fidelity,
                    )
        return None


def _raced_on(history: TrialHistory) -> Population | None:
    """The samples on which races can run; :obj:`None` for scores without a lower bound."""
    population = history.population
    return population if population is not None and population.has_worst else None
