"""Runs a plan over the record: what it wants next, what it has concluded."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any
from typing import TypeAlias

from optuna_quant.config import QuantConfig
from optuna_quant.samplers._ledger import Outcome


@dataclass(frozen=True)
class Stage:
    """A batch of configurations that a strategy wants evaluated before it goes on.

    Args:
        name:
            What it is for; shown to people and kept in each trial.
        configs:
            The configurations, in the order in which they are to be evaluated.
        provisional:
            Whether a configuration of this stage that meets the criterion is not yet the answer
            of the strategy.
    """

    name: str
    configs: Sequence[QuantConfig]
    provisional: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What became of a configuration that a stage asked for.

    Args:
        config:
            The configuration.
        score:
            The metric, turned so that higher is better; minus infinity if there is none, because
            the evaluation failed.
        value:
            The metric itself, or :obj:`None`.
        met:
            Whether the criterion is met; :obj:`None` if nobody said.
        number:
            The number of the trial; :obj:`None` for a guess.
    """

    config: QuantConfig
    score: float
    value: float | None = None
    met: bool | None = None
    number: int | None = None

    @classmethod
    def of(cls, config: QuantConfig, outcome: Outcome) -> Evaluation:
        """What the record says about a configuration."""
        met = None if outcome.violation is None else outcome.violation <= 0
        return cls(config, outcome.score, outcome.value, met, outcome.number)


@dataclass(frozen=True)
class Scoring:
    """What a strategy yields to be sent the sensitivity of ops, as ``{op: score}``.

    Args:
        config:
            The configuration whose ops are scored.
        ops:
            The ops.
    """

    config: QuantConfig
    ops: tuple[str, ...]


Plan: TypeAlias = Generator[Stage | Scoring, Any, None]
Guess: TypeAlias = Callable[[Stage, Mapping[str, Evaluation], QuantConfig], Evaluation]


class Replay:
    """A plan's generator, as far as the record carries it.

    Args:
        plan:
            A new generator.
        evaluate:
            What is known about a configuration; :obj:`None` if nothing is.
        score:
            The sensitivities that are asked for; :obj:`None` if they are not known now.
    """

    def __init__(
        self,
        plan: Plan,
        evaluate: Callable[[QuantConfig], Evaluation | None],
        score: Callable[[Scoring], Mapping[str, float] | None],
    ) -> None:
        self._plan = plan
        self._evaluate = evaluate
        self._score = score
        self._waiting: dict[str, QuantConfig] = {}
        self.known: dict[str, Evaluation] = {}
        self.stage: Stage | None = None
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
        self.stage = self.scoring = None
        try:
            wanted = next(self._plan) if results is None else self._plan.send(results)
        except StopIteration:
            return
        if isinstance(wanted, Scoring):
            self.scoring = wanted
            return
        self.stage = wanted
        self._waiting = {config.key: config for config in wanted.configs}
        self.asked_for |= self._waiting.keys()
        if not wanted.provisional:
            self.answers |= self._waiting.keys()

    def _step(self) -> bool:
        """Take in what is known; whether the current request was completed by it."""
        if self.scoring is not None:
            scores = self._score(self.scoring)
            if scores is not None:
                self._send(scores)
            return scores is not None
        if self.stage is None:
            return False
        for key, config in list(self._waiting.items()):
            found = self._evaluate(config)
            if found is not None:
                self.known[key] = found
                del self._waiting[key]
        if self._waiting:
            return False
        self._send([self.known[config.key] for config in self.stage.configs])
        return True

    def advance(self) -> None:
        """Take in all that is known, and go as far as it carries."""
        while self._step():
            pass

    def assume(self, guess: Guess) -> None:
        """Complete the current stage with guesses for what is not known, and go on."""
        if self.stage is not None:
            known = dict(self.known)
            for key, config in self._waiting.items():
                self.known[key] = guess(self.stage, known, config)
            self._waiting = {}
            self.advance()

    def waiting(self) -> Iterator[QuantConfig]:
        """The configurations of the current stage that are not known, in their order."""
        return iter(self._waiting.values())


def typical(results: Mapping[str, Evaluation], config: QuantConfig) -> Evaluation:
    """A guess for a result that is not known: the median of the others of its stage."""
    scores = sorted(result.score for result in results.values())
    return Evaluation(config, scores[len(scores) // 2] if scores else -math.inf, met=False)
