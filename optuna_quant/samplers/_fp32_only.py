"""A sampler that proposes only the FP32 model, for studies without anything to gain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.base import QuantSampler
from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.study import record


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


class FP32OnlySampler(QuantSampler):
    """Evaluates the FP32 model as the study's baseline, and what was enqueued.

    Of workers that start at the same time each has a trial of it, since a trial that was started
    needs a configuration: one evaluates it, the others take over its result.

    Args:
        space:
            The tuning space, which has the FP32 model.
        **kwargs:
            See :class:`QuantSampler`.
    """

    def _policy(self, history: TrialHistory) -> Policy:
        return _FP32Only(self._space)


class _FP32Only(Policy):
    def __init__(self, space: TuningSpace) -> None:
        self._proposal = Proposal(space.fp32(), record.BASELINE_STAGE, forced=True)

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        """The FP32 model, whatever other workers evaluate."""
        return self._proposal

    def is_over(self, history: TrialHistory) -> bool:
        """Whether it was evaluated."""
        return self._proposal.config.key in history.outcomes
