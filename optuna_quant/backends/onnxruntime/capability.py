"""What the backend can do with the ops of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.dynamic_ops import dynamic_options
from optuna_quant.backends.onnxruntime.dynamic_ops import dynamic_rule
from optuna_quant.capability import Capability
from optuna_quant.capability import OpCapability
from optuna_quant.config import FP32


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.graph import Graph
    from optuna_quant.backends.onnxruntime.static_ops import StaticOp


APPROACHES = ("static", "dynamic", "auto")


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
            ops.append(OpCapability(node.name, op_type, (*options, FP32), default))
    hint = ""
    if not any(op.default for op in ops) and onnx.TensorProto.FLOAT16 in graph.dtypes.values():
        hint = "It computes in float16, but only float32 is quantized: export it in float32."
    types = {schema.name for schema in onnx.defs.get_all_schemas()}
    return Capability(
        tuple(ops),
        calibration_sizes=tuple(calibration_sizes),
        hint=hint,
        known_types=tuple(sorted(types | {node.op_type for node in graph.nodes})),
        known_names=tuple(node.name for node in graph.nodes if node.name),
    )
