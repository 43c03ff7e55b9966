"""What the model of the loss predicts for configurations that are not decided yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.samplers._models.least_probability import LEAST_PROBABILITY
from optuna_quant.samplers._models.option_positions import option_positions


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.candidates import Candidates
    from optuna_quant.samplers._models.forbidden_options import Forbidden
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# How often the trade-off is drawn where the most probable one leaves nothing to try.
_DRAWS, _MOST_TRIED = 6, 10


@dataclass(frozen=True)
class Belief:
    """A prediction for a configuration: its loss, its chance to meet the criterion, and its cost.

    Args:
        config:
            The configuration.
        cost:
            Its cost.
        probability:
            The probability that it meets the criterion.
        improvement:
            The expected improvement in cost, as a part of that of the best so far.
    """

    config: QuantConfig
    cost: float
    probability: float
    improvement: float


class Beliefs:
    """Computes beliefs about candidates.

    Args:
        space:
            The tuning space.
        table:
            The costs.
        outcomes:
            Reads the outcomes of trials.
        candidates:
            Finds configurations that are worth a look.
        prior:
            What an earlier study has taught; :obj:`None` if there is none.
    """

    def __init__(
        self,
        space: TuningSpace,
        table: CostTable,
        outcomes: StudyOutcomes,
        candidates: Candidates,
        prior: PriorInSpace | None,
    ) -> None:
        self._space = space
        self._table = table
        self._outcomes = outcomes
        self._candidates = candidates
        self._prior = prior

    def of(
        self, history: TrialHistory, model: LossModel, reference: float, forbidden: Forbidden
    ) -> list[Belief]:
        """The cheapest configurations for several budgets of error that are worth a look.

        Args:
            history:
                The record.
            model:
                The model of the loss.
            reference:
                The cost to improve on.
            forbidden:
                The options that are not used.

        Returns:
            What is believed of them, the cheapest first.
        """
        prior = self._prior
        earlier = [] if prior is None or prior.answer is None else [prior.answer]
        wanted = [*self._candidates.path(model, forbidden), *earlier]
        found = self._among(history, model, reference, wanted)
        tried = len(self._outcomes.own_models(history))
        if not found and tried < _MOST_TRIED and self._outcomes.best(history) is None:
            # What is most probable leaves nothing to try; what may be as well does.
            rng = np.random.default_rng([tried, len(self._space.tunables)])
            for _ in range(_DRAWS):
                wanted += self._candidates.path(model, forbidden, model.drawn_weights(rng))
            found = self._among(history, model, reference, wanted)
        return found

    def _among(
        self,
        history: TrialHistory,
        model: LossModel,
        reference: float,
        configs: Sequence[QuantConfig],
    ) -> list[Belief]:
        """What is believed of those of some configurations that are worth a look."""
        found: dict[str, Belief] = {}
        for config in configs:
            if config.key in found or not config.quantized_ops or self.is_settled(history, config):
                continue
            cost = self._table.cost(config)
            predicted = model.predict(option_positions(self._space, config))
            probability = predicted.probability(model.scale.tolerance)
            if probability < LEAST_PROBABILITY or cost >= reference:
                continue
            gain = (reference - cost) / (abs(reference) or 1.0)
            found[config.key] = Belief(config, cost, probability, gain * probability)
        return sorted(found.values(), key=lambda b: (b.cost, -b.probability))

    def is_settled(self, history: TrialHistory, config: QuantConfig) -> bool:
        """Whether its outcome is already known, from this or an earlier study."""
        if self._prior is not None and config.key in self._prior.failed:
            return True
        outcome = history.outcomes.get(config.key)
        return outcome is not None and self._outcomes.is_decided(history, outcome)
