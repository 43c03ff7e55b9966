"""Choose another answer from the record, without any evaluation."""

from __future__ import annotations

from dataclasses import replace
import math
from typing import TYPE_CHECKING

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Stop
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.objective import as_objective
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.front import shown_unknown
from optuna_quant.tuning.conclude import Found
from optuna_quant.tuning.conclude import conclude
from optuna_quant.tuning.outcome import Outcome


if TYPE_CHECKING:
    from optuna_quant.costs.objective import Objective
    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.criteria import AccuracyCriterion


_NOT_REPEATED = "it was chosen from the record"


def objective_of(result: Outcome, objective: ObjectiveLike | None = None) -> Objective:
    """An objective with what a result knows of costs.

    Args:
        result:
            The result of a search.
        objective:
            The objective. Default: that of the search.

    Raises:
        ValueError:
            If the objective is not known.
    """
    known = result.known_objective
    if objective is None:
        return as_objective(result.objective) if known is None else known
    chosen = as_objective(objective)
    if isinstance(chosen, KnownObjective):
        return chosen
    return KnownObjective(chosen, result.space, None if known is None else known.costs)


def choose(
    result: Found,
    *,
    tolerable_loss: float | None = None,
    criterion: AccuracyCriterion | None = None,
    objective: ObjectiveLike | None = None,
) -> Found:
    """See :meth:`optuna_quant.TuningResult.choose`."""
    if tolerable_loss is not None and criterion is not None:
        raise ValueError(
            f"Either tolerable_loss (got {tolerable_loss!r}) or criterion (got {criterion!r}) "
            "can be given, not both."
        )
    if tolerable_loss is None and criterion is None and objective is None:
        raise ValueError("Nothing to choose by: give tolerable_loss=, criterion= or objective=.")
    judge = result.criterion if criterion is None else criterion
    if tolerable_loss is not None:
        judge = replace(judge, tolerable_loss=tolerable_loss)
    judge.check_direction(result.study)
    chosen = objective_of(result, objective)
    if objective is not None:
        _check_known(result, judge, chosen)
    policy = ExitPolicy(judge, objective=chosen)
    found = conclude(
        type(result),
        result.study,
        Stop(result.stopped_because, _message(result)),
        policy,
        backend=result.backend,
        space=result.space,
        left_out=result.left_out,
    )
    # What the search believes is about its own question.
    found = replace(found, note=result.note, explanation=None, is_chosen=True, call=result.call)
    if found.met:  # Which trial the search would have ended with is not the question here.
        found = replace(found, message=_message(result))
    if found.is_fp32 and found.objective != result.objective:
        found = replace(found, message=_only_fp32(found.objective))
    if found.depends_on_batch:
        found = replace(found, batches=result.batches)
    return _with_what_is_known(found, result)


def _check_known(result: Outcome, criterion: AccuracyCriterion, objective: Objective) -> None:
    """Refuse an objective by which the cost of no model of the record is known."""
    found = candidates(result.study, criterion)
    if found and not any(math.isfinite(each.cost(objective)) for each in found):
        measures = [each.measures(objective) for each in found]
        raise ValueError(shown_unknown(result.study, objective, measures))


def _message(result: Outcome) -> str:
    if result.is_chosen:
        return result.message
    return f"Chosen from the record of a search that stopped: {result.message}"


def _only_fp32(objective: str) -> str:
    return (
        "The record holds only FP32, because no quantized model is better by the objective of "
        f"its search; search with objective={objective!r} to have others."
    )


def _with_what_is_known(found: Found, result: Outcome) -> Found:
    """What a result says of its model beyond the record is true of the same model still."""
    if found.trial is None or result.trial is None or found.trial.number != result.trial.number:
        missing = None if result.holdout is None else _NOT_REPEATED
        return replace(
            found,
            not_repeated=_NOT_REPEATED if found.met else None,
            holdout_missing=missing,
        )
    holdout = result.holdout
    if holdout is not None:
        loss = found.criterion.loss(holdout.metric, holdout.baseline)
        met = found.criterion.meets(holdout.metric, holdout.baseline)
        interval = holdout.loss_interval
        if found.criterion.criterion != result.criterion.criterion:
            interval = None  # It is in the other unit.
        holdout = replace(holdout, loss=loss, met=met, loss_interval=interval)
    found = replace(
        found,
        gain=result.gain,
        second_evaluation=result.second_evaluation,
        not_repeatable=result.not_repeatable,
        not_repeated=result.not_repeated,
        holdout=holdout,
        holdout_missing=result.holdout_missing,
    )
    return replace(found, met=found.met and found.is_reproducible)
