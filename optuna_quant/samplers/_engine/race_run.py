"""The progress of a race, round by round: a pure function of the record."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.reports import RaceReport
from optuna_quant.sequential.race import Rank
from optuna_quant.sequential.race import clearly_behind
from optuna_quant.sequential.race import mean_difference
from optuna_quant.sequential.race import order_is_clear
from optuna_quant.sequential.race import regret_bound
from optuna_quant.sequential.race import rounds
from optuna_quant.sequential.race import standing
from optuna_quant.sequential.race import survivors
from optuna_quant.sequential.weighted_threshold import estimate
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.samplers._engine.requests import Evaluate
    from optuna_quant.samplers._engine.requests import Evaluation
    from optuna_quant.samplers._engine.requests import Race
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig


# A bound this close to the whole range says nothing.
_NOTHING_SAID = 0.01


class RaceRun:
    """One race, as far as the results in the record go.

    Each round looks at the same first samples of everyone, though the record may hold more of
    some. So what comes in later does not change what a race has concluded.

    Args:
        race:
            The race.
        population:
            The samples; :obj:`None` if single ones are not known: one round, in full.
    """

    def __init__(self, race: Race, population: Population | None) -> None:
        self._race = race
        self._population = population
        self._rounds: tuple[int, ...] = ()
        if population is not None and population.in_parts:
            self._rounds = rounds(population.samples, count=race.rounds, fraction=race.fraction)
        elif population is not None:  # What is known of one is known of all samples.
            self._rounds = (population.samples,)
        self._round = 0
        self._active = {config.key: config for config in race.configs}
        self._count = len(self._active)
        self._ranks: dict[str, Rank] = {}
        self._found: dict[str, Evaluation] = {}
        self._held: list[tuple[int, int]] = []  # Of each round, the samples and entrants.
        self.waiting: dict[str, QuantConfig] = {}

    @property
    def fidelity(self) -> Fidelity:
        """How far the remaining candidates are evaluated in this round."""
        return Fidelity(self._rounds[self._round]) if self._rounds else FULL

    def run(self, evaluate: Evaluate) -> list[Evaluation] | None:
        """The results, in the order of the configurations.

        Args:
            evaluate:
                What is known about a configuration.

        Returns:
            The results; :obj:`None` if more has to be evaluated: :attr:`waiting`.
        """
        while True:
            self.waiting = {}
            for key, config in self._active.items():
                found = evaluate(config, self.fidelity)
                if found is None:
                    self.waiting[key] = config
                else:
                    self._found[key] = found
            if self.waiting:
                return None
            if self._ends():
                return self._results()

    def _ends(self) -> bool:
        """Conclude a round; whether it was the last."""
        population = self._population
        if population is None:
            return True
        samples = self._rounds[self._round]
        seen: dict[str, NDArray[np.float64]] = {}
        # Beside one that was evaluated without samples, others stand by what they are estimated.
        all_seen = all(found.scores is not None for found in self._found.values())
        for key in self._active:
            scores = self._found[key].scores
            if scores is not None:
                seen[key] = scores[:samples]
                value = estimate(population, seen[key])
                ahead = mean_difference(population, seen[key]) if all_seen else value
                self._ranks[key] = Rank(self._round, ahead, value)
        self._held.append((samples, len(self._active)))
        if self._round == len(self._rounds) - 1 or len(seen) < 2:
            if all_seen:
                self._put_back(seen)
            return True
        error = self._race.error_probability
        kept = survivors(
            population,
            seen,
            top_k=self._race.top_k,
            samples=samples,
            error_probability=error,
            count=self._count,
        )
        best = {key: seen[key] for key in kept}
        if len(kept) <= self._race.top_k and order_is_clear(
            population, best, samples=samples, error_probability=error, count=self._count
        ):
            return True
        self._active = {key: self._active[key] for key in kept}
        self._round += 1
        return False

    def _put_back(self, seen: Mapping[str, NDArray[np.float64]]) -> None:
        """Rank candidates that are ahead on hard samples only behind clearly better ones."""
        if self._population is None or not seen:
            return
        behind = clearly_behind(self._population, seen)
        least = min(self._ranks[key].difference for key in seen)
        for key in behind:
            rank = self._ranks[key]
            # Their order among themselves stays: differences are at most 2 apart.
            self._ranks[key] = replace(rank, difference=least - 2 + rank.difference)

    def _results(self) -> list[Evaluation]:
        keys = list(dict.fromkeys(config.key for config in self._race.configs))
        scores: dict[str, Evaluation] = {}
        ranked = [key for key in keys if key in self._ranks]
        values = standing([self._ranks[key] for key in ranked])
        for key, value in zip(ranked, values, strict=True):
            scores[key] = self._estimated(self._found[key], value)
        return [scores.get(c.key, self._found[c.key]) for c in self._race.configs]

    def _estimated(self, found: Evaluation, normalized_mean: float) -> Evaluation:
        if self._population is None:
            return found
        metric = self._population.metric(normalized_mean)
        score = metric if self._population.higher_is_better else -metric
        return replace(found, score=score, value=metric)

    def report(self) -> RaceReport | None:
        """The report of the race; :obj:`None` if it is not decided, or not by samples."""
        population = self._population
        if population is None or len(self._ranks) < 2 or self.waiting:
            return None
        keys = list(self._ranks)
        values = standing([self._ranks[key] for key in keys])
        best = keys[values.index(max(values))]
        seen = {
            key: scores[: self._rounds[self._ranks[key].round]]
            for key in keys
            if (scores := self._found[key].scores) is not None
        }
        error = self._race.error_probability
        missed = regret_bound(
            population,
            seen[best],
            [scores for key, scores in seen.items() if key != best],
            error_probability=error,
        )
        low, high = population.bounds
        return RaceReport(
            self._race.name,
            self._count,
            tuple(self._held),
            best,
            missed * (high - low) if missed < 1 - _NOTHING_SAID else None,
            1 - error,
        )

    def assume(
        self,
        guess: Callable[[Mapping[str, Evaluation], QuantConfig], Evaluation],
    ) -> list[Evaluation]:
        """The results, with guesses for those that are missing."""
        known = dict(self._found)
        return [
            self._found.get(config.key) or guess(known, config) for config in self._race.configs
        ]
