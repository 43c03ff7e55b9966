"""Why the FP32 model is the answer, as the explanation of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.callbacks import StopReason
from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.no_gain import NoGain
from optuna_quant.samplers import Explanation
from optuna_quant.samplers import FallbackOp


if TYPE_CHECKING:
    from optuna_quant.callbacks import Stop
    from optuna_quant.costs.objective import Objective
    from optuna_quant.space.config import QuantConfig


def explain_no_gain(
    config: QuantConfig, objective: Objective, stop: Stop, *, original: str
) -> Explanation | None:
    """Why every op is in floating point: by its costs no quantized model is better.

    Args:
        config:
            The configuration with nothing quantized.
        objective:
            What is best.
        stop:
            Why the search has ended.
        original:
            What the model is called with nothing quantized.

    Returns:
        The explanation; :obj:`None` if the costs are not known.
    """
    if not isinstance(objective, KnownObjective) or objective.table is None:
        return None
    table, space = objective.table, objective.space
    searched = stop.reason != StopReason.NO_GAIN
    gains = op_gains(table, space, config)
    cost = table.cost(config)
    fallback = tuple(
        FallbackOp(
            op,
            None,
            gains[tunable.name].gain / (abs(cost) or 1.0) if tunable.name in gains else None,
            in_cheapest=True,
        )
        for tunable in space.tunables
        for op in tunable.ops
    )
    return Explanation(
        met=False,
        config=config,
        cost=cost,
        errors={},
        fallback=fallback,
        untried=None,
        least_loss=None,
        stage=None,
        samples=None,
        text=NoGain(objective, table, original, searched).reason,
    )
