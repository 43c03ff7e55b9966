"""Find the front of cost and loss with few trials."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._models.pareto_policy import FrontOptions
from optuna_quant.samplers._models.pareto_policy import ParetoPolicy
from optuna_quant.samplers._models.surrogate_step import SurrogateOptions
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._surrogate import SurrogateQuantSampler


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.space import TuningSpace


@register_strategy("pareto")
class ParetoQuantSampler(SurrogateQuantSampler):
    """Spend the trials on the front of cost and loss.

    1. ``cheapest to start with``: one end of the front, whatever its accuracy. (The FP32 model,
       the baseline, is the other.)
    2. ``front``: a model of the loss
       (:class:`~optuna_quant.samplers._models.loss_model.LossModel`), whose prior are
       sensitivities and which every trial of the study teaches, predicts the configurations of
       the trade-off from the cheapest to FP32. The one with the largest expected gain in
       hypervolume is evaluated: since costs are known from the table, that is an expectation in
       one dimension (:meth:`optuna_quant.costs.dominance.Staircase.expected_gain`).
       That is repeated until no gain of at least ``min_gain`` is expected.

    What other workers evaluate meanwhile counts as if it had turned out as predicted (D.
    Ginsbourger, R. Le Riche and L. Carraro, "Kriging is well-suited to parallelize optimization",
    2010), so that they look at different parts of the front.

    Every configuration is evaluated on all samples, also if it does not meet the criterion: the
    criterion says which way the metric goes and in what units losses matter, and chooses the
    answer at the end. In a study with one objective, the metric, it is a constraint as with the
    other samplers. In one with several, of which the first is the metric, it is none, so that
    ``study.best_trials`` is the whole front.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        costs:
            What configurations cost, see :class:`SurrogateQuantSampler`.
        sensitivity:
            What scores the ops, see there.
        min_gain:
            The expected gain in hypervolume that is worth one more evaluation, as a part of the
            area between the cheapest configuration and FP32.
        reference_loss:
            Up to which loss the front is of interest, in tolerable losses of the criterion.
        **kwargs:
            See :class:`QuantSampler`.

    Raises:
        TypeError:
            If there is no criterion, or the costs are no table.
        ValueError:
            If the table lacks an option of the space, ``min_gain`` is not above zero, or
            ``reference_loss`` is no number above zero.
    """

    begins_from_studies = False

    def __init__(
        self,
        space: TuningSpace,
        *,
        criterion: AccuracyCriterion | None,
        costs: CostTable | None = None,
        sensitivity: Sensitivity | None = None,
        min_gain: float = 1e-4,
        reference_loss: float = 20.0,
        **kwargs: Any,
    ) -> None:
        is_number = isinstance(reference_loss, Real) and not isinstance(reference_loss, bool)
        if not is_number or not 0 < reference_loss < math.inf:
            raise ValueError(
                "reference_loss must be a number above 0, in tolerable losses of the criterion, "
                f"but got {reference_loss!r}."
            )
        super().__init__(
            space,
            criterion=criterion,
            costs=costs,
            sensitivity=sensitivity,
            min_gain=min_gain,
            **kwargs,
        )
        self._reference_loss = float(reference_loss)

    def explain(self, study: optuna.Study, *args: object, **kwargs: object) -> None:
        """Nothing: a front has no answer that could be explained."""
        return None

    def _policy(self, history: TrialHistory) -> Policy:
        assert self._criterion is not None
        options = SurrogateOptions(
            self._min_gain, self._option_scores, blocks=self._known_blocks(history)
        )
        front = FrontOptions(self._reference_loss, self._min_gain)
        return ParetoPolicy(self._space, self._criterion, self._costs, options, front)

    def _constrains(self, study: optuna.Study) -> bool:
        return len(study.directions) == 1
