"""Observations of the loss, from the trials of this study and of an earlier one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import TrialState

from optuna_quant.samplers._models.metric_step import metric_step
from optuna_quant.samplers._models.observed_loss import LossScale
from optuna_quant.samplers._models.observed_loss import Observed
from optuna_quant.samplers._models.option_positions import option_positions
from optuna_quant.sequential import Decision


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.trial_history import Outcome
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.calibration_sizes import CalibrationSizes
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# The loss of a configuration that cannot be evaluated is taken to be so many times the tolerance.
_FAILED_LOSS = 2.0
# The least loss of what surely fails, over the tolerance.
_SURELY_FAILS = 1.05


class LossObservations:
    """Reads the losses of trials; the baseline must be known.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        outcomes:
            Reads the outcomes of trials.
        prior:
            What an earlier study has taught; :obj:`None` if there is none.
        sizes:
            Chooses the calibration size; trials of this study with others are not observations.
    """

    def __init__(
        self,
        space: TuningSpace,
        criterion: AccuracyCriterion,
        outcomes: StudyOutcomes,
        prior: PriorInSpace | None,
        sizes: CalibrationSizes,
    ) -> None:
        self._sizes = sizes
        self._space = space
        self._criterion = criterion
        self._outcomes = outcomes
        self._prior = prior

    def scale(self, history: TrialHistory) -> LossScale:
        """The unit of losses, and the largest possible loss."""
        baseline, threshold = history.baseline, history.threshold
        assert baseline is not None and threshold is not None
        size = abs(baseline)
        tolerance = abs(baseline - threshold)
        population = history.population
        least = 1e-4 * size
        if population is not None:
            least = 0.5 * population.scale / population.samples
        tolerance = max(tolerance, least, 1e-9)
        bounded = self._criterion.higher_is_better and baseline > 0
        if not self._criterion.higher_is_better:
            size = 0.0  # An error of the FP32 model says little about what quantization adds.
        learned = None if self._prior is None else self._prior.scale(baseline)
        return LossScale(tolerance, size, baseline if bounded else math.inf, learned)

    def all(self, history: TrialHistory, scale: LossScale) -> list[Observed]:
        """The observations of an earlier study, then those of this one."""
        return [*self._earlier(history, scale), *self._own(history, scale)]

    def loss_of(self, history: TrialHistory, config: QuantConfig) -> float | None:
        """The loss of a configuration, as far as it was evaluated; None if it was not."""
        outcome = history.outcomes.get(config.key)
        if outcome is None:
            return None
        tolerance = self.scale(history).tolerance
        observed = self._observed(history, outcome, config, tolerance, 0.0)
        return None if observed is None else observed.loss

    def loss(self, history: TrialHistory, value: float) -> float:
        """By how much a metric is worse than the baseline."""
        assert history.baseline is not None
        sign = 1.0 if self._criterion.higher_is_better else -1.0
        return sign * (history.baseline - value)

    def _earlier(self, history: TrialHistory, scale: LossScale) -> list[Observed]:
        if self._prior is None or history.baseline is None:
            return []
        return self._prior.observed(
            baseline=history.baseline, tolerance=scale.tolerance, without=history.outcomes
        )

    def _own(self, history: TrialHistory, scale: LossScale) -> list[Observed]:
        step = 0.0 if history.population is not None else _step(history)
        size = self._sizes.chosen(history)
        found = []
        for outcome in sorted(history.outcomes.values(), key=lambda o: o.number):
            if outcome.is_substitute:
                continue
            config = self._outcomes.config(outcome)
            if config is None or not config.quantized_ops or config.calibration_size != size:
                continue
            observed = self._observed(history, outcome, config, scale.tolerance, step)
            if observed is not None:
                found.append(observed)
        return found

    def _observed(
        self,
        history: TrialHistory,
        outcome: Outcome,
        config: QuantConfig,
        tolerance: float,
        step: float,
    ) -> Observed | None:
        """The observation of one trial; :obj:`None` if its loss is not a number."""
        options = option_positions(self._space, config)
        if outcome.state == TrialState.FAIL:
            # What cannot be run says which ops to leave alone, as a loss far off does.
            return Observed(options, _FAILED_LOSS * tolerance)
        value, error, spread = outcome.value, 0.0, 0.0
        seen = self._outcomes.seen(history, outcome)
        if seen is not None and len(seen.scores):
            error, spread = _standard_errors(seen.population, seen.scores)
            if outcome.is_partial:
                value = seen.evaluation(config).value
        if value is None or not math.isfinite(value):
            return None
        loss = self.loss(history, value)
        if step:
            # As many samples have changed at least, and one more could have.
            spread = math.sqrt(step * (abs(loss) + step))
        if seen is not None and seen.decision is Decision.FAILS:
            # That it fails is known better than by how much.
            loss = max(loss, _SURELY_FAILS * tolerance)
            error = min(error, 0.5 * (loss - tolerance))
        return Observed(options, loss, error, spread)


def _step(history: TrialHistory) -> float:
    """By what the metric changes with one sample, as its values tell; 0 if they do not."""
    values = [o.value for o in history.outcomes.values() if o.value is not None]
    return metric_step([value for value in values if math.isfinite(value)])


def _standard_errors(population: Population, scores: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean difference to the baseline: for all samples, and for all possible ones.

    In units of the metric.
    """
    seen = len(scores)
    gains = scores - population.normalized_baseline[:seen]
    # As if one more sample had changed as far as any did: none is not certainty.
    largest = float(np.abs(gains).max()) or 1.0
    spread = float(np.sqrt(np.square(gains).mean() + largest**2 / seen))
    spread *= population.scale / math.sqrt(population.samples)
    if seen >= population.samples:
        return 0.0, spread
    before = np.concatenate([[0.0], np.cumsum(gains)[:-1]])
    draws = (before + gains / population.order.probabilities[:seen]) / population.samples
    variance = float(draws.var()) + largest**2 / seen
    left = 1 - seen / population.samples
    return population.scale * math.sqrt(variance * left / seen), spread
