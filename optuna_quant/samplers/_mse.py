"""Strategies that rank ops by a sensitivity instead of evaluating each fallback."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

from optuna_quant._common.counts import check_count
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.base import TakesBatches
from optuna_quant.samplers._basic import BasicQuantSampler
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.best import Best
from optuna_quant.samplers._plans.cheaper_fallback import cheaper_fallback
from optuna_quant.samplers._plans.cheaper_fallback import float_modes
from optuna_quant.samplers._plans.cheaper_fallback import suffix_of
from optuna_quant.samplers._plans.criterion import require_criterion
from optuna_quant.samplers._plans.fallback import bracket
from optuna_quant.samplers._plans.fallback import by_score
from optuna_quant.samplers._plans.fallback import walk
from optuna_quant.samplers._plans.grow import grow
from optuna_quant.samplers._registry import register_strategy


if TYPE_CHECKING:
    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


# What makes the sensitivity of each kind in our backends.
_MAKERS = {
    SensitivityKind.OP_ERROR: "backend.mse_sensitivity()",
    SensitivityKind.CURVATURE: "backend.hessian_sensitivity(loss=...)",
    SensitivityKind.OUTPUT_ERROR: "backend.output_sensitivity()",
}


@register_strategy("mse")
class MSEQuantSampler(BasicQuantSampler):
    """Put the ops whose output is distorted most by quantization in fallback.

    After neural-compressor 2's strategy of the same name: the stages of
    :class:`BasicQuantSampler` up to the fallback; then, in the order of the sensitivity, highest
    first:

    1. ``accumulated fallback``: the first 1, 2, 4, 8, ... ops, until the criterion is met, then
       between the last two by halves;
    2. ``quantized again``: as many of them as the criterion allows, the least sensitive first;
    3. ``16-bit activations``, ``bf16 instead of fp32``, ``fp16 instead of fp32``: as many of the
       ops that are still in FP32 as the criterion allows in each of these, in this order (only
       where the space has them).

    The answer is what stands at the end (stage ``answer``). The first of the two is done for the
    default too, before any other option is tried, so that a search that ends early has an answer.

    With ``accumulate="walk"``, or without a criterion, ops are added one at a time; where the
    metric makes no progress for ``patience`` ops the others are scored again, given what is in
    fallback. Then each floating-point mode of the space (bf16, fp16, fp32) has a walk of its own.

    No evaluation is spent on ranking. Use it when evaluations take long and there are many ops.

    Args:
        space:
            The tuning space.
        sensitivity:
            What scores the ops: by the mean squared error of each op's output between the FP32
            and the quantized model, such as a backend's ``mse_sensitivity()``.
        accumulate:
            ``"bracket"`` or ``"walk"``, see above. Default: ``"bracket"``; ``"walk"`` without a
            criterion and with ``compat="inc2"``.
        **kwargs:
            See :class:`BasicQuantSampler`.
    """

    sensitivity_kind: ClassVar[SensitivityKind] = SensitivityKind.OP_ERROR

    # Whether the ranking depends on what is in fallback.
    _scores_again = True

    def __init__(
        self,
        space: TuningSpace,
        *,
        sensitivity: Sensitivity | EllipsisType | None = ...,
        accumulate: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(sensitivity, EllipsisType):
            raise TypeError(
                f"{type(self).__name__} ranks ops by a sensitivity: give sensitivity=, such as "
                f"{_MAKERS[self.sensitivity_kind]}, or a function of yours with its arguments "
                "(config, ops)."
            )
        super().__init__(space, sensitivity=sensitivity, accumulate=accumulate, **kwargs)
        if self._blocks:
            raise ValueError(
                "blocks: this strategy ranks single ops by their sensitivity and looks at no "
                "blocks; leave them out, or use the strategy 'basic'."
            )
        if accumulate is None:
            walks = self._criterion is None or self._compat == "inc2"
            self._accumulate = "walk" if walks else "bracket"

    def plan(self, space: TuningSpace) -> Plan:
        """The stages that the class describes."""
        best = Best()
        yield from self._settings(space, best)
        yield from self._fall_back(space, best)

    def _fall_back(self, space: TuningSpace, best: Best) -> Plan:
        if self._accumulate == "bracket" and (
            yield from self._accumulate_and_take_back(space, best.config, "quantized again")
        ):
            return
        # Where they are searched by halves FP32 was not enough; nothing of fewer bits will be.
        modes = float_modes(space) if self._accumulate == "walk" else ["fp32"]
        for mode in modes:
            ops = quantized(space, best.config, mode)
            ranked = yield from by_score(best.config, ops)
            found = yield from walk(
                f"accumulated fallback{suffix_of(mode)}",
                best.config,
                best.score,
                ranked,
                mode=mode,
                patience=self._patience,
                rerank=by_score if self._scores_again else None,
                keep=True,
            )
            if found is not None:
                return

    def _accumulate_and_take_back(
        self, space: TuningSpace, config: QuantConfig, stage: str
    ) -> Generator[Request, Any, bool]:
        """Accumulate fallback, then make it as cheap as one can; whether anything meets."""
        found = yield from self._accumulated(space, config)
        if found is None:
            return False
        enough, ops = found
        back = [(tunable, config.ops[tunable.ops[0]]) for tunable in reversed(ops)]
        enough = yield from grow(stage, enough, back)
        enough = yield from cheaper_fallback(space, enough, config)
        if enough.quantized_ops:
            yield Stage("answer", [enough])
        return True

    def _early_answer(self, space: TuningSpace, base: QuantConfig) -> Plan:
        if self._accumulate == "bracket":
            yield from self._accumulated(space, base)

    def _accumulated(
        self, space: TuningSpace, config: QuantConfig
    ) -> Generator[Request, Any, tuple[QuantConfig, Sequence[Tunable]] | None]:
        """Put ops in fallback until the criterion is met.

        Args:
            space:
                The tuning space.
            config:
                The configuration to start from; it does not meet the criterion.

        Returns:
            The configuration, which meets the criterion as far as was evaluated, and those of its
            ops that may not have to be in fallback, the first that was put there first;
            :obj:`None` if nothing that was tried meets it.
        """
        ranked = yield from by_score(config, quantized(space, config))
        found = yield from bracket("accumulated fallback", config, ranked)
        # The last one made the difference; the others may not have to stay.
        return None if found is None else (found[0], found[1][:-1])


@register_strategy("hawq_v2")
class HAWQV2QuantSampler(MSEQuantSampler):
    """Put the ops to whose quantization the loss is most sensitive in fallback.

    The stages of :class:`MSEQuantSampler`, with the order of HAWQ-V2 (Dong et al., "HAWQ-V2:
    Hessian Aware trace-Weighted Quantization of Neural Networks", 2020, section 3): the average
    trace of the Hessian of the loss in an op's weight, times the squared perturbation of that
    weight by quantization. The ranking is made once: it does not depend on what is in fallback.

    Args:
        space:
            The tuning space.
        sensitivity:
            What scores the ops, such as a backend's ``hessian_sensitivity(loss=...)``.
        **kwargs:
            See :class:`BasicQuantSampler`.
    """

    sensitivity_kind = SensitivityKind.CURVATURE

    _scores_again = False


@register_strategy("mse_v2")
class MSEV2QuantSampler(MSEQuantSampler):
    """Put the most sensitive op in fallback, score again, and so on; then quantize what one can.

    After neural-compressor 2's strategy of the same name: the stages of
    :class:`BasicQuantSampler` up to the fallback; then

    1. ``fallback of the most sensitive``: 1, 1, 2, 4, 8, ... ops more (one after the other with
       ``accumulate="walk"``), each time chosen by the sensitivity given what is in fallback
       already, until the criterion is met;
    2. ``revert the least sensitive``: as many of them as the criterion allows are quantized
       again, the least sensitive first;
    3. as the third of ``mse``, options of 16 bits instead of FP32.

    The answer is what stands at the end (stage ``answer``). As with ``mse``, the first of the two
    is done for the default too, before any other option is tried.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        sensitivity:
            What scores the ops by how far each moves the model's output, such as a backend's
            ``output_sensitivity(batches=2)``.
        confidence_batches:
            On how many batches the sensitivity scores the ops. Default: what it was made with.
        **kwargs:
            See :class:`BasicQuantSampler`.

    Raises:
        TypeError:
            If there is no criterion, or ``confidence_batches`` is no integer.
        ValueError:
            If ``confidence_batches`` is less than 1, or given and the sensitivity has no batches.
    """

    sensitivity_kind = SensitivityKind.OUTPUT_ERROR

    def __init__(
        self,
        space: TuningSpace,
        *,
        criterion: AccuracyCriterion | None,
        sensitivity: Sensitivity | EllipsisType | None = ...,
        confidence_batches: int | None = None,
        **kwargs: Any,
    ) -> None:
        require_criterion(self, criterion)
        if confidence_batches is not None:
            if not isinstance(sensitivity, TakesBatches):
                raise ValueError(
                    f"confidence_batches={confidence_batches} needs a sensitivity that has the "
                    "method with_batches, such as backend.output_sensitivity()."
                )
            check_count("confidence_batches", confidence_batches)
            sensitivity = sensitivity.with_batches(confidence_batches)
        super().__init__(space, criterion=criterion, sensitivity=sensitivity, **kwargs)

    def _fall_back(self, space: TuningSpace, best: Best) -> Plan:
        yield from self._accumulate_and_take_back(space, best.config, "revert the least sensitive")

    def _accumulated(
        self, space: TuningSpace, config: QuantConfig
    ) -> Generator[Request, Any, tuple[QuantConfig, Sequence[Tunable]] | None]:
        waiting = quantized(space, config)
        chosen: list[Tunable] = []
        met, count = False, 1
        while waiting and not met:
            ranked = yield from by_score(config, waiting)
            first, waiting = ranked[:count], ranked[count:]
            config = config.with_fallback(*(op for tunable in first for op in tunable.ops))
            chosen += first
            result: Evaluation
            (result,) = yield Stage("fallback of the most sensitive", [config], provisional=True)
            met = result.met is True
            if self._accumulate == "bracket":
                count = len(chosen)
        if not met:
            return None
        # One op that was the last made the difference; the others may not have to stay.
        return config, chosen[:-1] if len(first) == 1 else chosen


def quantized(space: TuningSpace, config: QuantConfig, mode: str = "fp32") -> Sequence[Tunable]:
    """The ops that are quantized in a configuration and can fall back to a mode."""
    return [
        tunable
        for tunable in space.tunables
        if config.ops[tunable.ops[0]].is_quantized
        and any(option.mode == mode for option in tunable.fallbacks)
    ]
