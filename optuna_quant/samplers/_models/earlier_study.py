"""Read from an earlier study's record what a new search can use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
import math
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import TrialState

from optuna_quant.costs.known import fallback_table
from optuna_quant.costs.objective import as_objective
from optuna_quant.costs.recorded_objective import objective_name
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers._engine.sampled import SampledOutcomes
from optuna_quant.samplers._engine.trial_history import TrialHistory
from optuna_quant.samplers._models.option_scores import OptionScores
from optuna_quant.samplers._models.option_scores import kept_scores
from optuna_quant.samplers._models.prior import EarlierLoss
from optuna_quant.samplers._models.prior import StudyPrior
from optuna_quant.samplers._models.prior import kept_prior
from optuna_quant.samplers._models.prior_in_space import PriorInSpace
from optuna_quant.samplers._models.prior_in_space import TakenScores
from optuna_quant.samplers._models.recipe_choice import with_recipes
from optuna_quant.samplers._models.surrogate_policy import SurrogatePolicy
from optuna_quant.samplers._models.surrogate_stages import ANSWER_STAGE
from optuna_quant.samplers._models.surrogate_stages import EARLIER_STAGE
from optuna_quant.samplers._models.surrogate_stages import RECIPES_STAGE
from optuna_quant.samplers._models.surrogate_stages import SEARCH_STAGE
from optuna_quant.samplers._models.surrogate_stages import SIZE_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE
from optuna_quant.samplers._models.surrogate_step import SurrogateOptions
from optuna_quant.samplers._models.threads import single_threaded_blas
from optuna_quant.sequential import Decision
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.criterion import criterion_or_default
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.study.kept_blocks import kept_blocks
from optuna_quant.study.record_check import check_record
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.space_signature import check_protocol
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna

    from optuna_quant.samplers._engine.trial_history import Outcome
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.samplers._models.observed_loss import Observed
    from optuna_quant.space.space import TuningSpace


# More losses cost time in every decision and say little: those nearest to the tolerance count.
_MOST_LOSSES = 40
_OWN_STAGES = (
    START_STAGE,
    SIZE_STAGE,
    RECIPES_STAGE,
    SEARCH_STAGE,
    ANSWER_STAGE,
    EARLIER_STAGE,
)
_CONCLUDED = ("met", "exhausted")
_MIN_GAIN = 0.01  # It decides nothing here.


def study_prior(
    study: optuna.Study,
    *,
    same_model: bool = False,
    same_evaluation: bool = False,
    same_metric: bool = True,
    prefix: str = "quant",
    answer: int | None = None,
) -> StudyPrior:
    """Read from a study the prior of a search in another one.

    The study is only read. It may have been searched by any strategy of this package.

    Args:
        study:
            The earlier study.
        same_model:
            Whether a configuration builds the same model in both studies: the model, the
            calibration data and the backend's options are the same.
        same_evaluation:
            Whether equal models have the same metric in both: the evaluation samples are the
            same.
        same_metric:
            Whether both have the same metric, perhaps on other samples, so that losses can be
            compared.
        prefix:
            The prefix of the tuning space there.
        answer:
            The number of the trial that was its answer. Default: the best by its record.

    Raises:
        DamagedRecordError:
            If its record was edited or damaged.
        ValueError:
            If it was made by something else, by another version that keeps its record in another
            way, has several objectives, or has no trials.
    """
    name = study.study_name
    if len(study.directions) > 1:
        raise ValueError(
            f"The study {name!r} has {len(study.directions)} objectives; start from a study of "
            "the metric alone."
        )
    space = recorded_space(study, prefix)
    check_protocol(study)
    check_record(study)
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    if not any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in finished):
        raise ValueError(
            f"The study {name!r} has no trials with a result, so there is nothing to start "
            "from. Run it first, or start without an earlier study."
        )
    recorded, criterion = recorded_criterion(study), criterion_or_default(study)
    history = TrialHistory(study, space, max_failures=3, max_deaths=10, criterion=criterion)
    history.refresh(study)
    scores = _recorded_scores(study, space)
    objective = objective_name(study)
    found: dict[str, Any] = {
        "study": name,
        "trials": len(finished),
        "op_types": {op: t.op_type for t in space.tunables for op in t.ops},
        "options": {
            op: tuple(option.label for option in t.options) for t in space.tunables for op in t.ops
        },
        "same_model": same_model,
        "same_evaluation": same_evaluation and same_metric,
        "same_metric": same_metric,
        "criterion": {} if recorded is None else asdict(recorded),
        "objective": objective,
        "baseline": history.baseline,
        "scores": scores.scores,
        "of_weights": scores.of_weights,
    }
    if history.threshold is None:
        return StudyPrior(**found)
    kept = kept_prior(study)
    table = fallback_table(space)
    earlier = None if kept is None else PriorInSpace(kept, space, criterion, table)
    taken = TakenScores(scores) if _covers(scores.scores, space) else None
    blocks = kept_blocks(study, space.prefix)
    options = SurrogateOptions(_MIN_GAIN, taken, prior=earlier, blocks=blocks)
    answer_found = _answer(history, space, criterion, objective, answer)
    recipes = space.default().recipes
    if answer_found is not None:
        recipes = QuantConfig.from_json(answer_found["answer"]).recipes
    part = with_recipes(space, recipes)  # The losses with other recipes are those of other ops.
    with single_threaded_blas():
        policy = SurrogatePolicy(part, criterion, table, options, whole=space)
        model, observations = policy.learned(history)
    if kept is not None and answer_found is not None and answer_found["answer"] == kept.answer:
        answer_found["fruitless"] += kept.fruitless
    tolerance = model.scale.tolerance
    if len(observations) > _MOST_LOSSES:
        observations = sorted(observations, key=lambda o: abs(o.loss - tolerance))
    found |= answer_found or {}
    found["losses"] = [_loss(each, history, space) for each in observations[:_MOST_LOSSES]]
    if observations:
        found["factors"] = _factors(space, model)
        found["scale"] = model.learned
    return StudyPrior(**found)


def _recorded_scores(study: optuna.Study, space: TuningSpace) -> OptionScores:
    """The option scores that a study keeps, of the most options; else those it began with."""
    known = kept_scores(study)
    prior = kept_prior(study)
    if prior is not None:
        known.append(OptionScores(prior.scores, 0.0, prior.of_weights))
    ops = set(space.default().ops)
    found = (
        OptionScores(
            {op: dict(labels) for op, labels in each.scores.items() if op in ops},
            0.0,
            {op: part for op, part in each.of_weights.items() if op in ops},
        )
        for each in known
    )
    nothing = OptionScores({}, 0.0)
    return max(found, key=lambda each: sum(map(len, each.scores.values())), default=nothing)


def _covers(scores: Mapping[str, Mapping[str, float]], space: TuningSpace) -> bool:
    """Whether each op has a score in its default."""
    return all(
        t.default.label in scores.get(op, {})
        for t in space.tunables
        if t.quantized
        for op in t.ops
    )


def _answer(
    history: TrialHistory,
    space: TuningSpace,
    criterion: AccuracyCriterion,
    objective: str,
    answer: int | None,
) -> dict[str, Any] | None:
    """The best configuration that met the criterion, with its results."""
    trials = history.study.get_trials(deepcopy=False)
    fp32 = history.outcomes.get(space.fp32().key)
    of_fp32 = {} if fp32 is None else TrialView(trials[fp32.number]).costs
    met = []
    for outcome in history.outcomes.values():
        if not outcome.is_complete or outcome.is_substitute or not _meets(history, outcome):
            continue
        config = space.config_from_params(outcome.params)
        if not config.quantized_ops:
            continue
        costs = TrialView(trials[outcome.number]).costs
        cost = _cost(objective, costs, of_fp32)
        place = outcome.number != answer, cost, len(config.fallback_ops), -outcome.score
        met.append(((*place, outcome.number), outcome, config))
    if not met:
        return None
    (_, cost, *_), outcome, config = min(met, key=lambda each: each[0])
    view = TrialView(trials[outcome.number])
    later = {
        (other.score, other.samples)  # Equal models have the same.
        for other in history.outcomes.values()
        if other.number > outcome.number and other.state != TrialState.FAIL
    }
    stopped = history.study.user_attrs.get(record.STOPPED_BECAUSE, {}).get("reason")
    is_ours = view.stage in _OWN_STAGES
    knows_cost = math.isfinite(cost) or not view.costs
    return {
        "answer": config.to_json(),
        "answer_cost": cost if math.isfinite(cost) else None,
        "is_concluded": is_ours and stopped in _CONCLUDED and knows_cost,
        "fruitless": len(later),
    }


def _meets(history: TrialHistory, outcome: Outcome) -> bool:
    """Whether a configuration meets the criterion of its study."""
    if outcome.value is None or history.threshold is None:
        return False
    beyond = history.threshold - outcome.value
    return beyond * (1 if history.study.directions[0] == StudyDirection.MAXIMIZE else -1) <= 0


def _cost(objective: str, costs: Mapping[str, float], fp32: Mapping[str, float]) -> float:
    """The cost that a trial has recorded; infinite if it is not known."""
    if objective in costs:
        return float(costs[objective])
    try:
        return float(as_objective(objective).cost(costs, fp32))
    except (KeyError, ValueError):  # An objective of the user's.
        return math.inf


def _loss(observed: Observed, history: TrialHistory, space: TuningSpace) -> EarlierLoss:
    config = space.default()
    for tunable, position in zip(space.tunables, observed.options, strict=True):
        config = tunable.set(config, tunable.options[position])
    labels = {op: option.label for op, option in config.ops.items() if option != FP32}
    outcome = history.outcomes.get(config.key)
    failed = False
    if outcome is not None and outcome.is_complete:
        failed = not _meets(history, outcome)
    elif outcome is not None:
        seen = SampledOutcomes().partial_evaluation(history, outcome)
        failed = seen is not None and seen.decision is Decision.FAILS
    return EarlierLoss(labels, float(observed.loss), observed.error, observed.spread, failed)


def _factors(space: TuningSpace, model: LossModel) -> dict[str, dict[str, float]]:
    """The logarithm of what each op adds in each option, over its sensitivity."""
    logs = np.log(model.weights / np.where(model.sensitivities > 0, model.sensitivities, np.nan))
    return {
        op: {
            option.label: float(logs[i, j])
            for j, option in enumerate(tunable.options)
            if math.isfinite(logs[i, j])
        }
        for i, tunable in enumerate(space.tunables)
        for op in tunable.ops
    }
