"""The ops of a tuning space: what a backend can do with them, and the user allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.space.grouping import tie_shared_weights
from optuna_quant.space.narrowing import narrow
from optuna_quant.space.tunable import Tunable


if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.wishes import OpDict


def allowed_tunables(
    capability: Capability,
    *,
    op_types: Sequence[str] | str,
    op_type_dict: OpDict | None,
    op_name_dict: OpDict | None,
) -> tuple[Tunable, ...]:
    """The ops with the options that are left to them, those first that quantize.

    Ops of one type that share one weight are tied, unless they have different options left.

    Args:
        capability:
            What the backend can do.
        op_types:
            See :meth:`optuna_quant.space.space.TuningSpace.from_capability`.
        op_type_dict:
            The same.
        op_name_dict:
            The same.

    Raises:
        ValueError:
            If no op is left, an op type is unknown, or a dictionary has another shape or
            names something that does not exist.
    """
    ops = capability.select(op_types)
    options = narrow(
        [(op.name, op.op_type, op.options) for op in ops],
        op_type_dict=op_type_dict,
        op_name_dict=op_name_dict,
        on_request={op.name: op.on_request for op in ops if op.on_request},
        known_types=[*(op.op_type for op in capability.ops), *capability.known_types],
        known_names=[*(op.name for op in capability.ops), *capability.known_names],
        unavailable=capability.unavailable,
    )
    tunables = tuple(
        Tunable(op.name, op.op_type, (op.name,), _quantized_first(left))
        for op, left in zip(ops, options, strict=True)
    )
    return tie_shared_weights(tunables, {op.name: op.weight for op in ops})


def _quantized_first(options: Sequence[OpConfig]) -> tuple[OpConfig, ...]:
    return tuple(sorted(dict.fromkeys(options), key=lambda option: not option.is_quantized))
