"""Stop evaluating a candidate that cannot meet the criterion any more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna.pruners import BasePruner

from optuna_quant import record


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion


class AccuracyPruner(BasePruner):
    """Prune a trial as soon as it cannot meet the criterion, whatever the rest brings.

    For metrics that are a mean over samples of a score between two known bounds, such as
    accuracy. The objective reports the mean so far after each batch::

        trial.report(mean_so_far, step=samples_seen)
        if trial.should_prune():
            raise optuna.TrialPruned

    The bound is exact: it supposes that every sample that is left has the best score there is, so
    a trial that could still meet the criterion is never pruned. How many samples there are it
    learns from the baseline, which must have been reported in the same way, to its last sample;
    without it, nothing is pruned.

    Args:
        criterion:
            When a metric is good enough.
        bounds:
            The worst and the best score that a sample can have; either order. Default: 0 and 1.

    Raises:
        ValueError:
            If the bounds are equal or not finite.
    """

    def __init__(
        self, criterion: AccuracyCriterion, *, bounds: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        low, high = sorted(bounds)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"bounds must be two different finite numbers, but got {bounds}.")
        self._criterion = criterion
        self._best = high if criterion.higher_is_better else low

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial cannot meet the criterion any more."""
        step = trial.last_step
        baseline = record.get_baseline(study)
        if step is None or baseline is None or record.is_baseline(trial):
            return False
        samples = self._samples(study, baseline)
        if samples is None or not 0 < step <= samples:
            return False
        mean = trial.intermediate_values[step]
        if math.isnan(mean):
            return False
        best = (mean * step + self._best * (samples - step)) / samples
        return not self._criterion.meets(best, baseline.value)

    def _samples(self, study: optuna.Study, baseline: record.Baseline) -> int | None:
        """The number of samples: the last step that the baseline reported."""
        if baseline.trial is None:
            return None
        return study.get_trials(deepcopy=False)[baseline.trial].last_step
