"""The default strategy: everything quantized, then conservative, then basic."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._basic import BasicQuantSampler
from optuna_quant.samplers._conservative import convert
from optuna_quant.samplers._conservative import require_criterion
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.samplers._requests import Evaluation
from optuna_quant.samplers._requests import Plan
from optuna_quant.samplers._requests import Stage


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space import TuningSpace


@register_strategy("auto")
class AutoQuantSampler(BasicQuantSampler):
    """The strategy to begin with: the cheapest question first.

    1. ``default``: every op quantized. If that meets the criterion it is the answer.
    2. The stages of :class:`ConservativeQuantSampler`: from FP32, as much as the criterion
       allows. Its answer ends a search that stops at the first success.
    3. The stages of :class:`BasicQuantSampler`, for a search that goes on, or if nothing has met
       the criterion.

    What one part has evaluated the others use.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        **kwargs:
            See :class:`BasicQuantSampler`.

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
        default: Evaluation
        (default,) = yield Stage("default", [space.default()])
        if not default.met:
            config = yield from convert(space)
            if config.quantized_ops:
                yield Stage("answer", [config])
        yield from super().plan(space)
