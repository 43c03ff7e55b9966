"""When a search continues: the gain that another evaluation must promise."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.forbidden_options import Forbidden
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.study_outcomes import BestKnown
    from optuna_quant.samplers._models.study_outcomes import StudyOutcomes


# An improvement is worth this part of ``min_gain`` at first, and e times more for so many
# evaluations: where one number is all that is known, after some; where samples are, for the parts
# of evaluations that it takes to tell; and where there are so few that nearly all are seen.
_FIRST_GAIN = 0.2
_FREE_EVALUATIONS, _EVALUATIONS_PER_E = 5.0, 2.2
_PARTS_PER_E = 0.22
_FEW_SAMPLES, _FEW_SAMPLES_PER_E = 100, 0.6
_GAIN_OF_ANOTHER_ANSWER = 3.0
_PATIENCE_WITHOUT_ANSWER = 4.0
_PATIENCE_WITHOUT_SCORES = 3.0
_MOST_WORTH_WITHOUT_ANSWER, _MOST_IN_VAIN = 0.05, 40
# As much as this is worth an evaluation whatever was spent, as long as that is within reason.
_MOST_WORTH = 0.3
# A search that goes on after its answer stops at this part of the gain that ends the first.
_LAST_GAIN = 0.1


@dataclass(frozen=True)
class _Growth:
    """How the required gain grows: from when on, and over how many evaluations by e."""

    free: float
    per_e: float


@dataclass(frozen=True)
class EvaluationWorth:
    """The rule for the gain that another evaluation must promise.

    Args:
        min_gain:
            The expected improvement that is worth an evaluation, as a part of the best cost.
        outcomes:
            Reads the outcomes of trials.
        prior:
            What an earlier study has taught; :obj:`None` if there is none.
    """

    min_gain: float
    outcomes: StudyOutcomes
    prior: PriorInSpace | None

    def least_gain(
        self,
        history: TrialHistory,
        best: BestKnown | None,
        model: LossModel,
        *,
        added: Forbidden | None = None,
    ) -> float:
        """The expected improvement that is worth one more evaluation, as a part of the best cost.

        It grows with what was spent: a cheaper model is worth less than the time to find it, but
        what is expected to be much cheaper always is worth it, within reason.

        Args:
            history:
                The record.
            best:
                The best so far.
            model:
                The model of the loss.
            added:
                The options that this phase of the search has beyond the one before. What was
                spent without any of them has not been spent on this question. Default: all.
        """
        worth = self._uncapped(history, best, model, added)
        if len(self.outcomes.own_models(history)) < _MOST_IN_VAIN:
            worth = min(worth, _MOST_WORTH)
        return worth

    def last_gain(
        self,
        history: TrialHistory,
        best: BestKnown | None,
        model: LossModel,
        *,
        added: Forbidden | None = None,
    ) -> float:
        """The same for a search that goes on although it has its answer, or gives up.

        Args:
            history:
                The record.
            best:
                The best so far.
            model:
                The model of the loss.
            added:
                As for :meth:`least_gain`.
        """
        return _LAST_GAIN * self._uncapped(history, best, model, added)

    def _uncapped(
        self,
        history: TrialHistory,
        best: BestKnown | None,
        model: LossModel,
        added: Forbidden | None,
    ) -> float:
        growth = _growth(history)
        per_e = growth.per_e * (_PATIENCE_WITHOUT_ANSWER if best is None else 1.0)
        per_e *= 1.0 if model.is_scored else _PATIENCE_WITHOUT_SCORES
        spent = self._spent(history, best, added)
        first = _FIRST_GAIN * self.min_gain
        worth = first * math.exp(min(max(0.0, spent - growth.free) / per_e, 50.0))
        if best is None and len(self.outcomes.own_models(history)) < _MOST_IN_VAIN:
            # Without an answer what is likely to be one is always worth a look.
            worth = min(worth, _MOST_WORTH_WITHOUT_ANSWER)
        if history.population is not None and best is not None and best.proven:
            # What is cheaper than an answer must be evaluated on all samples, as that was.
            worth = max(worth, _GAIN_OF_ANOTHER_ANSWER * self.min_gain)
        return worth

    def is_concluded(self, best: BestKnown | None) -> bool:
        """Whether the best so far is proven, and an earlier study has found nothing better."""
        if self.prior is None or best is None or not self.prior.is_concluded:
            return False
        return best.proven and best.config == self.prior.first

    def _spent(
        self, history: TrialHistory, best: BestKnown | None, added: Forbidden | None
    ) -> float:
        """The evaluations so far, in full evaluations."""
        spent = self.outcomes.spent(history, using=added)
        if self.prior is not None and best is not None and best.config == self.prior.first:
            # What the earlier study has tried in vain is not worth as much again.
            spent += self.prior.fruitless * (1.0 if history.population is None else _PARTS_PER_E)
        return spent


def _growth(history: TrialHistory) -> _Growth:
    population = history.population
    if population is None:
        return _Growth(_FREE_EVALUATIONS, _EVALUATIONS_PER_E)
    if population.samples < _FEW_SAMPLES:
        return _Growth(0.0, _FEW_SAMPLES_PER_E)
    return _Growth(0.0, _PARTS_PER_E)
