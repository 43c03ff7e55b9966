"""Which ops of a graph can be quantized dynamically, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.dynamic.fused import lacking_kernel
from optuna_quant.backends.onnxruntime.model.op_tables import DYNAMIC_RULES
from optuna_quant.backends.onnxruntime.model.op_tables import UNSIGNED
from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.op_tables import DynamicRule


OLDEST_OPSET = 11
"""The first opset with DynamicQuantizeLinear."""


def dynamic_rule(node: onnx.NodeProto, graph: Graph) -> DynamicRule | None:
    """What dynamic quantization of a node is; None if it cannot be quantized so."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule = DYNAMIC_RULES.get((domain, node.op_type))
    if rule is None or graph.opset < OLDEST_OPSET or lacking_kernel(node):
        return None
    inputs = dict(enumerate(node.input))
    given = [inputs[i] for i in rule.constants_if_given if inputs.get(i)]
    for name in (*(inputs.get(i, "") for i in rule.constants), *given):
        if not graph.is_weight(name):
            return None
    # The tensor that is quantized at run time must not be a constant itself.
    if 0 not in rule.constants and graph.is_constant(node.input[0]):
        return None
    return rule


def dynamic_options(node: onnx.NodeProto, graph: Graph, rule: DynamicRule) -> tuple[OpConfig, ...]:
    """The ways to quantize a node dynamically, the default first."""
    weights = rule.weights
    if len(graph.initializers[node.input[rule.constants[0]]].dims) < 2:
        weights = tuple(weight for weight in weights if weight.granularity == "per_tensor")
    return tuple(OpConfig("dynamic", UNSIGNED, weight) for weight in weights)
