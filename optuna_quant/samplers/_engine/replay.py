"""Replay a plan over the record: what it asks for next, and what it has concluded."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from functools import partial
import math
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.race_run import RaceRun
from optuna_quant.samplers._engine.requests import Evaluate
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Guess
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Scoring
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig


class Replay:
    """A plan's generator, advanced as far as the results in the record go.

    Args:
        plan:
            A new generator.
        evaluate:
            What is known about a configuration; :obj:`None` if it was not evaluated as far as
            its fidelity.
        population:
            The samples; :obj:`None` if single ones are not known.
        score:
            The sensitivities that are asked for; :obj:`None` if they are not known now.
    """

    def __init__(
        self,
        plan: Plan,
        evaluate: Evaluate,
        population: Callable[[], Population | None],
        score: Callable[[Scoring], Mapping[str, float] | None],
    ) -> None:
        self._plan = plan
        self._evaluate = evaluate
        self._score = score
        self._population = population
        self._waiting: dict[str, QuantConfig] = {}
        self._race_run: RaceRun | None = None
        self.race_runs: list[RaceRun] = []
        self.known: dict[str, Evaluation] = {}
        self.stage: Stage | Race | None = None
        self.scoring: Scoring | None = None
        self.answers: set[str] = set()
        self.asked_for: set[str] = set()
        self._send(None)

    @property
    def is_over(self) -> bool:
        """Whether the plan has ended."""
        return self.stage is None and self.scoring is None

    def _send(self, results: object) -> None:
        self.known, self._waiting = {}, {}
        self.stage = self.scoring = self._race_run = None
        try:
            wanted = next(self._plan) if results is None else self._plan.send(results)
            while isinstance(wanted, HasPerSampleScores):
                wanted = self._plan.send(self._population() is not None)
        except StopIteration:
            return
        if isinstance(wanted, Scoring):
            self.scoring = wanted
            return
        if not isinstance(wanted, (Stage, Race)):
            raise TypeError(
                "A plan must yield Stage, Race or Scoring, but has yielded "
                f"{type(wanted).__name__}. For configurations write: yield Stage('name', "
                "[config, ...])."
            )
        self.stage = wanted
        self._waiting = {config.key: config for config in wanted.configs}
        self.asked_for |= self._waiting.keys()
        if isinstance(wanted, Race):
            self._race_run = RaceRun(wanted, self._population())
        elif not wanted.provisional:
            self.answers |= self._waiting.keys()

    def _step(self) -> bool:
        """Take in known results; whether they complete the current request."""
        if self.scoring is not None:
            scores = self._score(self.scoring)
            if scores is not None:
                self._send(scores)
            return scores is not None
        if self.stage is None:
            return False
        if self._race_run is not None:
            results = self._race_run.run(self._evaluate)
            if results is None:
                self._waiting = dict(self._race_run.waiting)
                return False
            self.race_runs.append(self._race_run)
            self._send(results)
            return True
        for key, config in list(self._waiting.items()):
            found = self._evaluate(config, self.fidelity)
            if found is not None:
                self.known[key] = found
                del self._waiting[key]
        if self._waiting:
            return False
        self._send([self.known[config.key] for config in self.stage.configs])
        return True

    @property
    def fidelity(self) -> Fidelity:
        """How far the configurations of the current stage are evaluated."""
        if self._race_run is not None:
            return self._race_run.fidelity
        return FULL if self.stage is None else self.stage.fidelity

    def advance(self) -> None:
        """Take in all known results, and advance as far as they go."""
        while self._step():
            pass

    def assume(self, guess: Guess) -> None:
        """Complete the current stage with guesses for unknown results, and continue."""
        if self.stage is not None and self._race_run is not None:
            self._send(self._race_run.assume(partial(guess, self.stage)))
            self.advance()
        elif self.stage is not None:
            known = dict(self.known)
            for key, config in self._waiting.items():
                self.known[key] = guess(self.stage, known, config)
            self._waiting = {}
            self.advance()

    def waiting(self) -> Iterator[QuantConfig]:
        """The configurations of the current stage without a result, in their order."""
        return iter(self._waiting.values())


def typical(results: Mapping[str, Evaluation], config: QuantConfig) -> Evaluation:
    """A guess for an unknown result: the median of the others of its stage."""
    scores = sorted(result.score for result in results.values())
    return Evaluation(config, scores[len(scores) // 2] if scores else -math.inf, met=False)
