"""The ops of a graph as a target takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.static.ops import StaticOp
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna_quant.backends.onnxruntime.targets.profile import IntegerForm
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile


_NO_FLOAT_OUTPUT = frozenset({"ArgMax"})


def ops_of_target(ops: Iterable[StaticOp], profile: TargetProfile) -> Iterator[StaticOp]:
    """The ops that a target runs on integers, with the options that it has for them.

    Args:
        ops:
            The ops that the CPU provider can quantize statically.
        profile:
            The target.
    """
    for op in ops:
        rule = op.rule
        if rule.layer and not profile.is_cpu:
            continue
        forms = profile.forms_of(op.op_type)
        offered = tuple(_options(op, [form for form in forms if not form.on_request], profile))
        asked = tuple(_options(op, [form for form in forms if form.on_request], profile))
        if not offered and not asked:
            continue
        default = rule.default
        if profile.default_op_types:
            default = op.op_type in profile.default_op_types
        own = replace(rule, default=default and bool(offered))
        if not profile.is_cpu:
            writes = rule.owns_output
            if profile.integer_outputs is not None:
                writes = profile.integer_outputs and op.op_type not in _NO_FLOAT_OUTPUT
            own = replace(own, owns_output=writes or not op.activations, kernel=())
            # What the CPU provider would fuse does not matter.
            op = replace(op, matmul_add=None)
        yield replace(op, own_rule=own, offered=offered, on_request=asked)


def _options(
    op: StaticOp, forms: Iterable[IntegerForm], profile: TargetProfile
) -> Iterator[OpConfig]:
    """The static options of an op, weight by weight; the activation's algorithm runs fastest."""
    for form in forms:
        for weight in _weights(op, form, profile):
            for algorithm in op.rule.algorithms:
                activation = replace(form.activation_config, algorithm=algorithm)
                yield OpConfig("static", activation, weight)


def _weights(
    op: StaticOp, form: IntegerForm, profile: TargetProfile
) -> Iterator[TensorConfig | None]:
    slot = op.weight
    if slot is None:
        yield None
    elif profile.is_cpu and form.activation_config.bits == 8:
        # Its kernels do not take each weight on each side.
        known = {(w.dtype, w.scheme, w.granularity) for w in form.weight_configs}
        yield from (w for w in slot.configs if (w.dtype, w.scheme, w.granularity) in known)
    else:
        for weight in form.weight_configs:
            if weight.granularity == "per_tensor" or slot.axis is not None:
                yield weight
