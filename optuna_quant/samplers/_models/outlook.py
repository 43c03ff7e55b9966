"""The state of a surrogate search, derived from the record, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.samplers._models.loss_model import Prediction
    from optuna_quant.samplers._models.option_scores import OptionScores
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class Believed:
    """A belief about a configuration.

    Args:
        config:
            The configuration.
        cost:
            What it costs.
        loss:
            The loss that is expected of it, in units of the metric.
        probability:
            The probability that it meets the criterion.
        is_known:
            Whether it was evaluated as far as it takes to tell, or is known to fail.
    """

    config: QuantConfig
    cost: float
    loss: float
    probability: float
    is_known: bool


@dataclass(frozen=True, eq=False)
class Outlook:
    """The state of the search.

    Args:
        stage:
            What it would do next; :obj:`None` if it has concluded.
        cheapest:
            The cheapest configuration of all, whatever its accuracy.
        fp32_cost:
            What the model costs with as many ops in floats as the space allows.
        model:
            The model of the loss; :obj:`None` before the sensitivities are known.
        scores:
            The sensitivities that it rests on.
        believed:
            What is believed of the cheapest configurations for several budgets of error.
    """

    stage: str | None
    cheapest: QuantConfig
    fp32_cost: float
    model: LossModel | None = None
    scores: Sequence[OptionScores] = ()
    believed: Sequence[Believed] = field(default=(), repr=False)

    def probability(self, space: TuningSpace, config: QuantConfig) -> float | None:
        """The probability that a configuration meets the criterion; None if that is not known.

        Args:
            space:
                The tuning space.
            config:
                The configuration.
        """
        found = self._predicted(space, config)
        if self.model is None or found is None:
            return None
        return found.probability(self.model.scale.tolerance)

    def loss(self, space: TuningSpace, config: QuantConfig) -> float | None:
        """The loss that is expected of a configuration, in units of the metric, if that is known.

        Args:
            space:
                The tuning space.
            config:
                The configuration.
        """
        found = self._predicted(space, config)
        return None if found is None else found.loss

    def _predicted(self, space: TuningSpace, config: QuantConfig) -> Prediction | None:
        if self.model is None:
            return None
        chosen = [t.options.index(config.ops[t.ops[0]]) for t in space.tunables]
        return self.model.predict(np.array(chosen, dtype=np.int64))

    @property
    def of_ops(self) -> Mapping[str, Mapping[str, float]]:
        """The sensitivity of each op in each option."""
        return {op: found for each in self.scores for op, found in each.scores.items()}

    @property
    def of_weights(self) -> Mapping[str, float]:
        """What part of the sensitivity of ops comes from their weights, as far as is known."""
        return {op: part for each in self.scores for op, part in each.of_weights.items()}
