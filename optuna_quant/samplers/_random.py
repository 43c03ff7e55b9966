"""Configurations at random, none twice."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.base import QuantSampler
from optuna_quant.samplers._engine.enumeration import Enumeration
from optuna_quant.samplers._engine.enumeration import Permutation
from optuna_quant.samplers._registry import register_strategy


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


@register_strategy("random")
class RandomQuantSampler(QuantSampler):
    """Evaluate the configurations of the space in a random order, without replacement.

    The order is a permutation of the configurations' indices that is computed from the seed, not
    drawn and remembered: workers with the same seed follow the same order and share the work. The
    default configuration comes first.

    Args:
        space:
            The tuning space.
        fallback:
            Whether configurations with ops in fallback are included. Without (default), an op
            takes its quantized options only, unless it has none.
        seed:
            Which order.
        **kwargs:
            See :class:`QuantSampler`.
    """

    def __init__(
        self, space: TuningSpace, *, fallback: bool = False, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(space, seed=seed, **kwargs)
        self._fallback = fallback

    def _policy(self, history: TrialHistory) -> Policy:
        order = Permutation(self._space.count(fallback=self._fallback), seed=self._seed)
        return Enumeration(self._space, order, fallback=self._fallback, stage="random")
