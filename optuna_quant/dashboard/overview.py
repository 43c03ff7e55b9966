"""What the record of a study says as a whole: the outcome, the best trial, and counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from dataclasses import field
import enum
import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.callbacks import StopReason
from optuna_quant.costs.objective import OPS
from optuna_quant.dashboard.deployable import objective_of
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import closest
from optuna_quant.selection.answer import fp32_trial
from optuna_quant.selection.answer import partial_candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.sequential import Decision
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.measured_once import measured_first
from optuna_quant.tuning.recorded_study import RecordedTrials
from optuna_quant.tuning.second_evaluation import is_refuted


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.costs.objective import Objective
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.study.baseline import Baseline


class Outcome(enum.StrEnum):
    """How a search stands."""

    MET = "met"
    NOT_MET = "not met"
    NOT_REPEATED = "not met again"
    NOT_FULLY_EVALUATED = "not fully evaluated"
    NO_GAIN = "no gain"
    NOTHING = "nothing evaluated yet"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The record of a study as a whole.

    Args:
        study_name:
            The name of the study.
        metric_name:
            What the metric is called.
        criterion:
            The criterion that the study was started with.
        objective:
            What is best among the models that meet it.
        baseline:
            The FP32 model's metric; None if it was not measured.
        fp32:
            What the FP32 model costs, by measure, as far as a trial has recorded it.
        outcome:
            How the search stands.
        best:
            The answer, or what comes closest to one; None if there is neither.
        stopped_because:
            Why the search stopped, in a sentence; None while it runs.
        counts:
            How many trials there are, by what came out of them.
    """

    study_name: str
    metric_name: str
    criterion: AccuracyCriterion
    objective: Objective
    baseline: Baseline | None
    fp32: Mapping[str, float]
    outcome: Outcome
    best: Candidate | None
    stopped_because: str | None
    counts: Mapping[str, int] = field(default_factory=dict)


def read_overview(study: optuna.Study) -> Overview:
    """Read the record of a study as a whole.

    Args:
        study:
            The study. It is only read.
    """
    every = study.get_trials(deepcopy=False)
    trials = [trial for trial in every if not TrialView(trial).is_foreign]
    criterion, objective = RecordedTrials(study).criterion, objective_of(study)
    found = candidates(study, criterion, trials)
    met = measured_first(study, ranked(found, objective), objective)
    partial = partial_candidates(study, criterion)
    stop = study.user_attrs.get(record.STOPPED_BECAUSE) or {}
    outcome, best = _outcome(met, found, partial, objective, stop.get("reason"))
    baseline = get_baseline(study)
    value = None if baseline is None else baseline.value
    if met and value is not None and is_refuted(study, met[0].trial, criterion, baseline=value):
        outcome = Outcome.NOT_REPEATED
    counts = _counts(trials, met, is_judged=baseline is not None)
    if outcome is Outcome.NOTHING and counts.get(_NOT_JUDGED):
        outcome = Outcome.NOT_JUDGED
    return Overview(
        study_name=study.study_name,
        metric_name=metric_name(study),
        criterion=criterion,
        objective=objective,
        baseline=baseline,
        fp32=fp32_measures(study, trials),
        outcome=outcome,
        best=best,
        stopped_because=stop.get("message"),
        counts=counts,
    )


def metric_name(study: optuna.Study) -> str:
    """What the metric of a study is called: as the study says, or as its samples do."""
    names = study.metric_names
    if names:
        return str(names[0])
    population = read_population(study)
    return population.metric_name if population and population.metric_name else "metric"


def fp32_measures(
    study: optuna.Study, trials: Sequence[FrozenTrial] | None = None
) -> dict[str, float]:
    """What the FP32 model costs, by measure, as far as a trial has recorded it."""
    trial = fp32_trial(study, trials)
    return {} if trial is None else dict(TrialView(trial).costs)


def _outcome(
    met: Sequence[Candidate],
    found: Sequence[Candidate],
    partial: Sequence[Candidate],
    objective: Objective,
    reason: str | None,
) -> tuple[Outcome, Candidate | None]:
    if met:
        return Outcome.MET, met[0]
    if reason == StopReason.NO_GAIN:
        return Outcome.NO_GAIN, None
    promising = [c for c in partial if _may_meet(c)]
    if promising:
        return Outcome.NOT_FULLY_EVALUATED, closest(promising, objective)
    nearest = closest(found, objective) or closest(partial, objective)
    return (Outcome.NOTHING if nearest is None else Outcome.NOT_MET), nearest


def _may_meet(candidate: Candidate) -> bool:
    evidence = candidate.view.evidence
    return evidence is not None and evidence.decision in (
        Decision.MEETS,
        Decision.PROVISIONALLY_MET,
    )


def _counts(
    trials: Sequence[FrozenTrial], met: Sequence[Candidate], *, is_judged: bool
) -> dict[str, int]:
    """How many trials came out how; without a baseline no model is judged."""
    meets = {candidate.trial.number for candidate in met} if is_judged else None
    found = Counter(_kind(TrialView(trial), meets) for trial in trials)
    return {kind: found[kind] for kind in _KINDS if found[kind]}


_NOT_JUDGED = "not judged"
_KINDS = ("met", "not met", _NOT_JUDGED, "stopped early", "FP32", "failed", "running", "waiting")


def _kind(view: TrialView, meets: set[int] | None) -> str:
    if view.state in (TrialState.RUNNING, TrialState.WAITING):
        return view.state.name.lower()
    if view.state == TrialState.FAIL:
        return "failed"
    if view.state == TrialState.PRUNED:
        return "stopped early"
    if not view.is_quantized:
        return "FP32"
    if meets is None:
        return _NOT_JUDGED
    return "met" if view.number in meets else "not met"


def shown_gain(measures: Mapping[str, float], fp32: Mapping[str, float]) -> str:
    """What a model costs beside FP32, in percent by measure: ``latency 43%, size 26% of FP32``.

    Args:
        measures:
            What the model costs, by measure.
        fp32:
            The same of the FP32 model.

    Returns:
        The text; empty if nothing is known of both. The ops in fallback are not among them.
    """
    parts = [
        f"{name.replace('_', ' ')} {100 * measures[name] / value:.3g}%"
        for name, value in fp32.items()
        if name != OPS and value > 0 and math.isfinite(measures.get(name, math.inf))
    ]
    return f"{', '.join(parts)} of FP32" if parts else ""
