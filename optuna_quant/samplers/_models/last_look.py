"""What a search tries before it ends with little or nothing: ops that alone would save much."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.beliefs import Beliefs
    from optuna_quant.samplers._models.candidates import Candidates
    from optuna_quant.samplers._models.forbidden_options import Forbidden
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# This part of the FP32 model's cost is much.
_MUCH = 0.15


class LastLook:
    """Tries the ops that matter most by their cost alone, the most expensive first.

    The model of the loss rests on sensitivities, which can be far off for single ops (a recurrent
    one among convolutions). An op that it takes for harmful is in no configuration that it
    proposes, so no trial would ever correct it. There are six such ops at most.

    Args:
        space:
            The tuning space.
        table:
            The costs.
        candidates:
            Finds configurations.
        believes:
            Knows which configurations are decided.
    """

    def __init__(
        self, space: TuningSpace, table: CostTable, candidates: Candidates, believes: Beliefs
    ) -> None:
        self._table = table
        self._candidates = candidates
        self._believes = believes
        self._fp32_cost = table.cost(space.fp32())

    def next(
        self,
        history: TrialHistory,
        reference: float,
        model: LossModel,
        forbidden: Forbidden,
        claimed: Collection[str],
    ) -> QuantConfig | None:
        """The next of these configurations.

        Args:
            history:
                The record.
            reference:
                The cost of the best so far; that of the FP32 model if there is none.
            model:
                The model of the loss.
            forbidden:
                The options that are not used.
            claimed:
                The keys of what others evaluate now.

        Returns:
            The configuration; :obj:`None` if there is none left, or the best saves much already.
        """
        much = _MUCH * abs(self._fp32_cost)
        if self._fp32_cost - reference >= much:
            return None
        found = [
            (self._table.cost(config), config)
            for config in self._candidates.alone(model, forbidden)
            if config.key not in claimed and not self._believes.is_settled(history, config)
        ]
        saving = [each for each in found if self._fp32_cost - each[0] >= much]
        return min(saving, key=lambda each: each[0])[1] if saving else None
