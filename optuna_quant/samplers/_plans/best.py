"""Track the best configuration that a plan has seen so far."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.requests import Evaluation
    from optuna_quant.space.config import QuantConfig


class Best:
    """The best configuration so far."""

    def __init__(self, *, later_wins: bool = False) -> None:
        self._later_wins = later_wins
        self._best: Evaluation | None = None

    def see(self, results: Iterable[Evaluation]) -> None:
        for result in results:
            if (
                self._best is None
                or result.score > self._best.score
                or (self._later_wins and result.score == self._best.score)
            ):
                self._best = result

    def settle(self, results: Sequence[Evaluation]) -> None:
        """Take the best of a race in which the best so far took part."""
        self._best = None
        self.see(results)

    @property
    def is_promising(self) -> bool:
        """Whether it meets the criterion, as far as was seen."""
        return self._evaluation.met is True

    @property
    def _evaluation(self) -> Evaluation:
        if self._best is None:
            raise RuntimeError("Nothing has been evaluated yet.")
        return self._best

    @property
    def config(self) -> QuantConfig:
        return self._evaluation.config

    @property
    def score(self) -> float:
        return self._evaluation.score
