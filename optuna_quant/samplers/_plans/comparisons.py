"""Compare configurations, evaluating each only as far as needed to rank them."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
import itertools
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Stage


if TYPE_CHECKING:
    from optuna_quant.samplers._plans.best import Best
    from optuna_quant.space.config import QuantConfig


Comparison: TypeAlias = "Generator[Request, Any, list[Evaluation]]"

_BATCH = 32

# At least so many of the best are told apart where ops are ranked.
_FEWEST_RANKED = 4


@dataclass(frozen=True)
class Comparisons:
    """Evaluates configurations that only have to be ranked.

    Args:
        races:
            Whether it is evaluated on a part of the samples, where they are evaluated one by one;
            see :class:`~optuna_quant.samplers.Race`.
    """

    races: bool

    def compare(
        self, name: str, configs: Sequence[QuantConfig], best: Best
    ) -> Generator[Request, Any, tuple[float, list[Evaluation]]]:
        """Compare configurations with the best so far, and see whether the winner is good enough.

        Where samples are evaluated one by one it is a race, in which the best so far takes part.

        Returns:
            The score of what was the best so far, and the results.
        """
        score = best.score
        if self.races and (yield HasPerSampleScores()):
            results: list[Evaluation] = yield Race(name, [best.config, *configs])
            best.settle(results)
            if best.is_promising:
                yield Stage(name, [best.config])
            # On the samples of the race, as the others.
            return results[0].score, results[1:]
        results = yield Stage(name, configs)
        best.see(results)
        return score, results

    def in_batches(self, name: str, configs: Iterable[QuantConfig], best: Best) -> Plan:
        """Compare many configurations, so many at a time."""
        configs = iter(configs)
        while batch := list(itertools.islice(configs, _BATCH)):
            yield from self.compare(name, batch, best)

    def rank(
        self, name: str, configs: Sequence[QuantConfig], *, provisional: bool = False
    ) -> Comparison:
        """Rank configurations."""
        if self.races and (yield HasPerSampleScores()):
            top_k = max(_FEWEST_RANKED, len(configs) // 4)
            results: list[Evaluation] = yield Race(name, configs, top_k=top_k)
            return results
        results = yield Stage(name, configs, provisional=provisional)
        return results
