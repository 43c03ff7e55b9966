"""Dynamic quantization: integer kernels whose activation ranges are found at run time.

The weight of an op is quantized beforehand; its activation at run time, per tensor, to uint8, by
``DynamicQuantizeLinear``. The nodes are in the shapes that ONNX Runtime fuses: a ``MatMul`` or a
``Gemm`` becomes one ``DynamicQuantizeMatMul``, or ``MatMulIntegerToFloat`` if another op reads the
same quantized activation.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import MutableMapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper

from optuna_quant.backends.onnxruntime.dynamic.fused import attention
from optuna_quant.backends.onnxruntime.dynamic.fused import embed_layer_normalization
from optuna_quant.backends.onnxruntime.dynamic.fused import lacking_kernel
from optuna_quant.backends.onnxruntime.dynamic.fused import lstm
from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
from optuna_quant.backends.onnxruntime.dynamic.rewrite import gemm_bias
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import subgraphs


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.dynamic.rewrite import LoadTensor
    from optuna_quant.backends.onnxruntime.dynamic.rewrite import WeightCache
    from optuna_quant.backends.onnxruntime.model.tensor_references import Source
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import TensorConfig


_OLDEST_OPSET = 11
"""The first opset with DynamicQuantizeLinear."""


def apply_dynamic(
    model: onnx.ModelProto,
    ops: Mapping[str, OpConfig],
    *,
    reduce_range: bool = False,
    load: LoadTensor = numpy_helper.to_array,
    cache: WeightCache | None = None,
    outside: MutableMapping[str, Source] | None = None,
) -> None:
    """Rewrite the ops in dynamic mode, in place, so that the CPU provider runs integer kernels.

    What each op can be, with weights of int8 or uint8, sym or asym:

    - ``MatMul`` and ``Gemm``: ``MatMulInteger``; weight per tensor or per channel.
    - ``Conv`` and ``com.microsoft.FusedConv``: ``ConvInteger``, which is slower than the float
      kernel; weight per tensor, or per channel if it is sym. Before ONNX Runtime 1.24 its kernel
      takes weights of uint8 only.
    - ``Gather``: a ``Gather`` from an integer table; weight per tensor.
    - ``LSTM``: ``DynamicQuantizeLSTM``; weights per tensor or per channel.
    - ``com.microsoft.Attention``: ``QAttention``; weight per tensor or per channel.
    - ``com.microsoft.EmbedLayerNormalization``: ``QEmbedLayerNormalization``; weights per tensor.

    The node that does an op's work keeps the op's name, and its result keeps its name; all other
    nodes stay as they are. Ops that read the same tensor share one quantization of it. Weights
    that nothing reads any more are removed.

    Args:
        model:
            The model, opset 11 or newer; each node has a name of its own. If an error is raised
            it is as it was.
        ops:
            The configuration of ops, by node name. Those in other modes are ignored.
        reduce_range:
            Whether the weights use 7 bits only, for processors on which sums of two 8-bit products
            saturate (x86 without VNNI instructions).
        load:
            Gives the value of an initializer; needed if data are stored outside the model.
        cache:
            Keeps quantized weights between calls for models with the same initializers.
        outside:
            Where the large initializers are put, of a compact model; None for a whole one.

    Raises:
        ValueError:
            If there is no such node in the main graph, or if it cannot run in its configuration:
            because of its type, of its settings, or of a weight that is not a constant of 32-bit
            floats.
    """
    chosen = {name: config for name, config in ops.items() if config.mode == "dynamic"}
    if not chosen:
        return
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise ValueError(
            f"Dynamic mode needs opset {_OLDEST_OPSET}, but the model has {opset}: export it "
            "again, or convert it with onnx.version_converter."
        )
    rewrite = Rewrite(
        model, opset=opset, reduce_range=reduce_range, load=load, cache=cache, outside=outside
    )
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        config = chosen.pop(node.name, None)
        nodes += [node] if config is None else _rewritten(rewrite, node, config)
    if chosen:
        raise ValueError(_describe_missing(model.graph, next(iter(chosen))))
    rewrite.commit(nodes)


def _rewritten(rewrite: Rewrite, node: onnx.NodeProto, config: OpConfig) -> list[onnx.NodeProto]:
    handler = _HANDLERS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    op = f"Op {node.name!r} ({node.op_type})"
    if handler is None:
        known = ", ".join(sorted(op_type for _, op_type in _HANDLERS))
        raise ValueError(f"{op} has no dynamic mode; the op types that have one: {known}.")
    lacking = lacking_kernel(node)
    if lacking:
        raise ValueError(f"{op} cannot run in dynamic mode: {lacking}. Leave it in fp32.")
    if config.weight is None or config.weight.dtype not in ("int8", "uint8"):
        dtype = config.weight.dtype if config.weight else "nothing"
        raise ValueError(f"{op} needs a weight of int8 or uint8 in dynamic mode, not {dtype}.")
    activation = config.activation
    if activation is not None:
        kind = f"{activation.dtype}/{activation.scheme}/{activation.granularity}"
        if kind != "uint8/asym/per_tensor":
            raise ValueError(
                f"{op} can only have an activation of uint8/asym/per_tensor in dynamic mode, not "
                f"{kind}."
            )
    return handler(rewrite, node, config.weight)


def _describe_missing(graph: onnx.GraphProto, name: str) -> str:
    if any(_has_node(inner, name) for node in graph.node for inner in subgraphs(node)):
        return (
            f"Op {name!r} is inside a subgraph, where ops cannot be quantized: leave it in fp32."
        )
    return f"There is no op {name!r} in the model."


def _has_node(graph: onnx.GraphProto, name: str) -> bool:
    return any(
        node.name == name or any(_has_node(inner, name) for inner in subgraphs(node))
        for node in graph.node
    )


def _matmul(rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig) -> list[onnx.NodeProto]:
    array = rewrite.weight_array(node, 1)
    axis = -1 if config.granularity == "per_channel" and array.ndim > 1 else None
    rewrite.check_granularity(node, config, per_channel=True)
    values, scale, zero_point = rewrite.quantize_weight(
        node.input[1], array, config, axis, reduced=(max(0, array.ndim - 2),)
    )
    if zero_point.ndim and array.ndim > 2:
        # Of a stack of matrices, the kernel wants a zero point for each column of each of them.
        shape = (*array.shape[:-2], 1, array.shape[-1])
        scale, zero_point = np.broadcast_to(scale, shape), np.broadcast_to(zero_point, shape)
    weight = rewrite.store(node.input[1], (config, axis), (values, scale, zero_point))
    nodes, activation = rewrite.activation(node.input[0])
    return nodes + rewrite.product(node, "MatMulInteger", activation, weight, node.output[0])


def _gemm(rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig) -> list[onnx.NodeProto]:
    attributes = node_attributes(node)
    turn, alpha = bool(attributes.get("transB", 0)), float(attributes.get("alpha", 1.0))
    rewrite.check_granularity(node, config, per_channel=True)
    axis = (0 if turn else 1) if config.granularity == "per_channel" else None
    array = rewrite.weight_array(node, 1)
    values, scale, zero_point = rewrite.quantize_weight(
        node.input[1], array, config, axis, reduced=(1 if turn else 0,)
    )
    values = np.ascontiguousarray(values.T) if turn else values
    weight = rewrite.store(
        node.input[1], (config, axis, turn, alpha), (values, scale * np.float32(alpha), zero_point)
    )
    nodes, activation = rewrite.activation(node.input[0])
    if attributes.get("transA", 0):
        turned = rewrite.name(f"{node.name}_A")
        nodes.append(rewrite.node("Transpose", node, "transA", [activation[0]], [turned]))
        activation = (turned, *activation[1:])
    bias = gemm_bias(rewrite, node, float(attributes.get("beta", 1.0)), values.shape[1], nodes)
    result = rewrite.name(f"{node.name}_product") if bias else node.output[0]
    nodes += rewrite.product(node, "MatMulInteger", activation, weight, result)
    if bias:
        nodes.append(rewrite.node("Add", node, "bias", [result, bias], node.output))
    return nodes


def _conv(rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig) -> list[onnx.NodeProto]:
    # The kernel takes one zero point only.
    rewrite.check_granularity(node, config, per_channel=config.scheme == "sym")
    array = rewrite.weight_array(node, 1)
    axis = 0 if config.granularity == "per_channel" else None
    values, scale, zero_point = rewrite.quantize_weight(
        node.input[1], array, config, axis, reduced=tuple(range(1, array.ndim))
    )
    spread = (-1, *[1] * (array.ndim - 2))
    scale = scale if axis is None else scale.reshape(spread)
    weight = rewrite.store(node.input[1], (config, axis), (values, scale, zero_point))
    nodes, activation = rewrite.activation(node.input[0])
    steps = _after_conv(rewrite, node, spread, nodes)
    result = rewrite.name(f"{node.name}_product") if steps else node.output[0]
    product = rewrite.product(node, "ConvInteger", activation, weight, result)
    product[0].attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    nodes += product
    for step in steps:
        last = step is steps[-1]
        output = node.output[0] if last else rewrite.name(f"{result}_then")
        step.input.insert(0, result)
        step.output.append(output)
        nodes.append(step)
        result = output
    return nodes


def _after_conv(
    rewrite: Rewrite, node: onnx.NodeProto, spread: tuple[int, ...], nodes: list[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """What follows the product: nodes that lack their first input and their output.

    Nodes that compute what they read are appended to ``nodes``.
    """
    steps = []
    if len(node.input) > 2 and node.input[2]:
        if rewrite.is_constant(node.input[2]):
            array = rewrite.weight_array(node, 2).reshape(spread)
            bias = rewrite.constant(f"{node.name}_B", array)
        else:
            bias = rewrite.name(f"{node.name}_B")
            shape = rewrite.constant(f"{node.name}_B_shape", np.array(spread, dtype=np.int64))
            inputs = [node.input[2], shape]
            nodes.append(rewrite.node("Reshape", node, "bias_shape", inputs, [bias]))
        steps.append(rewrite.node("Add", node, "bias", [bias], []))
    if len(node.input) > 3 and node.input[3]:
        steps.append(rewrite.node("Add", node, "sum", [node.input[3]], []))
    attributes = node_attributes(node)
    if "activation" not in attributes:
        return steps
    function = attributes["activation"].decode()
    parameters = [float(value) for value in attributes.get("activation_params", ())]
    if function == "Clip":
        limits = [
            rewrite.constant(f"{node.name}_limit", np.asarray(value, dtype=np.float32))
            for value in parameters
        ]
        return [*steps, rewrite.node("Clip", node, "clip", limits, [])]
    if function not in _FUSED_ACTIVATIONS:
        raise ValueError(f"Op {node.name!r} ends with the unknown activation {function!r}.")
    keywords = dict(zip(_FUSED_ACTIVATIONS[function], parameters, strict=False))
    return [*steps, rewrite.node(function, node, function.lower(), [], [], **keywords)]


def _gather(rewrite: Rewrite, node: onnx.NodeProto, config: TensorConfig) -> list[onnx.NodeProto]:
    table, scale, zero_point = rewrite.table(node, 0, config)
    output = rewrite.name(f"{node.name}_rows")
    gather = helper.make_node("Gather", [table, node.input[1]], [output], node.name)
    gather.attribute.extend(node.attribute)
    inputs = [output, scale, zero_point]
    return [gather, rewrite.node("DequantizeLinear", node, "dequantize", inputs, node.output)]


_Handler: TypeAlias = Callable[[Rewrite, onnx.NodeProto, "TensorConfig"], list[onnx.NodeProto]]

# Activation functions that a FusedConv may end with, and the attributes for their parameters.
_FUSED_ACTIVATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Relu": (),
        "Tanh": (),
        "Sigmoid": (),
        "LeakyRelu": ("alpha",),
        "HardSigmoid": ("alpha", "beta"),
    }
)

_HANDLERS: Mapping[tuple[str, str], _Handler] = MappingProxyType(
    {
        ("", "Conv"): _conv,
        ("", "Gather"): _gather,
        ("", "Gemm"): _gemm,
        ("", "LSTM"): lstm,
        ("", "MatMul"): _matmul,
        ("com.microsoft", "Attention"): attention,
        ("com.microsoft", "EmbedLayerNormalization"): embed_layer_normalization,
        ("com.microsoft", "FusedConv"): _conv,
    }
)
