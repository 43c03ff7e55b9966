"""The conservative strategy: from FP32, convert what the criterion allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant import _optuna
from optuna_quant import record
from optuna_quant.samplers._grow import Change
from optuna_quant.samplers._grow import Growth
from optuna_quant.samplers._grow import apply
from optuna_quant.samplers._grow import grow_to_the_end
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._requests import Evaluation
from optuna_quant.samplers._requests import Plan
from optuna_quant.samplers._requests import SeesSamples
from optuna_quant.samplers._requests import Stage
from optuna_quant.samplers._staged import StagedQuantSampler


if TYPE_CHECKING:
    import optuna

    from optuna_quant.config import QuantConfig
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space import TuningSpace
    from optuna_quant.tunable import Tunable


# What is converted first: where integer kernels pay most.
_FIRST = (("Conv", "ConvTranspose", "FusedConv"), ("MatMul", "Gemm", "Attention", "Linear"))


@register_strategy("conservative")
class ConservativeQuantSampler(StagedQuantSampler):
    """Start from the FP32 model and quantize as much as the criterion allows.

    After neural-compressor 2's ``quant_level=0``, and further:

    1. ``convert everything``: every op in its default option; if that meets the criterion there
       is nothing to be conservative about.
    2. ``convert TYPE``: one op type after the other (convolutions, then matrix products and
       linear layers, then the others in the order of the model) in its default option, all ops
       of the type together. What meets the criterion stays.
    3. ``convert TYPE op by op``: for a type that fails as a whole: each of its ops alone, then as
       many as fit together, the least harmful first.
    4. ``convert what is left``: the ops that did not fit, once more on top of what did (not where
       samples are evaluated one by one).

    The configurations on the way are provisional, since nearly everything is still in FP32 when
    the criterion is met first; the answer is what stands at the end (stage ``answer``).

    Use it when the criterion is tight, or an evaluation is cheap.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        **kwargs:
            See :class:`StagedQuantSampler`.

    Raises:
        TypeError:
            If there is no criterion.
    """

    def __init__(
        self, space: TuningSpace, *, criterion: AccuracyCriterion | None, **kwargs: Any
    ) -> None:
        require_criterion(self, criterion)
        super().__init__(space, criterion=criterion, **kwargs)

    def plan(self, space: TuningSpace) -> Plan:
        """The stages that the class describes."""
        config = yield from convert(space)
        if config.quantized_ops:
            yield Stage("answer", [config])

    def type_costs(self, study: optuna.Study) -> dict[str, float]:
        """What it costs to quantize all ops of a type, by op type.

        Returns:
            For each type that was tried as a whole, the loss of the metric (as the criterion
            counts it) against the configuration that it was applied to being FP32 in that type.
        """
        return type_costs(study, self._criterion)


def require_criterion(sampler: object, criterion: AccuracyCriterion | None) -> None:
    """Refuse to search for what the criterion allows without one."""
    if criterion is None:
        raise TypeError(
            f"{type(sampler).__name__} needs criterion=, an AccuracyCriterion: it searches for "
            "what that allows."
        )


def convert(space: TuningSpace) -> Growth:
    """The stages of the conservative strategy; gives the configuration that stands at the end."""
    config = space.without_recipes(space.fp32())
    config = config.with_ops(
        {op: t.default for t in space.tunables if not t.fallbacks for op in t.ops}
    )
    everything = [
        (tunable, tunable.default) for _, tunables in _by_type(space) for tunable in tunables
    ]
    result: Evaluation
    (result,) = yield Stage("convert everything", [apply(config, everything)], provisional=True)
    if result.met:
        return apply(config, everything)
    left: list[Change] = []
    for op_type, tunables in _by_type(space):
        changes = [(tunable, tunable.default) for tunable in tunables]
        whole = apply(config, changes)
        (result,) = yield Stage(f"convert {op_type}", [whole], provisional=True)
        if result.met:
            config = whole
        elif len(changes) > 1:
            config = yield from grow_to_the_end(f"convert {op_type} op by op", config, changes)
        left += [change for change in changes if not _is_applied(config, change)]
    sees_samples: bool = yield SeesSamples()
    if sees_samples:  # Each was tried, on top of less.
        return config
    return (yield from grow_to_the_end("convert what is left", config, left))


def _by_type(space: TuningSpace) -> list[tuple[str, Sequence[Tunable]]]:
    groups: dict[str, list[Tunable]] = {}
    for tunable in space.tunables:
        if tunable.quantized and tunable.fallbacks:
            groups.setdefault(tunable.op_type, []).append(tunable)

    def place(op_type: str) -> int:
        return next((i for i, kinds in enumerate(_FIRST) if op_type in kinds), len(_FIRST))

    return sorted(groups.items(), key=lambda item: place(item[0]))


def _is_applied(config: QuantConfig, change: Change) -> bool:
    tunable, option = change
    return all(config.ops[op] == option for op in tunable.ops)


def type_costs(study: optuna.Study, criterion: AccuracyCriterion | None) -> dict[str, float]:
    """The loss at each stage that converted a whole op type; see the sampler's method."""
    baseline = record.get_baseline(study)
    if baseline is None or criterion is None:
        return {}
    costs = {}
    for trial in _optuna.all_trials(study):
        claim = record.claim_of(trial)
        if claim is not None and trial.values and claim.stage.startswith("convert "):
            op_type = claim.stage.removeprefix("convert ")
            if " " not in op_type and op_type != "everything":
                costs[op_type] = criterion.loss(trial.values[0], baseline.value)
    return costs
