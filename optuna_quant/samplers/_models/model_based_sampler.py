"""What the samplers have in common that learn a model of the metric from all results."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.base import QuantSampler


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


class ModelBasedQuantSampler(QuantSampler):
    """Base class of the samplers whose policy is a ``ModelBasedPolicy``.

    Args:
        space:
            The tuning space.
        fallback:
            Whether configurations with ops in fallback may be proposed.
        n_startup_trials:
            How many results there must be before the model is asked.
        **kwargs:
            See :class:`QuantSampler`.

    Raises:
        ValueError:
            If an argument is out of its range.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        fallback: bool = False,
        n_startup_trials: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(space, **kwargs)
        if n_startup_trials < 1:
            raise ValueError(f"n_startup_trials must be at least 1, but got {n_startup_trials}.")
        self._fallback = fallback
        self._n_startup_trials = n_startup_trials
