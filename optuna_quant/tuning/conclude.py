"""Choose the answer of a search from the record."""

from __future__ import annotations

from dataclasses import replace
import math
from typing import TYPE_CHECKING
from typing import TypeVar

from optuna.logging import get_logger

from optuna_quant.backends.base import TellsLeftOut
from optuna_quant.backends.base import original_of
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.exit_policy import is_answer
from optuna_quant.callbacks.stop_words import nothing_left
from optuna_quant.costs.cheapest import cheapest_quantized
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.no_gain import NoGain
from optuna_quant.costs.search_problem import may_gain
from optuna_quant.costs.worth import shown_left_out
from optuna_quant.samplers import Explains
from optuna_quant.samplers import ReportsRaces
from optuna_quant.samplers import ReportsSearch
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import closest
from optuna_quant.selection.answer import fp32_candidate
from optuna_quant.selection.answer import partial_candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.selection.chosen_by_samples import models_compared
from optuna_quant.space.left_out import by_reason
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.data_warnings import find_warnings
from optuna_quant.study.evaluation_cost import full_evaluations
from optuna_quant.tuning.finalists import finalists
from optuna_quant.tuning.interval import recorded_interval
from optuna_quant.tuning.measured_once import recorded_measurement
from optuna_quant.tuning.no_gain import explain_no_gain
from optuna_quant.tuning.outcome import Outcome


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.callbacks import ExitPolicy
    from optuna_quant.callbacks import Stop
    from optuna_quant.costs import Objective
    from optuna_quant.costs.gain import Gain
    from optuna_quant.costs.gain_per_op import OpGain
    from optuna_quant.samplers import Explanation
    from optuna_quant.selection.answer import Candidate
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

Found = TypeVar("Found", bound=Outcome)

# How many samples a model must have seen, as a part of the most, to be called the closest.
_WELL_SEEN = 0.25
# How many reasons for which ops are not searched are told.
_MOST_REASONS = 2


def conclude(
    kind: type[Found],
    study: optuna.Study,
    stop: Stop,
    policy: ExitPolicy,
    *,
    backend: Backend,
    space: TuningSpace,
    measure: Callable[[Sequence[Candidate]], tuple[Candidate, Gain | None]] | None = None,
    left_out: Mapping[str, OpGain | None] | None = None,
) -> Found:
    """Choose the answer from the record; what does not meet the criterion is called so.

    Args:
        kind:
            What is made of it, such as :class:`~optuna_quant.TuningResult`.
        study:
            The study.
        stop:
            Why it stopped.
        policy:
            Its exit policy: it knows the criterion, and what is best.
        backend:
            Builds the models.
        space:
            The tuning space.
        measure:
            Measures candidates beside FP32 and gives the fastest, with what it is worth.
            Default: nothing is measured.
        left_out:
            The ops that the space does not have because of what they cost.
    """
    criterion, objective = policy.criterion, policy.objective
    found = candidates(study, criterion)
    met = ranked(found, objective)
    best = met[0] if met else None
    if best is None:
        best, stop = _without_answer(study, found, policy, stop)
    gain = None
    if met:
        best, gain, stop = _measured(study, met, measure, objective, stop)
        stop = _with_reason(stop, study, met, best, objective)
    baseline = get_baseline(study)
    compared = models_compared(study)
    config = None if best is None else space.config_from_params(best.trial.params)
    if config is not None and not config.quantized_ops:
        explanation = explain_no_gain(config, objective, stop, original=original_of(backend))
    else:
        explanation = _explained(
            _explanation(study, policy, config), backend, space, left_out or {}
        )
    sampler = study.sampler  # Other samplers than ours do not tell.
    return kind(
        met=bool(met),
        metric=None if best is None else best.metric,
        baseline=None if baseline is None else baseline.value,
        loss=None
        if best is None or baseline is None
        else criterion.loss(best.metric, baseline.value),
        config=config,
        cost=_known_cost(best, objective),
        objective=objective.name,
        study=study,
        trial=None if best is None else best.trial,
        stopped_because=stop.reason,
        message=stop.message,
        criterion=criterion,
        backend=backend,
        space=space,
        races=sampler.races(study) if isinstance(sampler, ReportsRaces) else (),
        abandoned=sampler.abandoned(study) if isinstance(sampler, ReportsSearch) else (),
        speculation=sampler.speculation(study) if isinstance(sampler, ReportsSearch) else None,
        samples=None if best is None else best.samples,
        full_evaluations=full_evaluations(study),
        loss_interval=None
        if best is None
        else recorded_interval(study, best.trial, criterion, models=compared),
        models_compared=compared,
        gain=gain,
        known_objective=objective if isinstance(objective, KnownObjective) else None,
        left_out={} if left_out is None else left_out,
        warnings=find_warnings(study),
        explanation=explanation,
    )


def _measured(
    study: optuna.Study,
    met: Sequence[Candidate],
    measure: Callable[[Sequence[Candidate]], tuple[Candidate, Gain | None]] | None,
    objective: Objective,
    stop: Stop,
) -> tuple[Candidate, Gain | None, Stop]:
    """The best candidate by measurement, and what it is worth; by prediction if that fails."""
    compared = finalists(met, objective)
    known = recorded_measurement(study, compared)
    if known is not None:
        return *known, stop
    if measure is None or stop.reason == StopReason.INTERRUPTED:
        return met[0], None, stop
    try:
        return *measure(compared), stop
    except KeyboardInterrupt:
        told = f"{stop.message} Interrupted: time and size were not compared with FP32."
        stop = replace(stop, reason=StopReason.INTERRUPTED, message=told)
    except Exception as error:
        # Writing the model or asking for it raises it again.
        _logger.warning(f"The time and size of the model could not be compared with FP32: {error}")
    return met[0], None, stop


def _with_reason(
    stop: Stop,
    study: optuna.Study,
    met: Sequence[Candidate],
    best: Candidate,
    objective: Objective,
) -> Stop:
    """The decision to stop, with why the answer is another trial than the one that it names."""
    named = met[0]
    if stop.reason == StopReason.MET:  # An intermediate step of the strategy may be cheaper.
        named = next((each for each in met if is_answer(study, each.trial)), named)
    if best is named or not math.isfinite(named.cost(objective)):
        return stop
    number = best.trial.number
    if best is not met[0]:
        compared = len(finalists(met, objective))
        why = f"of the {compared} models that are predicted to be about as fast, it is the fastest"
        why = f"{why} as measured"
    else:
        why = f"predicted {objective.show(best.cost(objective))}, it is better"
    return replace(stop, message=f"{stop.message} The answer is trial {number}: {why}.")


def _known_cost(best: Candidate | None, objective: Objective) -> float | None:
    cost = math.inf if best is None else best.cost(objective)
    return cost if math.isfinite(cost) else None


def _without_answer(
    study: optuna.Study, found: Sequence[Candidate], policy: ExitPolicy, stop: Stop
) -> tuple[Candidate | None, Stop]:
    """What the result is about if nothing is met: FP32 if that is best, else what is closest."""
    nearest = _closest(study, found, policy)
    no_gain = None if nearest is None else _no_gain(study, stop, policy.objective)
    fp32 = None
    if stop.reason == StopReason.NO_GAIN or no_gain is not None:
        fp32 = fp32_candidate(study, policy.criterion)
    if fp32 is not None and no_gain is not None:
        stop = replace(stop, message=no_gain)
    return fp32 or nearest, stop


def _no_gain(study: optuna.Study, stop: Stop, objective: Objective) -> str | None:
    """Why FP32 is best, if a search by cost has ended since nothing else is better by it."""
    if stop.reason != StopReason.EXHAUSTED or not isinstance(study.sampler, Explains):
        return None
    if not isinstance(objective, KnownObjective) or objective.table is None:
        return None
    cheapest = objective.of(cheapest_quantized(objective.table, objective.space))
    if may_gain(objective, cheapest):
        return None
    reason = NoGain(objective, objective.table, searched=True)
    return f"{nothing_left(study.get_trials(deepcopy=False))} {reason}"


def _explanation(
    study: optuna.Study, policy: ExitPolicy, config: QuantConfig | None
) -> Explanation | None:
    """What the sampler says of an answer; only those with a model of the loss say something."""
    if not isinstance(study.sampler, Explains):
        return None
    return study.sampler.explain(study, config, objective=policy.objective)


def _explained(
    found: Explanation | None,
    backend: Backend,
    space: TuningSpace,
    left_out: Mapping[str, OpGain | None],
) -> Explanation | None:
    """An explanation that says as well which ops were not searched."""
    if found is None:
        return None
    lines = [*found.text.splitlines(), *shown_left_out(left_out)]
    if isinstance(backend, TellsLeftOut):
        others = [each for each in backend.ops_left_out(space) if each.op not in left_out]
        groups = by_reason(others)
        if groups:
            shown = "; ".join(map(str, groups[:_MOST_REASONS]))
            rest = sum(len(group.ops) for group in groups[_MOST_REASONS:])
            lines.append(f"not searched: {shown}{f'; {rest} more' if rest else ''}")
    return replace(found, text="\n".join(lines))


def _closest(
    study: optuna.Study, found: Sequence[Candidate], policy: ExitPolicy
) -> Candidate | None:
    """What comes closest, of those that were evaluated on all samples or on some."""
    partial = partial_candidates(study, policy.criterion)
    # What was seen of few samples may look better than it is.
    most = max((c.samples[0] for c in partial if c.samples), default=0)
    seen = [c for c in partial if c.samples and c.samples[0] >= _WELL_SEEN * most]
    return closest([*found, *seen], policy.objective)
