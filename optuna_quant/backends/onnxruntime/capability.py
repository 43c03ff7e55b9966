"""What the backend can do with the ops of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.dynamic.ops import dynamic_options
from optuna_quant.backends.onnxruntime.dynamic.ops import dynamic_rule
from optuna_quant.backends.onnxruntime.hints import why_nothing
from optuna_quant.backends.onnxruntime.model.float_constants import total_float_bytes
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.left_out import FloatWeights


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp


APPROACHES = ("static", "dynamic", "auto")


def usual_approach(graph: Graph, static: Mapping[str, StaticOp], model_bytes: int) -> str:
    """The approach for a model where the user names none.

    It is static quantization, and ``"auto"`` where that would leave a considerable part of the
    model as it is: the weights of ops whose quantization pays and that only dynamic quantization
    takes.

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
) -> Capability:
    """What can be done with each op.

    Args:
        graph:
            The graph.
        static:
            The ops that can be quantized statically, by name.
        approach:
            ``"static"``, ``"dynamic"``, or ``"auto"``: static options first, then dynamic ones.
        calibration_sizes:
            The calibration sampling sizes, default first.
    """
    ops = []
    for node in graph.nodes:
        op = static.get(node.name) if approach != "dynamic" else None
        rule = dynamic_rule(node, graph) if approach != "static" else None
        if rule is not None and op is not None and not rule.beside_static:
            rule = None
        options = [
            *(op.options() if op else ()),
            *(dynamic_options(node, graph, rule) if rule else ()),
        ]
        if options:
            default = (op is not None and op.rule.default) or (rule is not None and rule.default)
            op_type = op.op_type if op else node.op_type
            more = op.options_on_request() if op else ()
            ops.append(OpCapability(node.name, op_type, (*options, FP32), default, more))
    hint = "" if any(op.default for op in ops) else why_nothing(graph, static, approach)
    types = {schema.name for schema in onnx.defs.get_all_schemas()}
    return Capability(
        tuple(ops),
        calibration_sizes=tuple(calibration_sizes),
        hint=hint,
        known_types=tuple(sorted(types | {node.op_type for node in graph.nodes})),
        known_names=tuple(node.name for node in graph.nodes if node.name),
    )
