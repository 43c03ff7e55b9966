"""What a search for a small model could still try where its answer leaves room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.costs.objective import SIZE
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna_quant.space.config import OpConfig
    from optuna_quant.tuning.outcome import Outcome


_ROOM = 0.5
"""The part of the tolerance that must be left."""

_PART = 0.5
"""The part of the weights, by size, that must have fewer bits on request."""


def shown_fewer_bits(result: Outcome) -> tuple[str, ...]:
    """That weights of fewer bits were not searched, where they would be the next step.

    Such options are in the space on request, as most of them make a model smaller and slower.

    Args:
        result:
            The result.

    Returns:
        A line, or none: if the search was not for size, if its answer leaves less than half of the
        tolerated loss, or if the backend has no fewer bits for half of the weights.
    """
    known = result.known_objective
    if result.objective != SIZE or known is None or not result.met or result.is_chosen:
        return ()
    if result.config is None or result.is_fp32 or result.loss is None:
        return ()
    table = known.costs.tables.get(SIZE)
    if table is None or result.loss > _ROOM * result.criterion.tolerable_loss:
        return ()
    capability = {op.name: op for op in result.backend.capability().ops}
    sizes = {name: table.ops[name][FP32.label] for name in table.ops}
    found: dict[str, int] = {}
    for name, option in result.config.ops.items():
        op = capability.get(name)
        if op is None or name not in sizes:
            continue
        asked = (each.option for each in op.on_request)
        fewer = max(_usable(asked, option), default=None)
        if fewer is not None:
            found[name] = fewer
    if sum(sizes[name] for name in found) < _PART * sum(sizes.values()):
        return ()
    bits = max(found.values())
    wish = f'{{".*": {{"weight": {{"bits": [8, {bits}]}}}}}}'
    return (
        f"not searched: weights of {bits} bits, which half of the tolerated loss leaves room for; "
        f"try op_type_dict={wish} (--op-type-dict '{wish}'): smaller, often slower",
    )


def _usable(asked: Iterator[OpConfig], chosen: OpConfig) -> Iterator[int]:
    """The bits of weights alone that are fewer than those that an op has."""
    now = 32 if chosen.weight is None else chosen.weight.bits
    weights = (each.weight for each in asked if each.mode == "weight_only")
    return (w.bits for w in weights if w is not None and 4 <= w.bits < min(now, 8))
