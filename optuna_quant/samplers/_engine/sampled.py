"""What the samples that a trial has seen say about its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.sequential import Decision
from optuna_quant.sequential.weighted_threshold import estimate
from optuna_quant.sequential.weighted_threshold import follow
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.samplers._engine.trial_history import Outcome
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True, eq=False)
class PartialEvaluation:
    """The samples of one trial.

    Args:
        population:
            The samples of the study.
        scores:
            The normalized scores of those that the trial has seen, in the order of evaluation.
        decision:
            What they say about the criterion.
        number:
            The number of the trial.
        needed:
            The normalized mean that meets the criterion; :obj:`None` if it is not known.
        broken_promises:
            How many promises were broken so far.
    """

    population: Population
    scores: NDArray[np.float64]
    decision: Decision
    number: int
    needed: float | None = None
    broken_promises: int = 0

    def suffices(self, fidelity: Fidelity) -> bool:
        """Whether the configuration was evaluated as far as a stage wants."""
        if fidelity.samples is not None:
            return len(self.scores) >= fidelity.samples
        if fidelity.until_decided:
            return self.decision is not Decision.OPEN
        return self.decision is Decision.FAILS

    def first(self, samples: int) -> PartialEvaluation:
        """The state after the first samples."""
        if samples >= len(self.scores):
            return self
        scores, decision = self.scores[:samples], Decision.OPEN
        if self.needed is not None:
            test = follow(
                self.population, self.needed, scores, broken_promises=self.broken_promises
            )
            decision = test.decision
        return replace(self, scores=scores, decision=decision)

    @property
    def met(self) -> bool | None:
        """Whether the criterion is met; :obj:`None` if that is open."""
        return None if self.decision is Decision.OPEN else self.decision is not Decision.FAILS

    @cached_property
    def _metric(self) -> float:
        return self.population.metric(estimate(self.population, self.scores))

    def evaluation(self, config: QuantConfig) -> Evaluation:
        """The result as a plan receives it; the metric is an estimate."""
        metric = self._metric
        score = metric if self.population.higher_is_better else -metric
        return Evaluation(config, score, metric, self.met, self.number, self.scores)


class SampledOutcomes:
    """Reads the samples of trials, each trial once."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[tuple[float | None, int], PartialEvaluation]] = {}
        self._first: dict[tuple[int, int], tuple[PartialEvaluation, bool | None]] = {}

    def partial_evaluation(
        self, history: TrialHistory, outcome: Outcome
    ) -> PartialEvaluation | None:
        """What a trial has seen; :obj:`None` if single samples are not known.

        Where the criterion is not known the trial itself says what it has concluded.

        Args:
            history:
                The record.
            outcome:
                The outcome of the trial.
        """
        view = outcome.view
        if view is None or view.samples is None or history.population is None:
            return None
        if view.population != history.population.key:
            return None  # In the order of another baseline, which was not kept.
        threshold = history.threshold
        asked = threshold, history.broken_promises
        known = self._found.get(outcome.number)
        if known is not None and known[0] == asked:
            return known[1]
        population = history.population
        scores = population.normalized(view.scores)
        needed, decision, broken_promises = None, outcome.decision, history.broken_promises
        if threshold is not None:
            needed = population.normalized_mean(threshold)
            decision = follow(population, needed, scores, broken_promises=broken_promises).decision
        seen = PartialEvaluation(
            population, scores, decision, outcome.number, needed, broken_promises
        )
        self._found[outcome.number] = asked, seen
        return seen

    def met_after(self, seen: PartialEvaluation, samples: int) -> bool | None:
        """Whether the criterion seemed to be met after so many samples."""
        key = seen.number, samples
        known = self._first.get(key)
        if known is None or known[0] is not seen:
            known = self._first[key] = seen, seen.first(samples).met
        return known[1]

    def is_settled(self, history: TrialHistory, key: str) -> bool:
        """Whether a configuration was evaluated until it surely fails, or as far as it can be."""
        outcome = history.outcomes.get(key)
        if outcome is None or not outcome.is_partial:
            return outcome is not None
        seen = self.partial_evaluation(history, outcome)
        return seen is None or seen.suffices(FULL)
