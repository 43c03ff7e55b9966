"""How a search went: its stages and trials, and why it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.callbacks import StopReason
from optuna_quant.report.facts import SearchFacts
from optuna_quant.report.facts import StageFacts
from optuna_quant.report.facts import TrialFacts
from optuna_quant.sequential import Decision
from optuna_quant.study.trial_view import views
from optuna_quant.tuning.findings import find_findings
from optuna_quant.tuning.findings import strategy_of
from optuna_quant.tuning.recorded_outcome import is_recorded
from optuna_quant.workers.identity import process_of


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.study.trial_view import TrialView
    from optuna_quant.tuning.outcome import Outcome


BASELINE, MET, MISSED = "baseline", "met", "missed"
GIVEN_UP, PROMISING, UNDECIDED = "given up", "promising", "undecided"
FAILED, INTERRUPTED, RUNNING = "failed", "interrupted", "not ended"


def search_facts(result: Outcome) -> SearchFacts:
    """How the search went, from its record.

    Args:
        result:
            The result.
    """
    found = views(result.study)
    starts = [v.trial.datetime_start for v in found if v.trial.datetime_start is not None]
    ends = [v.trial.datetime_complete for v in found if v.trial.datetime_complete is not None]
    processes = {process_of(v.worker) for v in found if v.worker is not None}
    explanation = "" if result.explanation is None else str(result.explanation)
    return SearchFacts(
        study=result.study.study_name,
        strategy=_strategy(result),
        objective=result.objective,
        stopped_because=StopReason(result.stopped_because).value,
        message=result.message,
        started=min(starts).isoformat(sep=" ", timespec="seconds") if starts else None,
        ended=max(ends).isoformat(sep=" ", timespec="seconds") if ends else None,
        workers=len(processes),
        stages=_stages(found),
        trials=tuple(_trial_facts(view, result) for view in found),
        races=tuple(map(str, result.races)),
        abandoned=tuple(map(str, result.abandoned)),
        explanation=tuple(explanation.splitlines()),
    )


def _strategy(result: Outcome) -> str | None:
    """The name of the strategy; None if none was started, or the record does not say it."""
    if not is_recorded(result):
        return strategy_of(result)
    found = find_findings(result.study)
    return None if found is None else found.strategy


def _stages(found: Sequence[TrialView]) -> tuple[StageFacts, ...]:
    """The stages in the order in which they began."""
    by_stage: dict[str, list[TrialView]] = {}
    for view in found:
        by_stage.setdefault(view.stage or "", []).append(view)
    return tuple(
        StageFacts(
            name=name,
            trials=len(trials),
            reused=sum(view.reused_from is not None for view in trials),
            failed=sum(view.has_failed_itself for view in trials),
            evaluations=sum(map(_evaluations, trials)),
            seconds=sum(_seconds(view) or 0.0 for view in trials),
        )
        for name, trials in by_stage.items()
    )


def _trial_facts(view: TrialView, result: Outcome) -> TrialFacts:
    evidence = view.evidence
    metric = view.metric if view.is_complete else None
    if metric is None and evidence is not None:
        metric = evidence.estimate
    loss = None
    if metric is not None and result.baseline is not None:
        loss = result.criterion.loss(metric, result.baseline)
    return TrialFacts(
        number=view.number,
        stage=view.stage,
        outcome=_outcome(view, result),
        metric=metric,
        loss=loss,
        samples=None if evidence is None else evidence.samples,
        of_samples=None if evidence is None else evidence.of,
        fallback_ops=view.fallback_ops,
        nbytes=view.model_bytes,
        costs=dict(view.costs),
        seconds=_seconds(view),
        reused_from=view.reused_from,
        continues=view.continues,
        other_params=view.other_params,
        reason=view.failure or (None if evidence is None else evidence.reason),
    )


def _outcome(view: TrialView, result: Outcome) -> str:
    """What a trial has ended with; one that was evaluated in full by the result's criterion."""
    if not view.is_finished:
        return RUNNING
    if view.is_complete and view.metric is not None:
        if not view.is_quantized:
            return BASELINE
        if result.baseline is None:
            return UNDECIDED
        return MET if result.criterion.meets(view.metric, result.baseline) else MISSED
    if view.is_interrupted:
        return INTERRUPTED
    evidence = view.evidence
    if view.has_failed_itself or evidence is None:
        return FAILED
    if evidence.decision == Decision.FAILS:
        return GIVEN_UP
    return PROMISING if evidence.decision == Decision.PROVISIONALLY_MET else UNDECIDED


def _evaluations(view: TrialView) -> float:
    """What a trial has evaluated itself, in full evaluations."""
    if view.evidence is not None:
        return view.evidence.cost
    return float(view.is_complete and view.reused_from is None)


def _seconds(view: TrialView) -> float | None:
    duration = view.trial.duration
    return None if duration is None else duration.total_seconds()
