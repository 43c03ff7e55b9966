"""The front of a study: the models that no other beats in both metric and cost."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.costs.dominance import non_dominated
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import Objective
from optuna_quant.costs.objective import ObjectiveLike
from optuna_quant.costs.objective import as_objective
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import partial_candidates
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    import pandas as pd

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.selection.answer import Candidate


_logger = get_logger(__name__)


@dataclass(frozen=True)
class FrontPoint:
    """A model on the front.

    Args:
        trial:
            The number of the trial that evaluated it; :obj:`None` for an FP32 model whose metric
            was measured elsewhere or beside another trial's.
        metric:
            Its metric; an estimate if only some of the samples were seen.
        loss:
            Its loss against the baseline, as the criterion defines it.
        cost:
            What it costs by the objective.
        measures:
            All that is known of what it costs, by measure.
        fallback_ops:
            How many of its ops are not quantized.
        met:
            Whether it meets the criterion, on all samples. The FP32 model does.
        is_fp32:
            Whether nothing is quantized.
        samples:
            On how many of the samples it was evaluated, ``(seen, of)``, if not on all.
    """

    trial: int | None
    metric: float
    loss: float
    cost: float
    measures: Mapping[str, float] = field(hash=False)
    fallback_ops: int
    met: bool
    is_fp32: bool = False
    samples: tuple[int, int] | None = None

    @property
    def evaluated(self) -> float:
        """On what part of the samples it was evaluated."""
        return 1.0 if self.samples is None else self.samples[0] / self.samples[1]


def shown_unknown(
    study: optuna.Study, objective: Objective, models: Iterable[Mapping[str, float]]
) -> str:
    """That no model's cost is known by an objective, and what is known.

    Args:
        study:
            The study.
        objective:
            The objective.
        models:
            The measures of its models.
    """
    measures = sorted({name for measures in models for name in measures})
    return (
        f"The costs of the models of the study {study.study_name!r} by the objective "
        f"{objective.name!r} are not known; known are: {', '.join(measures)}. Use one of these, "
        "or a KnownObjective with a cost table that has it."
    )


def front_points(
    study: optuna.Study,
    criterion: AccuracyCriterion,
    objective: ObjectiveLike = OPS,
    *,
    partial: bool = False,
) -> list[FrontPoint]:
    """The models of a study that no other beats in both metric and cost, the cheapest first.

    One model beats another if it is no worse in both and better in one. Of models that are equal
    in both, the one with the fewest ops in fallback stands for all, then the first. The FP32 model
    is among them, unless something is as good and cheaper. Nothing is evaluated or built.

    Args:
        study:
            The study, with one objective or several, of which the first is the metric. Its
            baseline must have been measured.
        criterion:
            What the loss is, and when it is small enough.
        objective:
            What models cost, as :func:`optuna_quant.costs.as_objective` takes it. As a
            :class:`~optuna_quant.costs.KnownObjective` it predicts what trials have not recorded.
        partial:
            Whether models that were evaluated on a part of the samples are shown as well, by
            their estimates: those that neither a fully evaluated one nor another of them beats.
            They take nothing from the front of the others.

    Raises:
        ValueError:
            If the objective is not known or the study's direction contradicts the criterion; or
            if no trial has recorded what the objective needs.
    """
    full, estimated = study_points(study, criterion, objective)
    if not full:
        return []
    chosen = as_objective(objective)
    known = [point for point in full if _is_known(point)]
    if len(full) > 1 and not any(not point.is_fp32 for point in known):
        raise ValueError(shown_unknown(study, chosen, [point.measures for point in full]))
    if len(known) < len(full):
        _logger.warning(
            f"{len(full) - len(known)} of {len(full)} models are not considered for the front, "
            f"because their metric is not finite or their cost by the objective "
            f"{chosen.name!r} is not known."
        )
    found = _front(known, criterion)
    if partial:
        furthest = _furthest(estimated, study.get_trials(deepcopy=False))
        left = _front([*found, *filter(_is_known, furthest)], criterion)
        found = [*found, *(point for point in left if point.samples is not None)]
    return sorted(found, key=lambda point: _order(point, criterion))


def study_points(
    study: optuna.Study, criterion: AccuracyCriterion, objective: ObjectiveLike = OPS
) -> tuple[list[FrontPoint], list[FrontPoint]]:
    """All models that a study has evaluated, on the front or not.

    Args:
        study:
            The study, as for :func:`front_points`.
        criterion:
            What the loss is, and when it is small enough.
        objective:
            What models cost; infinite where that is not known.

    Returns:
        The models that were evaluated on all samples, in the order of the trials, with FP32 as
        the last; and those that were evaluated on a part, by their estimates. Both are empty
        without a baseline.

    Raises:
        ValueError:
            If the objective is not known or the study's direction contradicts the criterion.
    """
    criterion.check_direction(study)
    chosen = as_objective(objective)
    baseline = get_baseline(study)
    if baseline is None:
        return [], []
    full, estimated = (
        [_point(each, criterion, chosen, baseline.value) for each in found]
        for found in (candidates(study, criterion), partial_candidates(study, criterion))
    )
    trials = study.get_trials(deepcopy=False)
    return [*full, _fp32_point(baseline, trials, chosen, full)], estimated


def front_frame(points: Sequence[FrontPoint], objective: Objective) -> pd.DataFrame:
    """A front as a table, a row per model; see :meth:`optuna_quant.TuningResult.front`.

    Args:
        points:
            The points.
        objective:
            What their cost is.
    """
    import pandas as pd

    others = sorted({m for point in points for m in point.measures} - {objective.name, OPS})
    columns = ["trial", "metric", "loss", objective.name, *others]
    columns += ["fallback_ops", "met", "evaluated"]
    rows = [
        {
            **{measure: point.measures.get(measure, math.nan) for measure in others},
            "trial": point.trial,
            "metric": point.metric,
            "loss": point.loss,
            objective.name: point.cost,
            "fallback_ops": point.fallback_ops,
            "met": point.met,
            "evaluated": point.evaluated,
        }
        for point in points
    ]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))
    return frame.astype({"trial": "Int64"})


def _front(points: Sequence[FrontPoint], criterion: AccuracyCriterion) -> list[FrontPoint]:
    ordered = sorted(points, key=lambda point: _order(point, criterion))
    values = [_values(point, criterion) for point in ordered]
    found: dict[tuple[float, float], FrontPoint] = {}
    for i in non_dominated(values):
        found.setdefault(values[i], ordered[i])
    return list(found.values())


def _is_known(point: FrontPoint) -> bool:
    return math.isfinite(point.cost) and math.isfinite(point.metric)


def _values(point: FrontPoint, criterion: AccuracyCriterion) -> tuple[float, float]:
    # Sums of the same costs in another order are equal.
    worse = -point.metric if criterion.higher_is_better else point.metric
    return float(f"{point.cost:.9e}"), worse


def _order(point: FrontPoint, criterion: AccuracyCriterion) -> tuple[float, ...]:
    number = -1 if point.trial is None else point.trial
    is_partial = point.samples is not None
    return (*_values(point, criterion), is_partial, point.fallback_ops, number)


def _point(
    candidate: Candidate, criterion: AccuracyCriterion, objective: Objective, baseline: float
) -> FrontPoint:
    return FrontPoint(
        trial=candidate.trial.number,
        metric=candidate.metric,
        loss=criterion.loss(candidate.metric, baseline),
        cost=candidate.cost(objective),
        measures=candidate.measures(objective),
        fallback_ops=candidate.fallback_ops,
        met=candidate.met,
        samples=candidate.samples,
    )


def _fp32_point(
    baseline: Baseline,
    trials: Sequence[FrozenTrial],
    objective: Objective,
    others: Sequence[FrontPoint],
) -> FrontPoint:
    """The FP32 model, with what is known of its costs, from whichever trial has built it."""
    own = [view for view in map(TrialView, trials) if view.is_complete and not view.is_quantized]
    measures: dict[str, float] = {}
    if isinstance(objective, KnownObjective):
        measures |= objective.fp32
    for view in own[:1]:
        size = view.model_bytes
        recorded = {OPS: float(view.fallback_ops), **view.costs}
        measures = {**recorded, **measures} | ({} if size is None else {SIZE: float(size)})
    number = baseline.trial if any(t.number == baseline.trial for t in own) else None
    if number is None and own:
        number = own[0].number
    # How many ops there are is known of each quantized model as well.
    ops = measures.get(OPS, math.inf)
    if not math.isfinite(ops):
        ops = max((point.fallback_ops for point in others), default=0)
    return FrontPoint(
        trial=number,
        metric=baseline.value,
        loss=0.0,
        cost=objective.cost(
            measures, {} if not isinstance(objective, KnownObjective) else objective.fp32
        ),
        measures=measures,
        fallback_ops=int(ops),
        met=True,
        is_fp32=True,
    )


def _furthest(points: Sequence[FrontPoint], trials: Sequence[FrozenTrial]) -> list[FrontPoint]:
    """Of each model the trial that has seen most, unless one has seen all."""
    done = {view.model for view in map(TrialView, trials) if view.is_complete}
    found: dict[object, FrontPoint] = {}
    for point in sorted(points, key=lambda p: -p.evaluated):
        assert point.trial is not None
        name = TrialView(trials[point.trial]).model
        if name not in done:
            found.setdefault(name, point)
    return list(found.values())
