"""Explain an answer from the record: causes of fallback, and beliefs about what was not tried."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable

from optuna_quant.samplers._models.least_probability import LEAST_PROBABILITY
from optuna_quant.samplers._models.least_probability import least_probability
from optuna_quant.samplers._models.scored_options import Precision
from optuna_quant.samplers._models.scored_options import scored_options
from optuna_quant.samplers._models.scored_options import stand_in


if TYPE_CHECKING:
    import optuna

    from optuna_quant.costs import CostTable
    from optuna_quant.costs import Objective
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._models.outlook import Believed
    from optuna_quant.samplers._models.outlook import Outlook
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


# What makes up so much of an error, in all, stands in the way.
_IN_THE_WAY = 0.9


@dataclass(frozen=True)
class OpError:
    """The error that quantizing an op is expected to add to the model's.

    Args:
        op:
            The op.
        share:
            Its part of the error that is expected where every op is quantized in its default
            option, from 0 to 1, by what the trials have taught.
        activations:
            What part of that comes from its activations, and not from its weights, from 0 to 1;
            :obj:`None` if that is not known.
        option:
            Its default option, with the finest granularity that there is.
        finer:
            What another option of it gives more bits: ``"activations"``, ``"weights"``, or both.
        loss:
            The loss that is expected with this op alone quantized (with its group, if it is in
            one), as the criterion defines it; :obj:`None` if that is not known.
    """

    op: str
    share: float
    activations: float | None
    option: OpConfig
    finer: tuple[str, ...] = ()
    loss: float | None = None


@dataclass(frozen=True)
class FallbackOp:
    """An op that the answer leaves in floating point.

    Args:
        op:
            The op.
        error:
            What its quantization is expected to add; :obj:`None` if that is not known.
        saving:
            What would be saved if it were quantized and all else stayed, as a part of what the
            answer costs; 0 or less if nothing, and :obj:`None` if it may not be quantized.
        in_cheapest:
            Whether the cheapest configuration of all, whatever its accuracy, leaves it in floating
            point as well.
        probability:
            The probability that the answer would meet the criterion with it quantized as well, in
            the option that saves most; :obj:`None` if that is not known.
    """

    op: str
    error: OpError | None
    saving: float | None
    in_cheapest: bool
    probability: float | None = None


@dataclass(frozen=True)
class Untried:
    """The most promising configuration that was not tried.

    Args:
        config:
            The configuration.
        cost:
            What it costs.
        probability:
            The probability that it meets the criterion, as the search believes it.
        is_promising:
            Whether a thorough search would try it, and this one has not been one.
    """

    config: QuantConfig
    cost: float
    probability: float
    is_promising: bool


@dataclass(frozen=True)
class LeastLoss:
    """The smallest loss that is expected to be reachable with any op quantized.

    Args:
        config:
            The configuration.
        loss:
            The loss that is expected of it, as the criterion defines it.
        in_the_way:
            The ops that are quantized there and make up most of its error, each with its part of
            that error.
    """

    config: QuantConfig
    loss: float
    in_the_way: tuple[OpError, ...]


@dataclass(frozen=True)
class Explanation:
    """Why an answer has its ops in fallback, and what is believed of what was not tried.

    A function of the study's record: the same record gives the same explanation.
    Its text is ``str(explanation)``.

    Attributes:
        met:
            Whether the answer meets the criterion.
        config:
            The answer; :obj:`None` if there is none.
        cost:
            What it costs.
        errors:
            What the quantization of each op is expected to add, by op; empty if that is not known.
        fallback:
            The ops that the answer leaves in floating point, those that would add most first.
        untried:
            What would be tried next; :obj:`None` if nothing else would cost less.
        least_loss:
            The least loss that is believed to be reachable; :obj:`None` if the criterion is met,
            or that is not known.
        stage:
            What the search was at when it ended; :obj:`None` if it had concluded.
        samples:
            On how many samples metrics rest, where that is known.
        text:
            All of it in words; empty if there is nothing to say.
    """

    met: bool
    config: QuantConfig | None
    cost: float
    errors: Mapping[str, OpError]
    fallback: tuple[FallbackOp, ...]
    untried: Untried | None
    least_loss: LeastLoss | None
    stage: str | None
    samples: int | None
    text: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Question:
    """The answer to explain, and its search.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        table:
            What configurations cost.
        baseline:
            The metric of the FP32 model.
        samples:
            On how many samples metrics rest, where that is known.
        config:
            The answer; :obj:`None` if there is none.
        met:
            Whether it meets the criterion.
        min_gain:
            The gain that is worth an evaluation to a thorough search, as a part of the cost.
        best_cost:
            What the cheapest configuration costs that meets the criterion, or probably does; it is
            what a search tries to improve on. :obj:`None` if there is none. The answer may cost
            more, where it was found to be better by a measurement.
        thorough:
            Whether the search was a thorough one.
    """

    space: TuningSpace
    criterion: AccuracyCriterion
    table: CostTable
    baseline: float
    samples: int | None
    config: QuantConfig | None
    met: bool
    min_gain: float
    best_cost: float | None = None
    thorough: bool = False


def explained(question: Question, outlook: Outlook) -> Explanation:
    """The explanation of an answer, as values."""
    errors = _errors(question, outlook)
    config = question.config
    cost = outlook.fp32_cost if config is None else question.table.cost(config)
    return Explanation(
        question.met,
        config,
        cost,
        errors,
        () if config is None else _fallback(question, config, errors, outlook),
        _untried(question, outlook, cost if question.met else outlook.fp32_cost),
        None if question.met else _least_loss(question, outlook),
        outlook.stage,
        question.samples,
    )


def _errors(question: Question, outlook: Outlook) -> dict[str, OpError]:
    """The share of each op in the error that is expected of everything quantized."""
    default = question.space.default()
    found = _shares(
        question,
        outlook,
        lambda tunable: stand_in(
            default.ops[tunable.ops[0]], scored_options(tunable, question.table)
        ),
    )
    return {error.op: error for error in found}


def _shares(
    question: Question, outlook: Outlook, option_of: Callable[[Tunable], OpConfig]
) -> list[OpError]:
    """The share of each op in the error of a configuration, in the order of the space."""
    model, space = outlook.model, question.space
    if model is None or not model.is_scored:
        return []
    weights = model.weights
    found: list[tuple[str, float, OpConfig]] = []
    for i, tunable in enumerate(space.tunables):
        option = option_of(tunable)
        scores = [outlook.of_ops.get(op, {}).get(option.label) for op in tunable.ops]
        known = [score for score in scores if score is not None]
        if not option.is_quantized or len(known) < len(scores):
            continue
        weight, total = float(weights[i, tunable.options.index(option)]), sum(known)
        for op, score in zip(tunable.ops, known, strict=True):
            part = score / total if total else 1.0 / len(known)
            found.append((op, weight * part, option))
    whole = sum(weight for _, weight, _ in found)
    types = {op: tunable for tunable in space.tunables for op in tunable.ops}
    return [
        OpError(
            op,
            weight / whole,
            _activations(outlook, op, option, scored_options(types[op], question.table)[0]),
            option,
            _finer(option, types[op].quantized),
            _loss_alone(question, outlook, types[op], option),
        )
        for op, weight, option in found
    ]


def _loss_alone(
    question: Question, outlook: Outlook, tunable: Tunable, option: OpConfig
) -> float | None:
    """The loss that is expected with one op or group quantized, as the criterion defines it."""
    if not question.space.has_fp32:
        return None  # Something else is always quantized.
    fp32 = question.space.fp32()
    loss = outlook.loss(question.space, tunable.set(fp32, option))
    return None if loss is None else _as_loss(question, loss)


def _as_loss(question: Question, loss: float) -> float:
    """A loss in units of the metric, as the criterion defines it."""
    sign = -1.0 if question.criterion.higher_is_better else 1.0
    return question.criterion.loss(question.baseline + sign * loss, question.baseline)


def _finer(option: OpConfig, others: Sequence[OpConfig]) -> tuple[str, ...]:
    """Which sides of an option have more bits in another one."""

    def is_finer(one: TensorConfig | None, other: TensorConfig | None) -> bool:
        return one is not None and other is not None and other.bits > one.bits

    sides = {
        "activations": any(is_finer(option.activation, other.activation) for other in others),
        "weights": any(is_finer(option.weight, other.weight) for other in others),
    }
    return tuple(side for side, found in sides.items() if found)


def _activations(outlook: Outlook, op: str, option: OpConfig, seen: OpConfig) -> float | None:
    """What part of an op's error comes from its activations, by what was seen in one option."""
    part, scores = outlook.of_weights.get(op), outlook.of_ops[op]
    if part is None or option.mode != seen.mode or option.weight != seen.weight:
        return None
    of_weights, whole = part * scores[seen.label], scores[option.label]
    return max(0.0, 1.0 - of_weights / whole) if whole else None


def _fallback(
    question: Question,
    config: QuantConfig,
    errors: Mapping[str, OpError],
    outlook: Outlook,
) -> tuple[FallbackOp, ...]:
    """The ops in fallback, those that would add most first."""
    table, found = question.table, []
    cost = table.cost(config)
    for tunable in question.space.tunables:
        if config.ops[tunable.ops[0]].is_quantized:
            continue
        # Options of one precision cost the same, or nearly.
        firsts = {Precision.of(option): option for option in reversed(tunable.quantized)}
        others = [tunable.set(config, option) for option in firsts.values()]
        other = min(others, key=table.cost, default=None)
        saving = None if other is None else (cost - table.cost(other)) / (abs(cost) or 1.0)
        likely = None if other is None else outlook.probability(question.space, other)
        found += [
            FallbackOp(
                op, errors.get(op), saving, not outlook.cheapest.ops[op].is_quantized, likely
            )
            for op in tunable.ops
        ]
    return tuple(sorted(found, key=lambda f: -1.0 if f.error is None else -f.error.share))


def _untried(question: Question, outlook: Outlook, cost: float) -> Untried | None:
    """The next candidate of the search; else the most probable of those it rejects."""
    if question.best_cost is not None:
        cost = min(cost, question.best_cost)
    least, saving = least_probability(question.samples), question.min_gain * abs(cost)
    cheaper = [b for b in outlook.believed if not b.is_known and b.cost < cost]

    def improvement(each: Believed) -> tuple[float, float]:
        return (cost - each.cost) * each.probability, each.probability

    def likely(each: Believed) -> tuple[float, float]:
        return each.probability, each.cost

    promising = [b for b in cheaper if b.probability >= least and cost - b.cost >= saving]
    best = max(promising or cheaper, key=improvement, default=None)
    if best is not None and best.probability < LEAST_PROBABILITY:
        best = max(cheaper, key=likely)
    return (
        None
        if best is None
        else Untried(
            best.config,
            best.cost,
            best.probability,
            bool(promising) and not question.thorough,
        )
    )


def _least_loss(question: Question, outlook: Outlook) -> LeastLoss | None:
    best = min(outlook.believed, key=lambda b: (b.loss, b.cost), default=None)
    if best is None:
        return None
    config = best.config
    shares = _shares(question, outlook, lambda tunable: config.ops[tunable.ops[0]])
    in_the_way: list[OpError] = []
    for error in sorted(shares, key=lambda e: -e.share):
        if sum(e.share for e in in_the_way) < _IN_THE_WAY:
            in_the_way.append(error)
    return LeastLoss(config, _as_loss(question, best.loss), tuple(in_the_way))


@runtime_checkable
class Explains(Protocol):
    """A sampler with a model of the loss that can explain an answer."""

    def explain(
        self,
        study: optuna.Study,
        config: QuantConfig | None = None,
        *,
        objective: Objective | None = None,
    ) -> Explanation | None:
        """The explanation of an answer in a search."""
        ...
