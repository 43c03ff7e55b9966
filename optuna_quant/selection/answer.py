"""Choose the answer of a study: pure functions of the record.

The criterion is applied to the metrics and the baseline that the study holds, not to what was
written when a trial ended. So the tolerance can be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import ObjectiveLike
from optuna_quant.costs.objective import as_objective
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion


@dataclass(frozen=True)
class Candidate:
    """A judged trial of a quantized model, complete or partial.

    Args:
        trial:
            The trial.
        metric:
            Its metric.
        violation:
            By how much the criterion is violated; met if not above 0.
        fallback_ops:
            The number of ops that are not quantized.
        model_bytes:
            The size of the model; infinite if not known.
        higher_is_better:
            Whether a higher metric is better.
        samples:
            On how many of the samples the model was evaluated, ``(seen, of)``, if not on all:
            then its metric is an estimate, and it meets nothing.
    """

    trial: FrozenTrial
    metric: float
    violation: float
    fallback_ops: int
    model_bytes: float
    higher_is_better: bool
    samples: tuple[int, int] | None = None

    @property
    def view(self) -> TrialView:
        """What the trial says of itself."""
        return TrialView(self.trial)

    @property
    def met(self) -> bool:
        """Whether the criterion is met, on all samples."""
        return self.violation <= 0 and self.samples is None

    def cost(self, objective: ObjectiveLike) -> float:
        """What the model costs; infinite if a measure that the objective needs is not known.

        Args:
            objective:
                The objective. As a :class:`~optuna_quant.costs.KnownObjective` it predicts what
                it has a table for; otherwise what the trial has recorded counts.
        """
        found = as_objective(objective)
        measures = self.measures(found)
        return found.cost(measures, {})

    def measures(self, objective: ObjectiveLike) -> dict[str, float]:
        """What is known of what the model costs, by measure.

        Args:
            objective:
                What predicts measures, if it is a :class:`~optuna_quant.costs.KnownObjective`.
        """
        if isinstance(objective, KnownObjective):
            measures = dict(objective.measures_of_trial(self.trial))
        else:
            measures = dict(self.view.costs)
        measures[OPS] = float(self.fallback_ops)
        if math.isfinite(self.model_bytes):
            measures[SIZE] = float(self.model_bytes)
        return measures

    def order(self, objective: ObjectiveLike) -> tuple[float, ...]:
        """Sorts by cost; of equals, by the better metric, then by the trial's number.

        Where the cost is not known, it is the number of ops in fallback.
        """
        worse = -self.metric if self.higher_is_better else self.metric
        cost = self.cost(objective)
        if not math.isfinite(cost):
            return (cost, self.fallback_ops, worse, self.trial.number)
        # Sums of the same costs in another order are equal.
        return (float(f"{cost:.9e}"), 0, worse, self.trial.number)


def candidates(
    study: optuna.Study,
    criterion: AccuracyCriterion,
    trials: Iterable[FrozenTrial] | None = None,
) -> list[Candidate]:
    """The complete trials of quantized models, judged; empty without a baseline.

    The FP32 baseline is not among them, nor is any other model without a quantized op.

    Args:
        study:
            The study.
        criterion:
            What judges them.
        trials:
            The study's trials, if they have been read already.

    Returns:
        A candidate for each trial, in the order of the trials.

    Raises:
        ValueError:
            If the baseline is zero and the criterion is relative.
    """
    baseline = get_baseline(study)
    if baseline is None:
        return []
    if trials is None:
        trials = study.get_trials(deepcopy=False)
    return [
        _candidate(view, view.trial.values[0], criterion, baseline.value)
        for view in map(TrialView, trials)
        if view.is_complete and view.is_quantized
    ]


def fp32_candidate(study: optuna.Study, criterion: AccuracyCriterion) -> Candidate | None:
    """The FP32 model, for where that is the answer; :obj:`None` if it has no trial of its own.

    Args:
        study:
            The study.
        criterion:
            What judges it.
    """
    trial, baseline = fp32_trial(study), get_baseline(study)
    if trial is None or baseline is None:
        return None
    return _candidate(TrialView(trial), trial.values[0], criterion, baseline.value)


def partial_candidates(study: optuna.Study, criterion: AccuracyCriterion) -> list[Candidate]:
    """The trials of quantized models that were evaluated on a part of the samples.

    Args:
        study:
            The study.
        criterion:
            What judges them.

    Returns:
        A candidate for each trial whose estimate is known, in the order of the trials; empty
        without a baseline.
    """
    baseline = get_baseline(study)
    if baseline is None:
        return []
    found = []
    for view in map(TrialView, study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))):
        evidence = view.evidence
        if evidence is None or evidence.estimate is None or not view.is_quantized:
            continue
        seen = _candidate(view, evidence.estimate, criterion, baseline.value)
        found.append(replace(seen, samples=(evidence.samples, evidence.of)))
    return found


def _candidate(
    view: TrialView, metric: float, criterion: AccuracyCriterion, baseline: float
) -> Candidate:
    return Candidate(
        trial=view.trial,
        metric=metric,
        violation=criterion.violation(metric, baseline),
        fallback_ops=view.fallback_ops,
        model_bytes=math.inf if view.model_bytes is None else view.model_bytes,
        higher_is_better=criterion.higher_is_better,
    )


def fp32_trial(
    study: optuna.Study, trials: Sequence[FrozenTrial] | None = None
) -> FrozenTrial | None:
    """The complete trial of the FP32 model; of several the one that has measured the baseline.

    Args:
        study:
            The study.
        trials:
            The study's trials, if they have been read already.

    Returns:
        The trial; :obj:`None` if FP32 has none of its own. It must not be changed.
    """
    if trials is None:
        trials = study.get_trials(deepcopy=False)
    baseline = get_baseline(study)
    measured = None if baseline is None else baseline.trial
    views = map(TrialView, trials)
    found = [view for view in views if view.is_complete and view.is_baseline]
    first = min(found, key=lambda view: (view.number != measured, view.number), default=None)
    return None if first is None else first.trial


def ranked(found: Iterable[Candidate], objective: ObjectiveLike = OPS) -> list[Candidate]:
    """The candidates that meet the criterion, the best first.

    Args:
        found:
            The candidates.
        objective:
            What is best, see :func:`best_met_trial`.

    Raises:
        ValueError:
            If the objective is not known.
    """
    chosen = as_objective(objective)
    return sorted((c for c in found if c.met), key=lambda c: c.order(chosen))


def closest(found: Iterable[Candidate], objective: ObjectiveLike = OPS) -> Candidate | None:
    """The candidate with the smallest violation; of equals the best, see :func:`ranked`.

    Args:
        found:
            The candidates.
        objective:
            What is best, see :func:`best_met_trial`.

    Returns:
        The candidate; :obj:`None` if there is none.

    Raises:
        ValueError:
            If the objective is not known.
    """
    chosen = as_objective(objective)
    return min(found, key=lambda c: (c.violation, *c.order(chosen)), default=None)


def best_met_trial(
    study: optuna.Study, criterion: AccuracyCriterion, objective: ObjectiveLike = OPS
) -> FrozenTrial | None:
    """The best of the trials that meet the criterion.

    Args:
        study:
            The study. Its baseline must have been measured.
        criterion:
            When a metric is good enough.
        objective:
            What is best, as :func:`optuna_quant.costs.as_objective` takes it: by default the
            fewest ops in fallback. Of equal ones the better metric, then the earlier trial.

    Returns:
        A complete trial of a quantized model, never the FP32 baseline; :obj:`None` if no trial
        meets the criterion. It must not be changed.
    """
    met = ranked(candidates(study, criterion), objective)
    return met[0].trial if met else None


def closest_trial(
    study: optuna.Study, criterion: AccuracyCriterion, objective: ObjectiveLike = OPS
) -> FrozenTrial | None:
    """The trial that comes closest to the criterion, for when none meets it.

    Args:
        study:
            The study. Its baseline must have been measured.
        criterion:
            When a metric is good enough.
        objective:
            What is better among equally close ones, see :func:`best_met_trial`.

    Returns:
        The complete trial of a quantized model with the smallest violation; :obj:`None` if there
        is no such trial. It must not be changed.
    """
    nearest = closest(candidates(study, criterion), objective)
    return None if nearest is None else nearest.trial
