"""The conservative strategy: convert everything, or else what the criterion allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant import _optuna
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._engine.staged import StagedQuantSampler
from optuna_quant.samplers._plans.cheaper_fallback import cheaper_fallback
from optuna_quant.samplers._plans.criterion import require_criterion
from optuna_quant.samplers._plans.grow import Change
from optuna_quant.samplers._plans.grow import Growth
from optuna_quant.samplers._plans.grow import grow_to_the_end
from optuna_quant.samplers._plans.grow import not_applied
from optuna_quant.samplers._plans.halving import by_type
from optuna_quant.samplers._plans.halving import changes_to
from optuna_quant.samplers._plans.halving import grow_by_type
from optuna_quant.samplers._plans.halving import least_sensitive_first
from optuna_quant.samplers._plans.halving import without
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# Ops are ranked one by one where more than one in so many does not fit.
_FEW = 4


@register_strategy("conservative")
class ConservativeQuantSampler(StagedQuantSampler):
    """Quantize everything; if that fails, as much as the criterion allows, from FP32 on.

    After neural-compressor 2's ``quant_level=0``, and further:

    1. ``convert everything``: every op in its default option; if that meets the criterion there
       is nothing to be conservative about. If not, it goes on from the FP32 model:
    2. ``convert TYPE``: one op type after the other (convolutions, then matrix products and
       linear layers, then the others in the order of the model) in its default option, all ops
       of the type together. What meets the criterion stays.
    3. ``convert TYPE by halves``: for a type that fails as a whole: its halves, quarters, ..., the
       largest group first; what fits on top of the rest stays. Of ``n`` ops of which ``k`` do not
       fit that takes about ``2 k log2(n / k)`` evaluations, at most ``n``.
    4. ``convert TYPE op by op``: for a type of which more than a quarter did not fit: each of its
       ops alone, then as many as fit together, the least harmful first; taken if they are more.
    5. ``convert what is left``: the ops that did not fit, once more on top of what did (not where
       samples are evaluated one by one).
    6. ``16-bit activations``, ``bf16 instead of fp32``, ``fp16 instead of fp32``: as many of the
       ops that are still in FP32 as the criterion allows in each of these, in this order (only
       where the space has them).

    The configurations on the way are provisional, since nearly everything is still in FP32 when
    the criterion is met first; the answer is what stands at the end (stage ``answer``). A search
    that goes on does the fourth for the other types of which at least two ops did not fit.

    Use it when the criterion is tight, or an evaluation is cheap.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        **kwargs:
            See :class:`StagedQuantSampler`. With a ``sensitivity`` the ops of a type are converted
            in its order, the least sensitive first; otherwise in the order of the model.

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
        config = yield from convert(space, by_sensitivity=self.has_sensitivity)
        answer = yield from cheaper_fallback(space, config, space.default())
        if not answer.quantized_ops:
            return
        yield Stage("answer", [answer])
        # For a search that goes on: are there others that fit better together?
        first = config
        for op_type, changes in by_type(changes_to(space, space.default())).items():
            if len(not_applied(config, changes)) > 1:
                config = yield from _one_by_one(config, op_type, changes)
        if config != first:
            answer = yield from cheaper_fallback(space, config, space.default())
            yield Stage("answer", [answer])

    def type_costs(self, study: optuna.Study) -> dict[str, float]:
        """What it costs to quantize all ops of a type, by op type.

        Returns:
            For each type that was tried as a whole, the loss of the metric (as the criterion
            counts it) against the configuration that it was applied to being FP32 in that type.
        """
        return type_costs(study, self._criterion)


def convert(space: TuningSpace, *, by_sensitivity: bool = False) -> Growth:
    """The stages of the conservative strategy up to its first answer.

    Args:
        space:
            The tuning space.
        by_sensitivity:
            Whether to ask how sensitive the ops are, and to convert the least sensitive first.

    Returns:
        The configuration that stands at the end; perhaps no op of it is quantized.
    """
    default = space.without_recipes(space.default())
    everything = changes_to(space, default)
    config = without(default, everything)
    result: Evaluation
    (result,) = yield Stage("convert everything", [default], provisional=True)
    if result.met:
        return default
    if by_sensitivity:
        everything = yield from least_sensitive_first(default, everything)
    types = by_type(everything)
    for op_type, changes in types.items():
        config = yield from grow_by_type(
            config, changes, f"convert {op_type}", f"convert {op_type} by halves"
        )
    for op_type, changes in types.items():
        if len(not_applied(config, changes)) * _FEW > len(changes):
            config = yield from _one_by_one(config, op_type, changes)
    sees_samples: bool = yield HasPerSampleScores()
    if sees_samples:  # Each was tried, on top of less.
        return config
    return (
        yield from grow_to_the_end("convert what is left", config, not_applied(config, everything))
    )


def _one_by_one(config: QuantConfig, op_type: str, changes: Sequence[Change]) -> Growth:
    """Choose again which ops of a type are converted, by what each costs alone.

    Returns:
        The configuration with the new choice if that has more ops quantized, else ``config``.
    """
    if len(changes) == 1:
        return config
    found = yield from grow_to_the_end(
        f"convert {op_type} op by op", without(config, changes), changes
    )
    return found if len(found.quantized_ops) > len(config.quantized_ops) else config


def type_costs(study: optuna.Study, criterion: AccuracyCriterion | None) -> dict[str, float]:
    """The loss at each stage that converted a whole op type; see the sampler's method."""
    baseline = get_baseline(study)
    if baseline is None or criterion is None:
        return {}
    costs = {}
    for trial in _optuna.all_trials(study):
        claim = TrialView(trial).claim
        if claim is not None and trial.values and claim.stage.startswith("convert "):
            op_type = claim.stage.removeprefix("convert ")
            if " " not in op_type and op_type != "everything":
                costs[op_type] = criterion.loss(trial.values[0], baseline.value)
    return costs
