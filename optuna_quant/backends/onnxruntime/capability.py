"""What the backend can do with the ops of a graph."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.dynamic.ops import dynamic_options
from optuna_quant.backends.onnxruntime.dynamic.ops import dynamic_rule
from optuna_quant.backends.onnxruntime.hints import why_nothing
from optuna_quant.backends.onnxruntime.model.float_constants import total_float_bytes
from optuna_quant.backends.onnxruntime.targets.target import USUAL_TARGET
from optuna_quant.backends.onnxruntime.weight_only.ops import is_worth_it_by_default
from optuna_quant.backends.onnxruntime.weight_only.ops import weight_only_options
from optuna_quant.backends.onnxruntime.weight_only.presets import weight_only_presets
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.left_out import FloatWeights


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.targets.target import Target
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.space.capability import OnRequest
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.presets import Preset


APPROACHES = ("static", "dynamic", "weight_only", "auto")

WITHOUT_DATA = frozenset({"dynamic", "weight_only"})
"""The approaches that need no calibration data."""


def usual_approach(graph: Graph, static: Mapping[str, StaticOp], model_bytes: int) -> str:
    """The approach for a model where the user names none.

    It is static quantization, and ``"auto"`` where that would leave a considerable part of the
    model as it is: the weights of ops that are worth quantizing and that only dynamic
    quantization takes.

    Args:
        graph:
            The graph.
        static:
            The ops that can be quantized statically, by name.
        model_bytes:
            The size of the model.
    """
    only_dynamic = []
    for node in graph.nodes:
        rule = dynamic_rule(node, graph)
        if rule is not None and rule.default and node.name not in static:
            only_dynamic.append(node)
    weights = FloatWeights(total_float_bytes(only_dynamic, graph), model_bytes)
    return "auto" if only_dynamic and weights.is_worth_saying else "static"


def find_capability(
    graph: Graph,
    static: Mapping[str, StaticOp],
    approach: str,
    calibration_sizes: Sequence[int] = (),
    *,
    weight_only: Mapping[str, WeightOnlyOp] = MappingProxyType({}),
    has_data: bool = False,
    target: Target = USUAL_TARGET,
) -> Capability:
    """What can be done with each op.

    Args:
        graph:
            The graph.
        static:
            The ops that can be quantized statically, by name.
        approach:
            ``"static"``, ``"dynamic"``, ``"weight_only"``, or ``"auto"``: static options first,
            then dynamic ones, and on request those with weights alone.
        calibration_sizes:
            The calibration sampling sizes, default first.
        weight_only:
            The ops whose weights alone can be quantized, by name.
        has_data:
            Whether there are calibration data.
        target:
            What the ops are offered for.
    """
    ops = []
    profile = target.profile
    alone = _WeightsAlone(graph, weight_only, target, has_data=has_data)
    for node in graph.nodes:
        if approach == "weight_only":
            ops += alone.capabilities(node)
            continue
        op = static.get(node.name) if approach != "dynamic" else None
        rule = dynamic_rule(node, graph) if approach != "static" and profile.dynamic else None
        if rule is not None and op is not None and not rule.beside_static:
            rule = None
        options = [
            *(op.options() if op else ()),
            *(dynamic_options(node, graph, rule) if rule else ()),
        ]
        if options:
            default = (op is not None and op.rule.default) or (rule is not None and rule.default)
            op_type = op.op_type if op else node.op_type
            more = op.on_request() if op else ()
            if approach == "auto":
                more += alone.on_request(node.name)
            options += target.fallbacks(op_type, node, graph)
            weight = _weight_of(node, graph, options)
            ops.append(OpCapability(node.name, op_type, tuple(options), default, more, weight))
    presets: tuple[Preset, ...] = ()
    if approach == "weight_only":
        options_of = {op.name: op.options for op in ops}
        presets = weight_only_presets(
            [weight_only[name] for name in options_of], options_of, has_data=has_data
        )
    hint = ""
    if not any(op.default for op in ops):
        hint = why_nothing(graph, static, approach, profile=profile)
    return Capability(
        tuple(ops),
        calibration_sizes=tuple(calibration_sizes),
        hint=hint,
        known_types=tuple(sorted(_standard_types() | {node.op_type for node in graph.nodes})),
        known_names=tuple(node.name for node in graph.nodes if node.name),
        presets=presets,
        unavailable={} if has_data else dict.fromkeys(NEEDS_INPUTS, "without calibration_data"),
    )


@cache
def _standard_types() -> frozenset[str]:
    """The op types that ONNX knows."""
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas())


def _weight_of(node: onnx.NodeProto, graph: Graph, options: Iterable[OpConfig]) -> str:
    """The constant that options quantize as a weight; empty if there is none."""
    if all(option.weight is None for option in options):
        return ""
    return next((name for name in node.input[:2] if graph.is_weight(name)), "")


class _WeightsAlone:
    """What weight-only quantization offers; ops of one form share their options."""

    def __init__(
        self,
        graph: Graph,
        ops: Mapping[str, WeightOnlyOp],
        target: Target,
        *,
        has_data: bool,
    ) -> None:
        self._graph = graph
        self._target = target
        self._ops = ops
        self._has_data = has_data
        self._options: dict[
            tuple[int, bool, bool], tuple[tuple[OpConfig, ...], tuple[OnRequest, ...]]
        ] = {}

    @cached_property
    def _float_bytes(self) -> int:
        return total_float_bytes(self._graph.nodes, self._graph)

    def capabilities(self, node: onnx.NodeProto) -> list[OpCapability]:
        """What can be done with an op; empty if nothing."""
        op = self._ops.get(node.name)
        if op is None:
            return []
        options, on_request = self._of(op, beside_others=False)
        default = is_worth_it_by_default(op, self._float_bytes)
        options += self._target.fallbacks(op.op_type, node, self._graph)
        return [OpCapability(node.name, op.op_type, options, default, on_request, op.weight)]

    def on_request(self, name: str) -> tuple[OnRequest, ...]:
        """The options of an op that has others."""
        op = self._ops.get(name)
        return () if op is None else self._of(op, beside_others=True)[1]

    def _of(
        self, op: WeightOnlyOp, *, beside_others: bool
    ) -> tuple[tuple[OpConfig, ...], tuple[OnRequest, ...]]:
        form = (op.inputs, op.is_table, beside_others)
        if form not in self._options:
            offered, on_request = weight_only_options(
                op, has_data=self._has_data, beside_others=beside_others
            )
            allows = self._target.profile.allows
            self._options[form] = (
                tuple(option for option in offered if allows(op.op_type, option)),
                tuple(each for each in on_request if allows(op.op_type, each.option)),
            )
        return self._options[form]
