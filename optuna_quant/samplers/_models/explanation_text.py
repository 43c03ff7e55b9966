"""Put an explanation into words."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant._common.printable import listed
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.samplers._models.least_probability import LEAST_PROBABILITY
from optuna_quant.samplers._models.least_probability import least_probability
from optuna_quant.samplers._models.surrogate_stages import ANSWER_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._models.explanation import Explanation
    from optuna_quant.samplers._models.explanation import FallbackOp
    from optuna_quant.samplers._models.explanation import OpError
    from optuna_quant.samplers._models.explanation import Untried

    Show = Callable[[float], str]


_MOST_NAMES = 4
# What is a cause is at least this part of it; what is between is both.
_MAINLY = 0.7
# From this part of the error on it is said that there are no more bits; what is less, all in all,
# is not worth a reason.
_COARSE, _WORTH_A_REASON = 0.1, 0.01
# Savings that are smaller, as a part of what a model costs, are none; or hardly one.
_NO_SAVING, _HARDLY_A_SAVING = 1e-6, 0.01
# What would more likely than not meet the criterion quantized is not in fallback for its error.
_MAY_DO = 0.5
# What is less likely is not what stands between the user and an answer.
_HOPE = 0.1

_BETTER: Mapping[str, str] = MappingProxyType(
    {LATENCY: "a faster model", SIZE: "a smaller model", OPS: "fewer ops in fallback"}
)
_NOTHING_BETTER: Mapping[str, str] = MappingProxyType(
    {
        LATENCY: "nothing faster",
        SIZE: "nothing smaller",
        OPS: "nothing with fewer ops in fallback",
    }
)
_MORE: Mapping[str, str] = MappingProxyType({LATENCY: "faster", SIZE: "smaller"})
# Causes of fallback, besides the sides of an op whose error is to blame.
COST, NOT_ALLOWED, OPEN = "cost", "not allowed", "open"
_NO_RANGE = "no range"
_SIDES = ("activations", "weights")


def in_words(
    found: Explanation,
    *,
    criterion: AccuracyCriterion,
    measure: str,
    show: Show,
    missing: Collection[str] = (),
) -> str:
    """An explanation in a few lines.

    Args:
        found:
            The explanation.
        criterion:
            The criterion, which shows losses.
        measure:
            What costs are a measure of.
        show:
            Shows a cost.
        missing:
            The ops that have no quantization range.
    """
    lines = [
        *_of_fallback(found, measure, missing),
        *_of_the_rest(found, criterion, measure, show),
    ]
    return "\n".join(lines)


def percent(part: float) -> str:
    """A fraction as a percentage, as people write it."""
    if 0.995 <= part < 1:
        return "more than 99%"
    return "less than 1%" if part < 0.01 else f"{100 * part:.0f}%"


def probability(value: float, samples: int | None) -> str:
    """A probability as coarsely as it is known."""
    least = least_probability(samples)
    if value < least:
        return f"less than {percent(least)}"
    if value > 1 - least:
        return f"more than {percent(1 - least)}"
    return f"about {percent(value if value < 0.1 else round(20 * value) / 20)}"


def _of_fallback(found: Explanation, measure: str, missing: Collection[str]) -> list[str]:
    """Which ops are in fallback and why, a line for each reason."""
    groups: dict[str, list[FallbackOp]] = {}
    for each in found.fallback:
        cause = _NO_RANGE if each.op in missing else cause_of(each, measure)
        if cause == COST:  # A line for each way in which that is said.
            cause = f"{COST}: {shown_saving(each, measure)}"
        groups.setdefault(cause, []).append(each)
    of_all = _of_all(found.errors.values())
    lines = []
    for side, ops in groups.items():
        named = f"in fallback: {listed([each.op for each in ops], _MOST_NAMES)}"
        errors = [each.error for each in ops if each.error is not None]
        if side == _NO_RANGE:
            have = "it has" if len(ops) == 1 else "they have"
            lines.append(f"{named}: {have} no quantization range")
        elif side.startswith(COST):
            them = "it" if len(ops) == 1 else "them"
            better = shown_saving(ops[0], measure)
            lines.append(f"{named}: the model would be {better} with {them} quantized")
        elif side == OPEN:
            it = "it" if len(ops) == 1 else "any of them"
            lines.append(f"{named}: the model probably meets the criterion with {it} quantized")
        elif side == NOT_ALLOWED:
            lines.append(f"{named}: nothing else is allowed")
        elif errors:
            lines.append(f"{named}: {_blamed(side, errors, len(ops), of_all)}")
            of_all = "of it"
        else:
            lines.append(named)
    return lines


def cause_of(each: FallbackOp, measure: str) -> str:
    """What keeps an op in fallback: a cause, or the side to blame; empty if that is not known.

    Args:
        each:
            The op.
        measure:
            What the search makes small.
    """
    if each.saving is None:
        return NOT_ALLOWED
    error = each.error
    matters = error is not None and error.share >= _WORTH_A_REASON
    saves = measure == OPS or each.saving >= _HARDLY_A_SAVING
    if not saves and (each.in_cheapest or not matters):
        return COST
    if each.probability is not None and each.probability >= _MAY_DO:
        return OPEN
    if error is None or error.activations is None or not matters:
        return ""
    return _side(error)


def shown_saving(each: FallbackOp, measure: str) -> str:
    """How much better the model would be with an op quantized that is in fallback by its cost.

    Args:
        each:
            The op.
        measure:
            What the search makes small.
    """
    hardly = "hardly" if (each.saving or 0.0) > _NO_SAVING else "no"
    return f"{hardly} {_MORE.get(measure, 'cheaper')}"


def _side(error: OpError) -> str:
    assert error.activations is not None
    if error.activations >= _MAINLY:
        return _SIDES[0]
    return _SIDES[1] if error.activations <= 1 - _MAINLY else " and ".join(_SIDES)


def _blamed(side: str, errors: Sequence[OpError], ops: int, of_all: str) -> str:
    if not side:
        return f"{percent(sum(error.share for error in errors))} {of_all}"
    share = sum(error.share * _part(error, side) for error in errors)
    owner = "its" if ops == 1 else "their"
    said = f"{owner} {side} cause {percent(share)} {of_all}"
    bits = {n for error in errors for n in _bits(error, side)}
    has_more = any(each in side for error in errors for each in error.finer)
    if share < _COARSE or len(bits) > 1 or has_more:
        return said
    have = "it has" if ops == 1 else "they have"
    return f"{said}; {have} no option with more than {bits.pop()} bits"


def _part(error: OpError, side: str) -> float:
    """What part of an op's error comes from a side; all of it from both."""
    assert error.activations is not None
    return {_SIDES[0]: error.activations, _SIDES[1]: 1 - error.activations}.get(side, 1.0)


def _bits(error: OpError, side: str) -> list[int]:
    option = error.option
    tensors = [option.activation if _SIDES[0] in side else None]
    tensors.append(option.weight if _SIDES[1] in side else None)
    return [tensor.bits for tensor in tensors if tensor is not None]


def _of_all(errors: Iterable[OpError]) -> str:
    """Say which total the shares refer to."""
    options = [error.option for error in errors]
    tensors = [t for option in options for t in (option.activation, option.weight) if t]
    is_int8 = all(tensor.bits == 8 for tensor in tensors)
    return f"of the error expected {'of plain INT8' if is_int8 else 'with every op quantized'}"


def _of_the_rest(
    found: Explanation, criterion: AccuracyCriterion, measure: str, show: Show
) -> list[str]:
    """Say what is believed of the configurations that were not tried."""
    if found.stage == START_STAGE:
        return ["ended before a quantized model was evaluated: nothing is known about the others"]
    if found.stage == ANSWER_STAGE:
        return ["ended before what looks best was evaluated on all samples"]
    lines = []
    untried = found.untried
    is_hopeless = untried is None or untried.probability < _HOPE
    is_better = untried is not None and show(untried.cost) != show(found.cost)
    if found.stage is not None:
        lines.append(_ended(found, measure, show))
    elif untried is not None and (is_better if found.met else not is_hopeless):
        lines.append(_not_tried(found, untried, measure, show))
    if not found.met and is_hopeless:
        lines += _least(found, criterion)
    return lines


def _not_tried(found: Explanation, untried: Untried, measure: str, show: Show) -> str:
    """Describe the next candidate of a search that has concluded."""
    next_one = _described(found, untried, measure, show)
    likely = f"with a probability of {probability(untried.probability, found.samples)}"
    if untried.probability >= LEAST_PROBABILITY:
        if not untried.is_promising:
            return f"not worth a trial: {next_one}, though believed to meet the criterion {likely}"
        go_on = "timeout=None (--timeout none) would try it"
        return f"not tried: {next_one}, believed to meet the criterion {likely}; {go_on}"
    nothing = _NOTHING_BETTER.get(measure, "nothing cheaper")
    return f"{nothing} is believed to meet the criterion (the next, {next_one}, {likely})"


def _described(found: Explanation, untried: Untried, measure: str, show: Show) -> str:
    """The cost of an untried configuration beside the answer; without one its quantized ops."""
    if not found.met:
        ops = untried.config.ops
        return f"{len(untried.config.quantized_ops)} of {len(ops)} ops quantized"
    here = f"{found.cost:g}" if measure == OPS else show(found.cost)
    predicted = "predicted " if measure == LATENCY else ""
    return f"{predicted}{show(untried.cost)} instead of {here}"


def _ended(found: Explanation, measure: str, show: Show) -> str:
    """Describe what a search that has not concluded was looking for."""
    wanted = (
        _BETTER.get(measure, "a cheaper model")
        if found.met
        else "a model that meets the criterion"
    )
    said = f"ended while looking for {wanted}"
    untried = found.untried
    if untried is None:
        return said if found.errors else f"{said}: nothing is known about what was not tried"
    next_one = _described(found, untried, measure, show)
    likely = probability(untried.probability, found.samples)
    return (
        f"{said}; the next to try ({next_one}) is believed to meet "
        f"{'the criterion' if found.met else 'it'} with a probability of {likely}"
    )


def _least(found: Explanation, criterion: AccuracyCriterion) -> list[str]:
    """The smallest loss believed to be reachable, and the ops that prevent a smaller one."""
    least = found.least_loss
    if least is None:
        return []
    count = len(least.config.quantized_ops)
    ops = f"{count} op{'' if count == 1 else 's'}"
    lines = [
        f"even with all but {ops} in fallback a loss of about {criterion.show(least.loss)} is "
        "expected"
    ]
    groups: dict[str, list[OpError]] = {}
    for error in least.in_the_way:
        side = "" if error.activations is None else _side(error)
        groups.setdefault(side, []).append(error)
    for side, errors in groups.items():
        whose = f"the {side} of " if side else ""
        names = listed([error.op for error in errors], _MOST_NAMES)
        share = percent(sum(error.share for error in errors))
        lines.append(f"in the way: {whose}{names} ({share} of the error that is left)")
    return lines
