"""Every configuration of the space, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.base import QuantSampler
from optuna_quant.samplers._engine.enumeration import Enumeration
from optuna_quant.samplers._registry import register_strategy


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


@register_strategy("exhaustive")
class ExhaustiveQuantSampler(QuantSampler):
    """Evaluate every configuration, from the default on, in the order of the space.

    The last parameter of the space runs fastest. Configurations are computed from their index when
    their turn comes, so the space may be of any size. Use it for small spaces, or with a limit on
    trials or time.

    Args:
        space:
            The tuning space.
        fallback:
            Whether configurations with ops in fallback are included. Without (default), an op
            takes its quantized options only, unless it has none.
        **kwargs:
            See :class:`QuantSampler`.
    """

    def __init__(self, space: TuningSpace, *, fallback: bool = False, **kwargs: Any) -> None:
        super().__init__(space, **kwargs)
        self._fallback = fallback

    def _policy(self, history: TrialHistory) -> Policy:
        return Enumeration(
            self._space, lambda place: place, fallback=self._fallback, stage="exhaustive"
        )
