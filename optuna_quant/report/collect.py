"""Collect the facts of a result."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from optuna_quant.backends.base import simulated_target_of
from optuna_quant.report.answer import answer_facts
from optuna_quant.report.answer import gain_facts
from optuna_quant.report.answer import outcome_facts
from optuna_quant.report.environment import environment_facts
from optuna_quant.report.facts import FORMAT
from optuna_quant.report.facts import RECORD
from optuna_quant.report.facts import SEARCH
from optuna_quant.report.facts import BaselineFacts
from optuna_quant.report.facts import CriterionFacts
from optuna_quant.report.facts import EffortFacts
from optuna_quant.report.facts import InputFacts
from optuna_quant.report.facts import ModelFacts
from optuna_quant.report.facts import NotSearchedFacts
from optuna_quant.report.ops import op_facts
from optuna_quant.report.report import Report
from optuna_quant.report.reproduce import reproduce_facts
from optuna_quant.report.searched import search_facts
from optuna_quant.report.times import time_facts
from optuna_quant.space.left_out import by_reason
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.evaluation_cost import second_evaluations
from optuna_quant.study.evaluation_cost import sensitivity_evaluations
from optuna_quant.study.names import given_name
from optuna_quant.study.names import model_of_study
from optuna_quant.study.trial_view import views
from optuna_quant.tuning.output import files_of
from optuna_quant.tuning.recorded_outcome import is_recorded
from optuna_quant.tuning.recorded_outcome import recorded_outcome


if TYPE_CHECKING:
    import optuna

    from optuna_quant.space.capability import Capability
    from optuna_quant.tuning.outcome import Outcome


def collect(result: Outcome) -> Report:
    """The facts of a result.

    Nothing is judged here: whether the criterion is met, and what that is worth, is what the
    result says. The runtime is asked what it executes, once for each result.

    Args:
        result:
            The result of a search.
    """
    model = _model_facts(result)
    return Report(
        format=FORMAT,
        source=RECORD if is_recorded(result) else SEARCH,
        title=_title(result, model),
        outcome=outcome_facts(result),
        environment=environment_facts(result),
        model=model,
        criterion=_criterion_facts(result),
        baseline=_baseline_facts(result),
        answer=answer_facts(result),
        gain=gain_facts(result.gain),
        ops=op_facts(result),
        not_searched=_not_searched(result),
        search=search_facts(result),
        time=time_facts(result.study),
        effort=EffortFacts(
            trials=sum(view.is_finished for view in views(result.study)),
            models=result.models_compared,
            full_evaluations=result.full_evaluations,
            sensitivity_evaluations=sensitivity_evaluations(result.study),
            second_evaluations=second_evaluations(result.study),
        ),
        reproduce=reproduce_facts(result),
    )


def collect_recorded(study: optuna.Study) -> Report:
    """The facts that the record of a study holds, without the model and without its data.

    What only a runtime can tell (what is executed, the inputs of the model) and what a search
    does not write down (measured time, the result on a hold-out set) is not known then.

    Args:
        study:
            A study that this package has searched. It is only read.

    Raises:
        ValueError:
            If it holds no search, or its objective is not in the record.
    """
    return collect(recorded_outcome(study))


def _model_facts(result: Outcome) -> ModelFacts:
    file = files_of(result.backend).get("model")
    capability = _capability(result)
    ops = result.space.tunables if capability is None else capability.ops
    types = Counter(each.op_type for each in ops)
    return ModelFacts(
        file=None if file is None else str(file),
        fingerprint=model_of_study(result.study),
        nbytes=result.fp32_bytes,
        ops=None if capability is None else len(capability.ops),
        ops_in_space=sum(len(tunable.ops) for tunable in result.space.tunables),
        op_types=dict(types.most_common()),
        inputs=_inputs(result),
        original=result.original,
        target=simulated_target_of(result.backend),
    )


def _title(result: Outcome, model: ModelFacts) -> str:
    """What a report is called: as the model's file, or as the study, if somebody has named it."""
    if model.file is not None:
        return PurePath(model.file).name
    return given_name(result.study.study_name) or "Quantization search"


def _not_searched(result: Outcome) -> tuple[NotSearchedFacts, ...]:
    return tuple(
        NotSearchedFacts(
            reason=group.reason,
            remedy=group.remedy,
            op_types=dict(Counter(each.op_type for each in group.ops).most_common()),
            ops=tuple(each.op for each in group.ops),
        )
        for group in by_reason(result.not_searched)
    )


def _capability(result: Outcome) -> Capability | None:
    return None if is_recorded(result) else result.backend.capability()


def _inputs(result: Outcome) -> tuple[InputFacts, ...]:
    """The inputs of the model; none if the runtime cannot be asked."""
    if is_recorded(result):
        return ()
    try:
        inputs = result.backend.quantize(result.space.fp32()).inputs
    except Exception:  # A report is not worth an error: building the model raises it.
        return ()
    return tuple(
        InputFacts(name=each.name, dtype=each.dtype.name, shape=each.shape) for each in inputs
    )


def _criterion_facts(result: Outcome) -> CriterionFacts:
    criterion, baseline = result.criterion, result.baseline
    return CriterionFacts(
        text=str(criterion),
        criterion=criterion.criterion,
        tolerable_loss=criterion.tolerable_loss,
        tolerable_loss_text=criterion.show(criterion.tolerable_loss),
        higher_is_better=criterion.higher_is_better,
        threshold=None if baseline is None else criterion.threshold(baseline),
    )


def _baseline_facts(result: Outcome) -> BaselineFacts | None:
    baseline = get_baseline(result.study)
    if baseline is None:
        return None
    found = (view.evidence for view in views(result.study))
    samples = max((evidence.of for evidence in found if evidence is not None), default=None)
    return BaselineFacts(metric=baseline.value, trial=baseline.trial, samples=samples)
