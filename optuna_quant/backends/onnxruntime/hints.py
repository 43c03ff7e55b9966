"""Messages about a model that cannot be quantized, or not as well as it should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.left_out import EXPORT
from optuna_quant.backends.onnxruntime.left_out import find_left_out
from optuna_quant.backends.onnxruntime.left_out import is_worth_quantizing
from optuna_quant.backends.onnxruntime.left_out import nonfinite_reason
from optuna_quant.backends.onnxruntime.model.graph import CONTRIB
from optuna_quant.backends.onnxruntime.model.graph import subgraphs
from optuna_quant.backends.onnxruntime.targets.table import CPU


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile


_QUANTIZED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
_QUANTIZED_CONTRIB = frozenset(
    {
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
        "QOrderedMatMul",
    }
)


def model_warnings(graph: Graph) -> Iterator[str]:
    """What is suspicious about a model of which a part can be quantized."""
    found = quantized_nodes(graph.nodes)
    if found:
        yield (
            f"The model is already quantized, at least in part: it has {found}. Give the FP32 "
            "model that it was made from; otherwise only the ops still in floating point are "
            "tuned."
        )
    for node in graph.nodes:
        reason = nonfinite_reason(node, graph)
        if reason is not None:
            yield f"Op {node.name!r} ({node.op_type}) stays in FP32: {reason.text}."


def why_nothing(
    graph: Graph, static: Mapping[str, StaticOp], approach: str, *, profile: TargetProfile = CPU
) -> str:
    """Why no op of a model is quantized by default, and what to do."""
    found = quantized_nodes(graph.nodes)
    if found:
        return f"It is already quantized, with {found}: give the FP32 model that it was made from."
    left_out = find_left_out(graph, static, approach, {}, (), profile=profile)
    layers = [each for each in left_out if is_worth_quantizing(each.op_type)]
    inside = [each for each in layers if each.reason.startswith("it is inside")]
    if layers and len(inside) == len(layers):
        return (
            f"Its {_counted(each.op_type for each in inside)} are all inside If, Loop or Scan, "
            "which are not quantized: export the model without them, or only the branch that "
            "you use."
        )
    dtypes = Counter(each.reason.split()[-1] for each in layers if each.remedy == EXPORT)
    for dtype, _ in dtypes.most_common(1):
        return f"It computes in {dtype}, but only float32 is quantized: export it in float32."
    if not layers:
        return ""
    first = layers[0]
    remedy = f" ({first.remedy})" if first.remedy else ""
    rest = len(layers) - 1
    more = f" There {'is' if rest == 1 else 'are'} {rest} more" if rest else ""
    how = "optuna-quant space --why and left_out() of the backend say why"
    listed = f"{more}: {how}." if rest else ""
    return f"{first.op_type} {first.op!r} is left out: {first.reason}{remedy}.{listed}"


def quantized_nodes(nodes: Iterable[onnx.NodeProto]) -> str:
    """The nodes of a quantized model, counted; empty if there is none."""
    return _counted(
        f"{node.op_type} node"
        for node in _all_nodes(nodes)
        if (node.domain in ("", "ai.onnx") and node.op_type in _QUANTIZED)
        or (node.domain == CONTRIB and node.op_type in _QUANTIZED | _QUANTIZED_CONTRIB)
        or (node.domain == CONTRIB and node.op_type.startswith("QLinear"))
    )


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for inner in subgraphs(node):
            yield from _all_nodes(inner.node)


def _counted(names: Iterable[str]) -> str:
    """Names with how often each comes: ``2 Conv and 1 Gemm``."""
    parts = [
        f"{count} {name}{'s' if count > 1 and name.endswith('node') else ''}"
        for name, count in Counter(names).most_common()
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
