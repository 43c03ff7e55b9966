"""The FP32 model and nothing else, for a study in which nothing is to be gained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.samplers._base import QuantSampler
from optuna_quant.samplers._search import Choice
from optuna_quant.samplers._search import Search
from optuna_quant.study import record


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.samplers._ledger import Ledger
    from optuna_quant.space.space import TuningSpace


class FP32OnlySampler(QuantSampler):
    """Evaluates the FP32 model as the study's baseline, and what was enqueued.

    Of workers that begin at the same time each has a trial of it, since a trial that was begun
    needs a configuration: one evaluates it, the others take over its result.

    Args:
        space:
            The tuning space, which has the FP32 model.
        **kwargs:
            See :class:`QuantSampler`.
    """

    def _search(self, ledger: Ledger) -> Search:
        return _FP32Only(self._space)


class _FP32Only(Search):
    def __init__(self, space: TuningSpace) -> None:
        self._choice = Choice(space.fp32(), record.BASELINE_STAGE, forced=True)

    def next(self, ledger: Ledger, claimed: Mapping[str, int]) -> Choice | None:
        """The FP32 model, whoever else is at it."""
        return self._choice

    def is_over(self, ledger: Ledger) -> bool:
        """Whether it was evaluated."""
        return self._choice.config.key in ledger.outcomes
