"""The ops of a graph as a target takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import NamedTuple

from optuna_quant.backends.onnxruntime.static.ops import StaticOp
from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions
from optuna_quant.space.capability import OnRequest
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import TensorConfig


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from optuna_quant.backends.onnxruntime.model.op_tables import StaticRule
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
    # Ops of one kind share their options, which a large model has thousands of.
    known: dict[_Kind, _Offer | None] = {}
    for op in ops:
        kind = _Kind(
            op.op_type,
            bool(op.activations),
            op.weight.configs if op.weight is not None else None,
            op.weight is not None and op.weight.axis is not None,
        )
        if kind not in known:
            known[kind] = _offer(op, profile)
        offer = known[kind]
        if offer is None:
            continue
        if not profile.is_cpu:
            # What the CPU provider would fuse does not matter.
            op = replace(op, matmul_add=None)
        yield replace(op, own_rule=offer.rule, offered=offer.options, asked=offer.asked)


class _Kind(NamedTuple):
    """All of an op that its options depend on."""

    op_type: str
    reads_activations: bool
    weights: tuple[TensorConfig, ...] | None
    has_channels: bool


@dataclass(frozen=True)
class _Offer:
    """What a target does with ops of one kind."""

    rule: StaticRule
    options: tuple[OpConfig, ...]
    asked: tuple[OnRequest, ...]


def _offer(op: StaticOp, profile: TargetProfile) -> _Offer | None:
    """What a target does with an op; None for nothing."""
    rule = op.rule
    if rule.layer and not profile.is_cpu:
        return None
    forms = profile.forms_of(op.op_type)
    usual = [form for form in forms if not form.on_request]
    offered = tuple(_options(op, usual, profile, rule.algorithms))
    asked = tuple(_on_request(op, forms, profile))
    if not offered and not asked:
        return None
    default = rule.default
    if profile.default_op_types:
        default = op.op_type in profile.default_op_types
    own = replace(rule, default=default and bool(offered))
    if not profile.is_cpu:
        writes = rule.owns_output
        if profile.integer_outputs is not None:
            writes = profile.integer_outputs and op.op_type not in _NO_FLOAT_OUTPUT
        own = replace(own, owns_output=writes or not op.activations, kernel=())
    return _Offer(own, offered, asked)


def write_options(profile: TargetProfile) -> WriteOptions:
    """In what form a target wants pairs, weights and biases."""
    return WriteOptions(
        for_cpu=profile.is_cpu,
        integer_biases=profile.integer_bias,
        weight_pairs=profile.weight_pairs,
    )


def _on_request(
    op: StaticOp, forms: Iterable[IntegerForm], profile: TargetProfile
) -> Iterator[OnRequest]:
    """The options of an op for those who name the algorithm, or the bits of the activations."""
    rare = (
        [config.algorithm for config in op.rule.activations_on_request] if op.activations else []
    )
    for form in forms:
        bits = {"bits"} if form.on_request else set()
        ways = [(rare, bits | {"algorithm"})]
        if form.on_request:
            ways.insert(0, (list(op.rule.algorithms), bits))
        for algorithms, fields in ways:
            for option in _options(op, [form], profile, algorithms):
                yield OnRequest(option, frozenset(fields), side="activation")


def _options(
    op: StaticOp,
    forms: Iterable[IntegerForm],
    profile: TargetProfile,
    algorithms: Sequence[str],
) -> Iterator[OpConfig]:
    """The static options of an op, weight by weight; the activation's algorithm runs fastest."""
    for form in forms:
        for weight in _weights(op, form, profile):
            for algorithm in algorithms:
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
