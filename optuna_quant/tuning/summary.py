"""Show a result in a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant._common.printable import listed
from optuna_quant._common.printable import percent
from optuna_quant._common.printable import printable
from optuna_quant.backends.base import WeighsFloats
from optuna_quant.backends.base import shown_sizes_of
from optuna_quant.backends.base import simulated_target_of
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.callbacks.wording import rounded_estimate
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.worth import shown_left_out
from optuna_quant.costs.worth import shown_not_better
from optuna_quant.costs.worth import with_costs_as_reason
from optuna_quant.selection.chosen_by_samples import shown_doubt
from optuna_quant.selection.chosen_by_samples import shown_interval
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.study.evaluation_cost import second_evaluations
from optuna_quant.study.evaluation_cost import sensitivity_evaluations
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.fewer_bits import shown_fewer_bits
from optuna_quant.tuning.outcome import NOTHING
from optuna_quant.tuning.outcome import ResultKind
from optuna_quant.tuning.table import recipes_line
from optuna_quant.tuning.warm_start import shown_start
from optuna_quant.tuning.what_runs import describe_runs


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_quant.costs.gain import Gain
    from optuna_quant.costs.known import KnownObjective
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.tuning.outcome import Outcome


_SHOWN_ABANDONED = 3
# The part of FP32's size from which on a smaller model is hardly smaller.
_HARDLY_SMALLER = 0.9
# By what factor a prediction of times may be off before it is said.
_FAR_OFF = 1.25
# What the summary has in other places.
_SAID_ANYWAY = ((OPS,), (SIZE,))


def summary(result: Outcome) -> str:
    """The result in a few lines of text.

    The ops that count are those that the runtime executes in integer kernels; what was asked
    for and does not run so is named. The runtime is asked once for each result.
    """
    # What the hold-out set says is true of a chosen model as it stands, so it comes first.
    lines = [_first_line(result), *_shown_holdout(result)]
    lines.extend(f"warning: {warning}" for warning in result.warnings)
    if result.is_fp32:
        lines.append(
            f"metric {result.metric:.6g} ({result.original}), criterion: {result.criterion}"
        )
    elif result.metric is not None and result.baseline is not None and result.loss is not None:
        known = result.loss_interval is not None
        judged = f", criterion: {result.criterion}" if known else f" ({result.criterion})"
        loss = _shown_loss(result, result.loss, result.loss_interval, result.models_compared)
        metric = f"{result.metric:.6g}"
        if result.samples is not None:
            metric = rounded_estimate(result.metric, result.samples[0])
        lines.append(f"metric {metric}, FP32 {result.baseline:.6g}, {loss}{judged}")
        lines.extend(_shown_simulation(result))
        lines.extend(_shown_doubt(result))
    if result.note is not None:
        lines.append(result.note)
    if result.batches is not None:
        lines.append(str(result.batches))
    lines.extend(_shown_second_evaluation(result))
    if result.samples is not None:
        seen, of = result.samples
        lines.append(f"not fully evaluated: estimated after {seen} of {of} samples")
    if result.config is not None and result.trial is not None and not result.is_fp32:
        runs, differs = _described_runs(result, result.config)
        lines.append(f"trial {result.trial.number}: {runs}{_shown_cost(result)}")
        lines.extend(recipes_line(result.config, result.space.recipes))
        lines.extend(_shown_other_params(TrialView(result.trial)))
        if differs:
            lines.append(differs)
        lines.extend(_shown_target(result) or _shown_gain(result))
        if result.fallback_ops and result.explanation is None:
            lines.append(f"in fallback: {listed(result.fallback_ops)}")
    if result.explanation is not None and not result.is_fp32:  # That says why it stopped.
        lines.extend(str(result.explanation).splitlines())
    elif result.config is not None:
        lines.extend(shown_left_out(result.left_out))
    if result.recipes_may_help:
        names = ", ".join(result.other_recipes)
        lines.append(f"not searched: recipes {names}; try recipes='all' (--recipes all)")
    lines.extend(shown_fewer_bits(result))
    if result.config is not None:
        lines.extend(_shown_float_weights(result, result.config))
    if result.abandoned:
        count = len(result.abandoned)
        were = "configuration was" if count == 1 else "configurations were"
        shown = "; ".join(map(str, result.abandoned[:_SHOWN_ABANDONED]))
        more = f"; and {count - _SHOWN_ABANDONED} more" if count > _SHOWN_ABANDONED else ""
        lines.append(f"{count} {were} abandoned: {shown}{more}")
    lines.extend(shown_start(result.study, result.space))
    if result.speculation is not None and result.speculation.evaluated:
        lines.append(f"speculation: {result.speculation}")
    if any(TrialView(trial).evidence for trial in _finished(result)):
        lines.append(
            f"evaluated: {result.full_evaluations:.3g} times the evaluation set, in "
            f"{len(_finished(result))} trials{_shown_beside_trials(result)}"
        )
    lines.append(result.message if result.is_chosen else f"stopped: {result.message}")
    return "\n".join(map(printable, lines))


def _shown_beside_trials(result: Outcome) -> str:
    """How much of what was evaluated was for something else than trials, in brackets."""
    parts = {
        "sensitivities": sensitivity_evaluations(result.study),
        "the second evaluation": second_evaluations(result.study),
    }
    told = [f"{value:.2g} of it for {name}" for name, value in parts.items() if value]
    return f" ({', '.join(told)})" if told else ""


def ops_line(result: Outcome) -> str:
    """How many ops of the model are quantized and run in integers; empty without a model."""
    return "" if result.config is None else _described_runs(result, result.config)[0]


def _described_runs(result: Outcome, config: QuantConfig) -> tuple[str, str]:
    return describe_runs(
        config,
        result.known_executed,
        left_out=len(result.left_out),
        not_searched=len(result.not_searched),
    )


def _shown_other_params(view: TrialView) -> list[str]:
    """What an objective of the user's has suggested beside the configuration."""
    shown = [f"{name}={value}" for name, value in view.other_params.items()]
    return [f"other parameters: {'; '.join(shown)}"] if shown else []


def shown_best(result: Outcome, *, sentence: bool = True) -> str:
    """That nothing is better than the model with nothing quantized."""
    if result.original == "FP32":
        return "FP32 itself is the best model here"
    text = f"{result.original} is the best one here"
    return f"{text[0].upper()}{text[1:]}" if sentence else text


def _finished(result: Outcome) -> list[FrozenTrial]:
    trials = result.study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished()]


def headline(result: Outcome) -> str:
    """What the search has ended with, in a sentence."""
    kind = result.kind
    if kind == ResultKind.FP32:
        return _shown_fp32(result)
    if kind == ResultKind.MET_WITHOUT_GAIN:
        return (
            "A quantized model meets the criterion, but it is "
            f"{shown_not_better(result.objective)}{_by_given_costs(result)}."
        )
    if kind == ResultKind.MET and result.objective == SIZE:
        return _shown_size_gain(result)
    return _HEADLINES[kind]


def _shown_size_gain(result: Outcome) -> str:
    """That a model meets the criterion; and where it is hardly smaller, that it is."""
    here, fp32 = result.nbytes, result.fp32_bytes
    if here is None or not fp32 or here < _HARDLY_SMALLER * fp32:
        return _HEADLINES[ResultKind.MET]
    by = percent(1 - here / fp32, digits=2)
    return f"A quantized model meets the criterion, but it is only {by}% smaller than FP32."


_HEADLINES: Mapping[ResultKind, str] = MappingProxyType(
    {
        ResultKind.MET: "A quantized model meets the criterion.",
        ResultKind.HOLDOUT_MISSED: (
            "A quantized model meets the criterion on the samples of the search, but NOT on "
            "the hold-out set."
        ),
        ResultKind.NOTHING_EVALUATED: f"NOT MET: {NOTHING}",
        ResultKind.NOT_REPRODUCIBLE: (
            "NOT REPRODUCIBLE: the model met the criterion, but not when evaluated again."
        ),
        ResultKind.NOT_FULLY_EVALUATED: (
            "NOT FULLY EVALUATED: no model was found to meet the criterion on all samples."
        ),
        ResultKind.NOT_MET: "NOT MET: no quantized model meets the criterion.",
    }
)

_LEADS: Mapping[ResultKind, str] = MappingProxyType(
    {
        ResultKind.HOLDOUT_MISSED: ":",
        ResultKind.NOT_REPRODUCIBLE: ":",
        ResultKind.NOT_FULLY_EVALUATED: ". The one that looks best:",
        ResultKind.NOT_MET: ". The one that comes closest:",
    }
)
"""What leads from the headline to the lines about the model, in place of its full stop."""


def _first_line(result: Outcome) -> str:
    head, lead = headline(result), _LEADS.get(result.kind)
    return head if lead is None else f"{head.removesuffix('.')}{lead}"


def _shown_fp32(result: Outcome) -> str:
    """That the FP32 model is the answer, and what was tried before."""
    without = sum(bool(each.samples) for each in result.missing_ranges.values())
    if result.stopped_because == StopReason.NO_GAIN and without:
        total = sum(len(each.ops) for each in result.space.tunables)
        return (
            f"NO GAIN: {without} of {total} ops have no quantization range because of the "
            f"calibration data, and {shown_best(result, sentence=False)} as long as they stay "
            "in floats, as far as the cost table tells."
        )
    if result.stopped_because == StopReason.NO_GAIN:
        return (
            f"NO GAIN: {shown_best(result, sentence=False)}, as far as the cost table tells, so "
            "no quantized one was looked for."
        )
    used = trials_used(result.study.get_trials(deepcopy=False))
    tried = "the model that was tried does not meet"
    if used != 1:
        tried = f"none of the {used} models that were tried meets"
    return (
        f"NO GAIN: {tried} the criterion, and every other one is predicted to be "
        f"{shown_not_better(result.objective)}."
    )


def _by_given_costs(result: Outcome) -> str:
    known = result.known_objective
    by_time = known is not None and LATENCY in known.measures and known.times_are_given
    return " by the given costs" if by_time else ""


def _shown_loss(
    result: Outcome, loss: float, interval: tuple[float, float] | None, models: int = 1
) -> str:
    shown = f"loss {result.criterion.show(loss)}"
    if result.samples is not None:
        relative = result.criterion.criterion == "relative"
        shown = f"loss about {f'{percent(loss, digits=2)}%' if relative else f'{loss:.2g}'}"
    if interval is None:
        return shown
    return f"{shown} ({shown_interval(interval, result.criterion, models=models)})"


def _shown_second_evaluation(result: Outcome) -> list[str]:
    if result.not_repeatable is not None:
        return [f"a second evaluation failed: {result.not_repeatable}"]
    if result.not_repeated is not None:
        return [shown_not_repeated(result.not_repeated)]
    found = result.second_evaluation
    return [] if found is None or not found.differs else [found.shown(result.criterion)]


def shown_not_repeated(reason: str) -> str:
    """That a model which meets the criterion was evaluated only once, and what that means.

    Args:
        reason:
            Why it was not evaluated a second time.
    """
    return (
        f"not evaluated a second time ({reason}): it met the criterion once, and whether it does "
        "so again is not known"
    )


def _shown_simulation(result: Outcome) -> list[str]:
    """What the simulation of the model gave, where trials evaluate simulations."""
    found = result.simulation
    return [] if found is None else [found.beside(result.metric)]


def _shown_doubt(result: Outcome) -> list[str]:
    evidence = None if result.trial is None else TrialView(result.trial).evidence
    if not result.met or result.loss_interval is None or evidence is None:
        return []
    doubt = shown_doubt(result.loss_interval, result.criterion, samples=evidence.of)
    return [] if doubt is None else [doubt]


def _shown_holdout(result: Outcome) -> list[str]:
    found = result.holdout
    if found is None:
        missing = result.holdout_missing
        return [] if missing is None else [f"hold-out: not evaluated ({missing})"]
    count = "" if found.samples is None else f" ({found.samples} samples)"
    return [
        f"hold-out{count}: metric {found.metric:.6g}, FP32 {found.baseline:.6g}, "
        f"{_shown_loss(result, found.loss, found.loss_interval)}: "
        f"{'met' if found.met else 'NOT met'} there"
    ]


def _shown_float_weights(result: Outcome, config: QuantConfig) -> list[str]:
    """How much of the model is not quantized, and what would quantize it."""
    if not isinstance(result.backend, WeighsFloats):
        return []
    found = replace(result.backend.float_weights(config), was_searched=not result.is_fp32)
    if not found.is_worth_saying:
        return []
    return [f"weights: {with_costs_as_reason(found, result.left_out)}"]


def _shown_target(result: Outcome) -> list[str]:
    """That the model was not measured where it is to run, and what FP32 costs by the table."""
    target = simulated_target_of(result.backend)
    if target is None:
        return []
    known = result.known_objective
    costs = ""
    if known is not None and math.isfinite(known.fp32_cost):
        costs = f" ({result.original}: {known.show(known.fp32_cost)})"
    return [f"simulated for the target {target!r}, on which nothing was measured{costs}"]


def _shown_gain(result: Outcome) -> list[str]:
    """What the model takes against FP32; if that is not known, that it is no smaller."""
    if result.gain is not None and result.gain.seconds is not None:
        known = result.known_objective
        given = known is not None and known.times_are_given
        shown = f"on this machine: {result.gain}" if given else str(result.gain)
        if result.gain.nbytes is not None and result.gain.fp32_bytes is not None:
            shown += shown_sizes_of(result.backend)
        return [shown, *_shown_misprediction(result, result.gain)]
    here, fp32 = result.nbytes, result.fp32_bytes
    if here is None or fp32 is None or here < fp32:
        return []
    return [
        f"no smaller than FP32, which has {_shown_size(result, fp32)}: it is useful only if it is "
        f"faster{_looked_for(result.objective)}"
    ]


def _shown_misprediction(result: Outcome, gain: Gain) -> list[str]:
    """That what was measured is far from the prediction by which the search has gone."""
    known, found = result.known_objective, gain.time_ratio
    if known is None or found is None or result.cost is None:
        return []
    # Costs that were given may be of another machine.
    is_of_here = known.measures == (LATENCY,) and not known.times_are_given
    if not is_of_here or not 0 < known.fp32_cost < math.inf:
        return []
    predicted = result.cost / known.fp32_cost
    off = max(predicted / found.value, found.value / predicted) if predicted > 0 else math.inf
    if off <= _FAR_OFF or found.low <= predicted <= found.high:
        return []
    return [
        f"the search went by a prediction of {predicted:.2g} of FP32's time, but "
        f"{found.value:.2g} was measured at its end: was the machine busy at its start? A new "
        "study measures again"
    ]


def _looked_for(objective: str) -> str:
    """Which objectives look for what is faster or smaller, where this one is another."""
    if objective == LATENCY:
        return ""
    if objective == SIZE:
        return ' (objective="latency" looks for that)'
    return ' (objective="latency" looks for that, objective="size" for a smaller one)'


def cost_text(result: Outcome) -> str | None:
    """What the model costs by the objective, in words; :obj:`None` if that is not known."""
    known = result.known_objective
    if known is None or result.cost is None:
        return None
    return _shown_prediction(result, known, result.cost)


def _shown_cost(result: Outcome) -> str:
    parts = []
    size = None if result.trial is None else TrialView(result.trial).model_bytes
    if size is not None:
        parts.append(_shown_size(result, size))
    known = result.known_objective
    if known is not None and result.cost is not None and known.measures not in _SAID_ANYWAY:
        parts.append(_shown_prediction(result, known, result.cost))
    return "".join(f", {part}" for part in parts)


def _shown_size(result: Outcome, size: int) -> str:
    return f"{shown_bytes(size)}{shown_sizes_of(result.backend)}"


def _shown_prediction(result: Outcome, known: KnownObjective, cost: float) -> str:
    if known.measures != (LATENCY,):
        return known.show(cost)
    measured = result.gain is not None and result.gain.seconds is not None
    # Predicted and measured times are of different runs; what can be compared is the ratio.
    if measured and not known.times_are_given and 0 < known.fp32_cost < math.inf:
        return f"predicted {cost / known.fp32_cost:.2g} of FP32's time"
    return f"predicted {known.show(cost)}"
