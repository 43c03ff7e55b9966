"""What was found, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.costs.worth import shown_not_better
from optuna_quant.report.facts import AnswerFacts
from optuna_quant.report.facts import GainFacts
from optuna_quant.report.facts import HoldoutFacts
from optuna_quant.report.facts import OutcomeFacts
from optuna_quant.report.facts import SecondEvaluationFacts
from optuna_quant.report.facts import SimulationFacts
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.outcome import ResultKind
from optuna_quant.tuning.summary import cost_text
from optuna_quant.tuning.summary import headline
from optuna_quant.tuning.summary import ops_line
from optuna_quant.tuning.summary import shown_not_repeated
from optuna_quant.tuning.summary import summary


if TYPE_CHECKING:
    from optuna_quant.costs.gain import Gain
    from optuna_quant.tuning.outcome import Outcome


_LABELS: Mapping[ResultKind, str] = MappingProxyType(
    {
        ResultKind.MET: "met",
        ResultKind.HOLDOUT_MISSED: "missed on the hold-out set",
        ResultKind.NOTHING_EVALUATED: "not met: nothing was evaluated",
        ResultKind.NOT_REPRODUCIBLE: "not reproducible",
        ResultKind.NOT_FULLY_EVALUATED: "not fully evaluated",
        ResultKind.NOT_MET: "not met",
    }
)


def outcome_facts(result: Outcome) -> OutcomeFacts:
    """What the search has ended with, as the result and its summary say it.

    Args:
        result:
            The result.
    """
    return OutcomeFacts(
        kind=result.kind.value,
        label=_label(result),
        headline=headline(result),
        met=result.met,
        is_better_than_fp32=result.is_better_than_fp32,
        is_fp32=result.is_fp32,
        is_reproducible=result.is_reproducible,
        warnings=tuple(result.warnings),
        other_recipes=result.other_recipes if result.recipes_may_help else (),
        summary=tuple(summary(result).splitlines()),
    )


def _label(result: Outcome) -> str:
    if result.kind == ResultKind.FP32:
        return f"no gain: {result.original} is best"
    if result.kind == ResultKind.MET_WITHOUT_GAIN:
        return f"met, but {shown_not_better(result.objective)}"
    return _LABELS[result.kind]


def answer_facts(result: Outcome) -> AnswerFacts | None:
    """The model that the result is about; :obj:`None` if no model was evaluated.

    Args:
        result:
            The result.
    """
    config, trial = result.config, result.trial
    if config is None or trial is None:
        return None
    view, criterion = TrialView(trial), result.criterion
    evidence = view.evidence
    seen, of = result.samples or (None, None)
    if seen is None and evidence is not None:
        seen, of = evidence.samples, evidence.of
    return AnswerFacts(
        trial=trial.number,
        metric=result.metric,
        loss=result.loss,
        loss_text=None if result.loss is None else criterion.show(result.loss),
        loss_interval=result.loss_interval,
        models_compared=result.models_compared,
        samples=seen,
        of_samples=of,
        objective=result.objective,
        cost=result.cost,
        cost_text=cost_text(result),
        nbytes=result.nbytes,
        quantized_ops=len(config.quantized_ops),
        fallback_ops=len(config.fallback_ops),
        left_out_ops=len(result.left_out),
        runs=ops_line(result),
        recipes={name: str(value) for name, value in config.recipes.items()},
        calibration_size=config.calibration_size,
        other_params=view.other_params,
        note=result.note,
        batches=None if result.batches is None else str(result.batches),
        simulation=_simulation(result),
        second_evaluation=_second_evaluation(result),
        holdout=_holdout(result),
    )


def gain_facts(gain: Gain | None) -> GainFacts | None:
    """What was measured beside the FP32 model; :obj:`None` if nothing was.

    Args:
        gain:
            The measurement.
    """
    if gain is None:
        return None
    ratio = gain.time_ratio
    return GainFacts(
        seconds=gain.seconds,
        fp32_seconds=gain.fp32_seconds,
        time_ratio=gain.ratio,
        time_ratio_interval=None if ratio is None else (ratio.low, ratio.high),
        is_faster=gain.is_faster,
        nbytes=gain.nbytes,
        fp32_bytes=gain.fp32_bytes,
        batch=gain.batch,
        threads=gain.threads,
        runs=gain.runs,
        text=str(gain),
    )


def _simulation(result: Outcome) -> SimulationFacts | None:
    found = result.simulation
    if found is None:
        return None
    differs = found.difference
    return SimulationFacts(
        metric=found.metric,
        metric_difference=None if result.metric is None else found.metric - result.metric,
        samples=None if differs is None else differs.samples,
        of=None if differs is None else differs.of,
        agreement=None if differs is None else differs.agreement,
        largest_difference=None if differs is None else differs.largest,
        relative_difference=None if differs is None else differs.relative,
        text=found.beside(result.metric),
    )


def _second_evaluation(result: Outcome) -> SecondEvaluationFacts | None:
    if result.not_repeatable is not None:
        text = f"a second evaluation failed: {result.not_repeatable}"
        return SecondEvaluationFacts(done=True, agrees=False, text=text)
    if result.not_repeated is not None:
        text = shown_not_repeated(result.not_repeated)
        return SecondEvaluationFacts(done=False, agrees=True, text=text)
    found = result.second_evaluation
    if found is None:
        return None
    text = (
        found.shown(result.criterion)
        if found.differs
        else "a second evaluation gave the same metric"
    )
    return SecondEvaluationFacts(done=True, agrees=found.meets(result.criterion), text=text)


def _holdout(result: Outcome) -> HoldoutFacts | None:
    found = result.holdout
    if found is None and result.holdout_missing is None:
        return None
    return HoldoutFacts(
        metric=None if found is None else found.metric,
        baseline=None if found is None else found.baseline,
        loss=None if found is None else found.loss,
        loss_interval=None if found is None else found.loss_interval,
        met=None if found is None else found.met,
        samples=None if found is None else found.samples,
        missing=result.holdout_missing,
    )
