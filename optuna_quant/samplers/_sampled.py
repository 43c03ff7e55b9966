"""What the samples that a trial has seen say about its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant import record
from optuna_quant.evidence import Verdict
from optuna_quant.evidence.threshold import estimate
from optuna_quant.evidence.threshold import follow
from optuna_quant.sample_record import read_scores
from optuna_quant.samplers._requests import Evaluation


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.config import QuantConfig
    from optuna_quant.evidence import Population
    from optuna_quant.samplers._ledger import Ledger
    from optuna_quant.samplers._ledger import Outcome


@dataclass(frozen=True, eq=False)
class Seen:
    """The samples of one trial.

    Args:
        population:
            The samples of the study.
        scores:
            The normal scores of those that the trial has seen, in the order of evaluation.
        verdict:
            What they say about the criterion.
        number:
            The number of the trial.
    """

    population: Population
    scores: NDArray[np.float64]
    verdict: Verdict
    number: int

    def suffices(self, goal: str | int) -> bool:
        """Whether the configuration was evaluated as far as a stage wants."""
        if isinstance(goal, int):
            return len(self.scores) >= goal
        if goal == record.VERDICT:
            return self.verdict is not Verdict.OPEN
        return self.verdict is Verdict.FAILS

    def evaluation(self, config: QuantConfig) -> Evaluation:
        """The same as a plan is sent it; the metric is an estimate."""
        metric = self.population.metric(estimate(self.population, self.scores))
        met = None if self.verdict is Verdict.OPEN else self.verdict is not Verdict.FAILS
        score = metric if self.population.higher_is_better else -metric
        return Evaluation(config, score, metric, met, self.number, self.scores)


class SampledOutcomes:
    """Reads what trials have seen, each once."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[tuple[float | None, int], Seen]] = {}

    def evidence(self, ledger: Ledger, outcome: Outcome, threshold: float | None) -> Seen | None:
        """What a trial has seen; :obj:`None` if single samples are not known.

        Args:
            ledger:
                The record.
            outcome:
                The outcome of the trial.
            threshold:
                The worst metric that meets the criterion; :obj:`None` if it is not known, then
                the trial itself says what it has concluded.
        """
        if outcome.samples is None or ledger.population is None:
            return None
        asked = threshold, ledger.broken_promises
        known = self._found.get(outcome.number)
        if known is not None and known[0] == asked:
            return known[1]
        population = ledger.population
        scores = population.normal(read_scores(outcome.attrs))
        if threshold is None:
            verdict = outcome.verdict
        else:
            needed = population.normal_mean(threshold)
            verdict = follow(population, needed, scores, caution=ledger.broken_promises).verdict
        seen = Seen(population, scores, verdict, outcome.number)
        self._found[outcome.number] = asked, seen
        return seen
