"""Which ONNX operators have a torch counterpart, told without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.graph import captured_names


if TYPE_CHECKING:
    import onnx


STANDARD_DOMAINS = ("", "ai.onnx")

# fmt: off
SUPPORTED = frozenset(
    {
        "Abs", "Acos", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "Attention",
        "AveragePool",
        "BatchNormalization",
        "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Constant",
        "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum",
        "DepthToSpace", "Div", "Dropout",
        "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike",
        "Flatten", "Floor",
        "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
        "GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization",
        "HardSigmoid", "HardSwish",
        "Identity", "InstanceNormalization", "IsNaN",
        "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
        "LpNormalization",
        "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul",
        "Neg", "NonZero", "Not",
        "OneHot", "Or",
        "PRelu", "Pad", "Pow",
        "RMSNormalization", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round",
        "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax",
        "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
        "Swish",
        "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu",
        "Unsqueeze",
        "Where",
        "Xor",
    }
)
# fmt: on
"""The operators of ONNX's own domain that ``operators.py`` runs, which imports torch."""


class UnsupportedOperatorError(ValueError):
    """A node of a model has no counterpart in torch."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The model cannot be run through torch from its ONNX graph: {what}. Pass the "
            "nn.Module that it was exported from instead: module=, with parameters=, a dict from "
            "op names to names of the module's parameters."
        )


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its local functions inlined; the same object if it has none."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def check_supported(model: onnx.ModelProto) -> None:
    """Check that a model without functions can be run in torch, as far as its operators tell.

    Raises:
        UnsupportedOperatorError:
            If it has operators without counterpart; the message names them.
        ValueError:
            If the graph is not in order.
    """
    lacking: dict[str, str] = {}
    for node in model.graph.node:
        is_standard = node.domain in STANDARD_DOMAINS
        if not is_standard or node.op_type not in SUPPORTED:
            domain = "" if is_standard else f"{node.domain}."
            lacking.setdefault(f"{domain}{node.op_type}", node.name)
    if lacking:
        listed = ", ".join(f"{op_type} (node {name!r})" for op_type, name in lacking.items())
        raise UnsupportedOperatorError(f"there is no torch counterpart of operator {listed}")
    _check_order(model.graph)


def _check_order(graph: onnx.GraphProto) -> None:
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known.add("")
    for node in graph.node:
        for name in (*node.input, *captured_names(node)):
            if name not in known:
                raise ValueError(
                    f"Node {node.name!r} ({node.op_type}) reads {name!r}, which no input, "
                    "initializer or earlier node provides."
                )
        known.update(node.output)
    for value in graph.output:
        if value.name not in known:
            raise ValueError(f"Nothing in the model computes its output {value.name!r}.")
