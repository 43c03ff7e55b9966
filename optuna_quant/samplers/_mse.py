"""Strategies that rank ops by a sensitivity instead of evaluating each fallback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._basic import BasicQuantSampler
from optuna_quant.samplers._basic import Best
from optuna_quant.samplers._conservative import require_criterion
from optuna_quant.samplers._fallback import by_score
from optuna_quant.samplers._fallback import walk
from optuna_quant.samplers._grow import grow
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._requests import Evaluation
from optuna_quant.samplers._requests import Plan
from optuna_quant.samplers._requests import Stage


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._scores import Sensitivity
    from optuna_quant.space import TuningSpace
    from optuna_quant.tunable import Tunable


@register_strategy("mse")
class MSEQuantSampler(BasicQuantSampler):
    """Put the ops in fallback whose output quantization distorts most.

    After neural-compressor 2's strategy of the same name: the stages of
    :class:`BasicQuantSampler` up to the fallback; then ``accumulated fallback`` in the order of
    the sensitivity, highest first. Where the metric makes no progress for ``patience`` ops the
    others are scored anew, given what is in fallback.

    No evaluation is spent on ranking. Use it when evaluations are dear and there are many ops.

    Args:
        space:
            The tuning space.
        sensitivity:
            What scores the ops: by the mean squared error of each op's output between the FP32
            and the quantized model, such as a backend's ``mse_sensitivity()``.
        **kwargs:
            See :class:`BasicQuantSampler`.
    """

    def __init__(
        self, space: TuningSpace, *, sensitivity: Sensitivity | None, **kwargs: Any
    ) -> None:
        if kwargs.get("accumulate") == "bracket":
            raise ValueError(
                f"accumulate='bracket' is no option of {type(self).__name__}, which walks along "
                "its ranking and revises it."
            )
        super().__init__(space, sensitivity=sensitivity, **kwargs)

    def plan(self, space: TuningSpace) -> Plan:
        """The stages that the class describes."""
        best = Best()
        yield from self._settings(space, best)
        yield from self._fall_back(space, best)

    def _fall_back(self, space: TuningSpace, best: Best) -> Plan:
        tunables = quantized(space, best)
        ranked = yield from by_score(best.config, tunables)
        yield from walk(
            "accumulated fallback",
            best.config,
            best.score,
            ranked,
            patience=self._patience,
            rerank=by_score,
            keep=True,
        )


@register_strategy("hawq_v2")
class HAWQV2QuantSampler(MSEQuantSampler):
    """Put the ops in fallback to whose quantization the loss is most sensitive.

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

    def _fall_back(self, space: TuningSpace, best: Best) -> Plan:
        ranked = yield from by_score(best.config, quantized(space, best))
        yield from walk(
            "accumulated fallback", best.config, best.score, ranked, patience=self._patience
        )


@register_strategy("mse_v2")
class MSEV2QuantSampler(MSEQuantSampler):
    """Put the most sensitive op in fallback, score again, and so on; then take back what one can.

    After neural-compressor 2's strategy of the same name: the stages of
    :class:`BasicQuantSampler` up to the fallback; then

    1. ``fallback of the most sensitive``: one op after the other, each chosen by the sensitivity
       given what is in fallback already, until the criterion is met;
    2. ``revert the least sensitive``: as many of them as the criterion allows are quantized
       again, the least sensitive first.

    The answer is what stands at the end (stage ``answer``).

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
            If there is no criterion.
        ValueError:
            If ``confidence_batches`` is given and the sensitivity has no batches.
    """

    def __init__(
        self,
        space: TuningSpace,
        *,
        criterion: AccuracyCriterion | None,
        sensitivity: Sensitivity | None,
        confidence_batches: int | None = None,
        **kwargs: Any,
    ) -> None:
        require_criterion(self, criterion)
        if confidence_batches is not None:
            with_batches = getattr(sensitivity, "with_batches", None)
            if with_batches is None:
                raise ValueError(
                    f"confidence_batches={confidence_batches} needs a sensitivity that has the "
                    "method with_batches, such as backend.output_sensitivity()."
                )
            sensitivity = with_batches(confidence_batches)
        super().__init__(space, criterion=criterion, sensitivity=sensitivity, **kwargs)

    def _fall_back(self, space: TuningSpace, best: Best) -> Plan:
        config, options = best.config, best.config.ops
        left = quantized(space, best)
        chosen: list[Tunable] = []
        met = False
        while left and not met:
            first, *left = yield from by_score(config, left)
            config = config.with_fallback(*first.ops)
            chosen.append(first)
            result: Evaluation
            (result,) = yield Stage("fallback of the most sensitive", [config], provisional=True)
            met = result.met is True
        if not met:
            return
        # The last one made the difference; the others may not have to stay.
        back = [(tunable, options[tunable.ops[0]]) for tunable in reversed(chosen[:-1])]
        config = yield from grow("revert the least sensitive", config, back)
        if config.quantized_ops:
            yield Stage("answer", [config])


def quantized(space: TuningSpace, best: Best) -> Sequence[Tunable]:
    """The ops that are quantized in the best configuration and can fall back to FP32."""
    return [
        tunable
        for tunable in space.tunables
        if best.config.ops[tunable.ops[0]].is_quantized
        and any(option.mode == "fp32" for option in tunable.fallbacks)
    ]
