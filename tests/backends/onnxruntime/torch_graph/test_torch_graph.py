"""An ONNX graph in torch computes what ONNX Runtime computes, and can be differentiated."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import TensorProto
from onnx import helper
import onnxruntime
import pytest
import torch

from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph
from optuna_quant.backends.onnxruntime.torch_graph.operators import OPERATORS
from optuna_quant.backends.onnxruntime.torch_graph.supported import SUPPORTED
from optuna_quant.backends.onnxruntime.torch_graph.supported import UnsupportedOperatorError


Array = NDArray[Any]
NONE = None


def rand(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Array:
    generator = np.random.default_rng([seed, *shape])
    return generator.uniform(low, high, shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> Array:
    return np.array(value, dtype=np.float32)


def make_model(
    nodes: list[onnx.NodeProto],
    feed: dict[str, Array],
    constants: dict[str, Array],
    outputs: list[str],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape)
            )
            for name, a in feed.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, opset)
    )


def one_node(
    op_type: str, opset: int, attributes: dict[str, Any], inputs: list[Array | None], outputs: int
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model of one node; its inputs of floats are fed, the others are constants."""
    names = ["" if a is None else f"in{i}" for i, a in enumerate(inputs)]
    arrays = {name: a for name, a in zip(names, inputs, strict=True) if a is not None}
    feed = {name: a for i, (name, a) in enumerate(arrays.items()) if a.dtype.kind == "f" or i == 0}
    constants = {name: a for name, a in arrays.items() if name not in feed}
    results = [f"out{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, "the_node", **attributes)
    return make_model([node], feed, constants, results, opset), feed


def run_onnxruntime(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def run_torch(model: onnx.ModelProto, feed: dict[str, Array], **options: Any) -> list[Array]:
    graph = TorchGraph(model, **options)
    outputs = graph({name: torch.from_numpy(array) for name, array in feed.items()})
    assert list(outputs) == [value.name for value in model.graph.output]
    return [value.detach().numpy() for value in outputs.values()]


def assert_same(model: onnx.ModelProto, feed: dict[str, Array]) -> None:
    for ours, theirs in zip(run_torch(model, feed), run_onnxruntime(model, feed), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype.kind == theirs.dtype.kind
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


X = rand(2, 3, 4)
IMAGE = rand(2, 4, 7, 9)
SEQUENCE = rand(2, 4, 11)
VOLUME = rand(1, 2, 5, 6, 5)
POSITIVE = rand(2, 3, 4, low=0.1)
BOOLS = X > 0

# (op type, opset, attributes, inputs, number of outputs)
Case = tuple[str, int, dict[str, Any], list[Any], int]

CASES: list[Case] = [
    *[
        (name, 14, {}, [X], 1)
        for name in (
            *("Abs", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor"),
            *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu", "Round"),
            *("Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "Tanh"),
            *("Size", "NonZero", "ThresholdedRelu", "Flatten"),
        )
    ],
    *[(name, 14, {}, [POSITIVE], 1) for name in ("Log", "Reciprocal", "Sqrt")],
    *[(name, 14, {}, [X / 2], 1) for name in ("Acos", "Asin")],
    ("IsNaN", 13, {}, [np.where(X > 1, np.nan, X).astype(np.float32)], 1),
    ("LeakyRelu", 11, {"alpha": 0.3}, [X], 1),
    ("ThresholdedRelu", 11, {"alpha": 0.5}, [X], 1),
    ("HardSigmoid", 11, {"alpha": 0.4, "beta": 0.3}, [X], 1),
    ("Elu", 11, {"alpha": 0.7}, [X], 1),
    ("Celu", 12, {"alpha": 0.7}, [X], 1),
    ("Selu", 11, {"alpha": 1.2, "gamma": 1.1}, [X], 1),
    ("PRelu", 16, {}, [X, rand(3, 1)], 1),
    ("Mish", 18, {}, [X], 1),
    ("Gelu", 20, {}, [X], 1),
    ("Gelu", 20, {"approximate": "tanh"}, [X], 1),
    ("Swish", 24, {"alpha": 1.5}, [X], 1),
    *[
        (name, 14, {}, [X, rand(4, low=0.5)], 1)
        for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Equal")
    ],
    *[(name, 16, {}, [X, rand(4)], 1) for name in ("Greater", "Less")],
    *[(name, 16, {}, [X, rand(4)], 1) for name in ("GreaterOrEqual", "LessOrEqual")],
    *[(name, 14, {}, [BOOLS, BOOLS[:, ::-1].copy()], 1) for name in ("And", "Or", "Xor")],
    ("Not", 14, {}, [BOOLS], 1),
    ("Max", 13, {}, [X], 1),
    ("Min", 13, {}, [X, X * 0.5, -X], 1),
    ("Div", 14, {}, [ints(-7, 7, 9), ints(2, -2, 4)], 1),
    ("Mod", 13, {}, [ints(-7, 7, 9), ints(2, -2, 4)], 1),
    ("Mod", 13, {"fmod": 1}, [X, rand(4, low=0.5)], 1),
    ("Pow", 15, {}, [X, scalar(2.0)], 1),
    ("Pow", 15, {}, [POSITIVE, rand(4)], 1),
    ("Pow", 12, {}, [X, ints(2)], 1),
    ("Clip", 6, {"min": -0.5, "max": 1.0}, [X], 1),
    ("Clip", 11, {}, [X, scalar(-0.5), scalar(1.0)], 1),
    ("Clip", 13, {}, [X, NONE, scalar(1.0)], 1),
    ("Clip", 13, {}, [X, scalar(0.0)], 1),
    ("Clip", 13, {}, [X], 1),
    ("Where", 16, {}, [BOOLS, X, scalar(0.5)], 1),
    *[
        (name, opset, attributes, [IMAGE], 1)
        for name in ("Softmax", "LogSoftmax")
        for opset, attributes in (
            (11, {}),
            (11, {"axis": 2}),
            (11, {"axis": -1}),
            (13, {}),
            (13, {"axis": 1}),
        )
    ],
    ("Cast", 13, {"to": TensorProto.INT64}, [X], 1),
    ("Cast", 13, {"to": TensorProto.BOOL}, [X], 1),
    ("Cast", 13, {"to": TensorProto.FLOAT}, [ints(3, 4)], 1),
    ("Cast", 13, {"to": TensorProto.DOUBLE}, [X], 1),
    ("CastLike", 15, {}, [ints(3, 4), X], 1),
    *[
        ("CumSum", 14, {"exclusive": exclusive, "reverse": reverse}, [X, np.array(1)], 1)
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ],
    *[
        (name, opset, {"axes": [1, -1], "keepdims": keep}, [POSITIVE], 1)
        for name in (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
            *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"),
        )
        for opset, keep in ((11, 1), (13, 0))
    ],
    *[
        (name, 18, {"keepdims": 0}, [POSITIVE, ints(-1, 0)], 1)
        for name in (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
            *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        )
    ],
    ("ReduceSum", 11, {"axes": [1]}, [X], 1),
    ("ReduceSum", 13, {}, [X], 1),
    ("ReduceSum", 13, {"noop_with_empty_axes": 1}, [X], 1),
    ("ReduceMean", 18, {}, [X], 1),
    ("ArgMax", 13, {"axis": 1, "keepdims": 0}, [X], 1),
    ("ArgMin", 13, {}, [X], 1),
    # Products.
    ("MatMul", 13, {}, [rand(2, 1, 3, 4), rand(5, 4, 2)], 1),
    ("MatMul", 13, {}, [rand(4), rand(4, 2)], 1),
    ("Gemm", 13, {}, [rand(3, 4), rand(4, 5)], 1),
    ("Gemm", 11, {"transA": 1, "alpha": 0.5, "beta": 2.0}, [rand(4, 3), rand(4, 5), rand(5)], 1),
    ("Gemm", 13, {"transB": 1}, [rand(3, 4), rand(5, 4), rand(1, 5)], 1),
    ("Einsum", 12, {"equation": "bij,bjk->bik"}, [rand(2, 3, 4), rand(2, 4, 5)], 1),
    # Convolutions.
    ("Conv", 11, {}, [IMAGE, rand(5, 4, 3, 3), rand(5)], 1),
    ("Conv", 11, {"pads": [1, 2, 0, 1], "strides": [2, 1]}, [IMAGE, rand(5, 4, 3, 2)], 1),
    ("Conv", 11, {"group": 2, "pads": [1, 1, 1, 1]}, [IMAGE, rand(6, 2, 3, 3), rand(6)], 1),
    ("Conv", 11, {"group": 4, "dilations": [2, 3]}, [IMAGE, rand(4, 1, 3, 3)], 1),
    *[
        ("Conv", 11, {"auto_pad": pad, "strides": [2, 3]}, [IMAGE, rand(3, 4, 4, 2)], 1)
        for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ],
    ("Conv", 13, {"pads": [2, 1]}, [SEQUENCE, rand(3, 4, 5), rand(3)], 1),
    ("Conv", 13, {"strides": [1, 2, 2]}, [VOLUME, rand(3, 2, 2, 3, 2)], 1),
    ("ConvTranspose", 11, {}, [IMAGE, rand(4, 3, 3, 3), rand(3)], 1),
    (
        "ConvTranspose",
        11,
        {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2], "group": 2},
        [IMAGE, rand(4, 3, 3, 3), rand(6)],
        1,
    ),
    (
        "ConvTranspose",
        11,
        {"strides": [2, 2], "output_shape": [14, 17]},
        [IMAGE, rand(4, 3, 3, 3)],
        1,
    ),
    (
        "ConvTranspose",
        11,
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        [IMAGE, rand(4, 3, 3, 3)],
        1,
    ),
    ("ConvTranspose", 11, {"dilations": [2]}, [SEQUENCE, rand(4, 2, 3), rand(2)], 1),
    # Poolings.
    ("MaxPool", 12, {"kernel_shape": [2, 3], "strides": [2, 2]}, [IMAGE], 1),
    ("MaxPool", 12, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}, [IMAGE], 1),
    (
        "MaxPool",
        12,
        {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1, "dilations": [1, 2]},
        [IMAGE],
        1,
    ),
    (
        "MaxPool",
        12,
        {"kernel_shape": [3], "auto_pad": "SAME_LOWER", "strides": [2]},
        [SEQUENCE],
        1,
    ),
    ("MaxPool", 12, {"kernel_shape": [2, 2, 2]}, [VOLUME], 1),
    ("MaxPool", 12, {"kernel_shape": [2, 2]}, [(IMAGE > 0).astype(np.uint8)], 1),
    *[
        (
            "AveragePool",
            19,
            {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [1, 1, 0, 1],
                "count_include_pad": include,
                "ceil_mode": ceil,
            },
            [IMAGE],
            1,
        )
        for include in (0, 1)
        for ceil in (0, 1)
    ],
    ("AveragePool", 11, {"kernel_shape": [2], "auto_pad": "SAME_UPPER"}, [SEQUENCE], 1),
    ("AveragePool", 11, {"kernel_shape": [2, 2, 2]}, [VOLUME], 1),
    ("GlobalAveragePool", 11, {}, [IMAGE], 1),
    ("GlobalMaxPool", 11, {}, [VOLUME], 1),
    # Normalizations.
    (
        "BatchNormalization",
        14,
        {"epsilon": 1e-3},
        [IMAGE, rand(4), rand(4, seed=1), rand(4, seed=2), rand(4, low=0.5)],
        1,
    ),
    ("BatchNormalization", 9, {}, [rand(3, 4), *(rand(4, low=0.5, seed=i) for i in range(4))], 1),
    ("LayerNormalization", 17, {}, [X, rand(4), rand(4, seed=1)], 1),
    ("LayerNormalization", 17, {"axis": 1, "epsilon": 1e-2}, [X, rand(3, 4)], 3),
    ("InstanceNormalization", 11, {}, [IMAGE, rand(4), rand(4, seed=1)], 1),
    ("GroupNormalization", 18, {"num_groups": 2}, [IMAGE, rand(2), rand(2, seed=1)], 1),
    ("GroupNormalization", 21, {"num_groups": 2}, [IMAGE, rand(4), rand(4, seed=1)], 1),
    ("RMSNormalization", 23, {}, [X, rand(4)], 1),
    ("LpNormalization", 11, {"axis": 1, "p": 1}, [X], 1),
    ("LpNormalization", 11, {}, [X], 1),
    # Attention.
    ("Attention", 23, {}, [rand(2, 3, 5, 4), rand(2, 3, 6, 4), rand(2, 3, 6, 4, seed=1)], 1),
    (
        "Attention",
        23,
        {"is_causal": 1, "scale": 0.3},
        [rand(2, 4, 5, 4), rand(2, 2, 5, 4), rand(2, 2, 5, 4, seed=1)],
        1,
    ),
    (
        "Attention",
        23,
        {"q_num_heads": 2, "kv_num_heads": 2},
        [rand(2, 5, 8), rand(2, 6, 8), rand(2, 6, 8, seed=1), rand(5, 6)],
        1,
    ),
    (
        "Attention",
        23,
        {"q_num_heads": 2, "kv_num_heads": 2},
        [rand(2, 5, 8), rand(2, 6, 8), rand(2, 6, 8, seed=1), rand(5, 6) > -1.5],
        1,
    ),
    # Making values.
    ("ConstantOfShape", 11, {}, [ints(2, 3)], 1),
    (
        "ConstantOfShape",
        11,
        {"value": onnx.numpy_helper.from_array(ints(7))},
        [ints(2, 3)],
        1,
    ),
    *[
        ("Constant", 13, {name: value}, [], 1)
        for name, value in (
            ("value", onnx.numpy_helper.from_array(X)),
            ("value_float", 1.5),
            ("value_floats", [1.5, 2.5]),
            ("value_int", 3),
            ("value_ints", [3, 4]),
        )
    ],
    ("Range", 11, {}, [np.array(1), np.array(8), np.array(3)], 1),
    ("Range", 11, {}, [scalar(3.0), scalar(-1.0), scalar(-0.7)], 1),
    ("Shape", 13, {}, [X], 1),
    ("Shape", 15, {"start": 1, "end": -1}, [IMAGE], 1),
    ("EyeLike", 9, {"k": 1}, [rand(3, 4)], 1),
    *[
        ("OneHot", 11, {"axis": axis}, [ints(0, -1, 2), np.array(4), rand(2)], 1)
        for axis in (-1, 0)
    ],
    # Moving values.
    ("Reshape", 13, {}, [X, ints(0, -1, 2)], 1),
    ("Reshape", 14, {"allowzero": 1}, [rand(0, 4), ints(4, 0)], 1),
    ("Transpose", 13, {}, [X], 1),
    ("Transpose", 13, {"perm": [1, 0, 2]}, [X], 1),
    *[("Flatten", 13, {"axis": axis}, [IMAGE], 1) for axis in (0, 2, -1, 4)],
    ("Squeeze", 11, {"axes": [1]}, [rand(2, 1, 1)], 1),
    ("Squeeze", 13, {}, [rand(2, 1, 1), ints(-1)], 1),
    ("Squeeze", 13, {}, [rand(2, 1, 1)], 1),
    ("Unsqueeze", 11, {"axes": [0, 3]}, [rand(2, 3)], 1),
    ("Unsqueeze", 13, {}, [rand(2, 3), ints(-1, 0)], 1),
    ("Expand", 13, {}, [rand(3, 1), ints(2, 1, 4)], 1),
    ("Tile", 13, {}, [X, ints(1, 2, 3)], 1),
    ("Concat", 13, {"axis": -1}, [X, rand(2, 3, 1)], 1),
    ("Split", 11, {"axis": 2, "split": [1, 3]}, [X], 2),
    ("Split", 11, {"axis": 2}, [X], 2),
    ("Split", 13, {"axis": -1}, [X, ints(3, 1)], 2),
    ("Split", 18, {"axis": 1, "num_outputs": 2}, [X], 2),
    ("DepthToSpace", 13, {"blocksize": 2}, [IMAGE], 1),
    ("DepthToSpace", 13, {"blocksize": 2, "mode": "CRD"}, [IMAGE], 1),
    ("SpaceToDepth", 13, {"blocksize": 3}, [rand(2, 2, 6, 9)], 1),
    ("Pad", 11, {}, [X, ints(1, 0, 2, 0, 1, -1), scalar(0.7)], 1),
    ("Pad", 10, {"pads": [1, 0, 2, 0, 1, 0], "value": 0.5}, [X], 1),
    ("Pad", 18, {}, [X, ints(1, 2, 0, 1), NONE, ints(2, 0)], 1),
    *[("Pad", 13, {"mode": mode}, [X, ints(1, 2, 2, 0, 1, 3)], 1) for mode in ("reflect", "edge")],
    ("Pad", 19, {"mode": "wrap"}, [X, ints(1, 2, 2, 0, 1, 3)], 1),
    # Choosing values.
    ("Slice", 11, {}, [X, ints(1, -3), ints(2**62, -1), ints(0, 2)], 1),
    ("Slice", 13, {}, [X, ints(-1, 0), ints(-(2**62), 4), ints(1, 2), ints(-1, 2)], 1),
    ("Slice", 13, {}, [X, ints(0), ints(1)], 1),
    ("Slice", 10, {}, [X, ints(5), ints(9), ints(1)], 1),
    ("Gather", 13, {"axis": 1}, [X, np.array([[0, -1], [2, 1]])], 1),
    ("Gather", 13, {}, [rand(5), np.array(-2)], 1),
    ("GatherElements", 13, {"axis": 2}, [X, np.array([[[0, -1]] * 3] * 2)], 1),
    ("GatherND", 13, {}, [X, np.array([[0, 1], [1, -1]])], 1),
    ("TopK", 11, {"axis": 1, "largest": 0}, [X, ints(2)], 2),
    ("Trilu", 14, {"upper": 0}, [X, np.array(-1)], 1),
    ("Trilu", 14, {}, [X], 1),
    ("Dropout", 11, {}, [X], 1),
    ("Dropout", 13, {}, [X, scalar(0.5)], 2),
    # Resize.
    *[
        (
            "Resize",
            13,
            {"coordinate_transformation_mode": rule, "nearest_mode": rounding},
            [IMAGE, NONE, np.array([1, 1, 2.5, 0.6], np.float32)],
            1,
        )
        for rule in ("asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel")
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ],
    *[
        (
            "Resize",
            19,
            {"mode": "linear", "coordinate_transformation_mode": rule},
            [IMAGE, NONE, NONE, ints(2, 4, 10, 5)],
            1,
        )
        for rule in ("asymmetric", "half_pixel", "align_corners", "half_pixel_symmetric")
    ],
    ("Resize", 18, {"axes": [2, 3]}, [IMAGE, NONE, NONE, ints(14, 18)], 1),
    ("Resize", 10, {}, [IMAGE, np.array([1, 1, 2, 2], np.float32)], 1),
    ("Resize", 10, {"mode": "linear"}, [IMAGE, np.array([1, 1, 2, 0.5], np.float32)], 1),
]


def case_name(case: Case) -> str:
    op_type, opset, attributes, *_ = case
    return f"{op_type}-{opset}-{'-'.join(str(v) for v in attributes.values())[:40]}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_operator_as_onnxruntime(case: Case) -> None:
    assert_same(*one_node(*case))


def test_every_operator_is_tested() -> None:
    assert set(OPERATORS) == {op_type for op_type, *_ in CASES}


@pytest.mark.parametrize(
    "case",
    [
        ("Conv", 11, {"auto_pad": "SAME_UPPER"}, [rand(1, 1, 3, 3), rand(2, 1, 2, 2)], 1),
        ("ConvTranspose", 11, {"strides": [2]}, [rand(1, 2, 3), rand(2, 1, 3)], 1),
        ("Gemm", 13, {"alpha": 0.5}, [rand(2, 3), rand(3, 2), rand(2)], 1),
        ("Gelu", 20, {}, [rand(5)], 1),
        ("Gelu", 20, {"approximate": "tanh"}, [rand(5)], 1),
        ("HardSwish", 14, {}, [rand(5)], 1),
        ("Erf", 13, {}, [rand(5)], 1),
        ("Pow", 15, {}, [rand(5), scalar(2.0)], 1),
        ("Softmax", 11, {}, [rand(2, 2, 2)], 1),
        ("LayerNormalization", 17, {}, [rand(2, 4), rand(4), rand(4, seed=1)], 1),
        ("GroupNormalization", 21, {"num_groups": 1}, [rand(1, 2, 3), rand(2), rand(2)], 1),
        ("MaxPool", 12, {"kernel_shape": [2]}, [rand(1, 2, 5)], 1),
        ("AveragePool", 11, {"kernel_shape": [2], "pads": [1, 0]}, [rand(1, 1, 5)], 1),
        ("ReduceMax", 11, {"axes": [0]}, [rand(2, 3)], 1),
        ("Gather", 13, {}, [rand(3, 2), ints(0, 0, 2)], 1),
        ("Resize", 13, {}, [rand(1, 1, 2), NONE, np.array([1, 1, 2], np.float32)], 1),
        ("Attention", 23, {}, [rand(1, 1, 2, 2, seed=i) for i in range(3)], 1),
    ],
    ids=case_name,
)
def test_operator_twice_differentiable(case: Case) -> None:
    model, feed = one_node(*case)
    if case[0] in ("Pow", "Resize"):  # an exponent or a scale is no place to differentiate at
        last = list(feed)[-1]
        model.graph.initializer.append(onnx.numpy_helper.from_array(feed.pop(last), last))
        del model.graph.input[1]
    graph = TorchGraph(model, dtype="float64")

    def function(*inputs: torch.Tensor) -> torch.Tensor:
        # The square gives piecewise linear operators something to differentiate.
        return graph(dict(zip(feed, inputs, strict=True)))["out0"] ** 2

    inputs = [torch.from_numpy(a).double().requires_grad_() for a in feed.values()]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def transformer_block(opset: int = 17) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A block as exporters write it: shapes computed in the graph, Erf for GELU, a mask."""
    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["shape"]),
        n("Gather", ["shape", "zero"], ["batch"], axis=0),
        n("Unsqueeze", ["batch", "axis0"], ["batch1"]),
        n("Concat", ["batch1", "heads_shape"], ["split_shape"], axis=0),
        n("LayerNormalization", ["x", "g", "b"], ["normal"], axis=-1),
        n("MatMul", ["normal", "qkv.weight"], ["qkv0"], "qkv"),
        n("Add", ["qkv0", "qkv.bias"], ["qkv"]),
        n(
            "Split",
            ["qkv"],
            ["q0", "k0", "v0"],
            axis=2,
            **({} if opset < 18 else {"num_outputs": 3}),
        ),
    ]
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            n("Reshape", [f"{name}0", "split_shape"], [f"{name}1"]),
            n("Transpose", [f"{name}1"], [name], perm=perm),
        ]
    nodes += [
        n("MatMul", ["q", "k"], ["scores0"], "scores"),
        n("Mul", ["scores0", "scale"], ["scores1"]),
        n(
            "ConstantOfShape",
            ["mask_shape"],
            ["ones"],
            value=onnx.numpy_helper.from_array(ints(1)),
        ),
        n("Trilu", ["ones"], ["lower"], upper=0),
        n("Equal", ["lower", "zero"], ["hidden"]),
        n("Where", ["hidden", "minus", "scores1"], ["scores2"]),
        n("Softmax", ["scores2"], ["attention"], axis=-1),
        n("MatMul", ["attention", "v"], ["mixed0"], "mix"),
        n("Transpose", ["mixed0"], ["mixed1"], perm=[0, 2, 1, 3]),
        n("Reshape", ["mixed1", "merged_shape"], ["mixed"]),
        n("MatMul", ["mixed", "proj.weight"], ["projected"], "proj"),
        n("Add", ["x", "projected"], ["residual"]),
        n("Div", ["residual", "root2"], ["scaled"]),
        n("Erf", ["scaled"], ["erf"]),
        n("Add", ["erf", "one"], ["erf1"]),
        n("Mul", ["residual", "erf1"], ["gelu2"]),
        n("Mul", ["gelu2", "half"], ["gelu"]),
        n("ReduceMean", ["gelu"], ["pooled"], axes=[1], keepdims=0),
        n("Gemm", ["pooled", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    constants = {
        "zero": np.array(0),
        "axis0": ints(0),
        "heads_shape": ints(-1, 2, 4),
        "mask_shape": ints(5, 5),
        "merged_shape": ints(0, -1, 8),
        "scale": scalar(0.5),
        "minus": scalar(-1e9),
        "root2": scalar(2**0.5),
        "one": scalar(1.0),
        "half": scalar(0.5),
        "g": rand(8, low=0.5),
        "b": rand(8, seed=1),
        "qkv.weight": rand(8, 24) / 2,
        "qkv.bias": rand(24),
        "proj.weight": rand(8, 8) / 2,
        "head.weight": rand(3, 8),
        "head.bias": rand(3),
    }
    feed = {"x": rand(2, 5, 8)}
    return make_model(nodes, feed, constants, ["logits"], opset), feed


def test_transformer_as_onnxruntime() -> None:
    assert_same(*transformer_block())


def test_weights_are_leaves() -> None:
    model, feed = transformer_block()
    weights = {"head": "head.weight", "qkv": "qkv.weight"}
    graph = TorchGraph(model, weights=weights)
    assert list(graph.leaves) == ["head", "qkv"]
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in graph.leaves.values())
    assert (graph.inputs, graph.outputs) == (("x",), ("logits",))

    logits = graph({"x": torch.from_numpy(feed["x"])})["logits"]
    gradients = torch.autograd.grad(logits[:, 1].sum(), list(graph.leaves.values()))
    assert gradients[0].shape == (3, 8)
    # Each row of the head makes one logit.
    assert gradients[0][1].abs().min() > 0
    assert not gradients[0][[0, 2]].any()
    step = 1e-2 * gradients[1] / gradients[1].norm()
    with torch.no_grad():
        graph.leaves["qkv"] += step
    moved = graph({"x": torch.from_numpy(feed["x"])})["logits"]
    risen = (moved - logits)[:, 1].sum().item()
    assert risen == pytest.approx((step * gradients[1]).sum().item(), rel=0.05)


def dense(names: dict[str, str], constants: dict[str, Array]) -> onnx.ModelProto:
    """MatMuls in a row: the weight of each by node name."""
    tensors = ["x", *(f"t{i}" for i in range(len(names)))]
    nodes = [
        helper.make_node("MatMul", [tensors[i], weight], [tensors[i + 1]], name)
        for i, (name, weight) in enumerate(names.items())
    ]
    return make_model(nodes, {"x": rand(3, 4)}, constants, [tensors[-1]], 17)


def test_shared_weight_has_a_leaf_per_op() -> None:
    model = dense({"conv1": "w", "conv10": "w"}, {"w": rand(4, 4)})
    graph = TorchGraph(model, weights={"conv10": "w"})
    x = torch.from_numpy(rand(3, 4))
    (gradient,) = torch.autograd.grad(graph({"x": x})["t1"].sum(), [graph.leaves["conv10"]])
    # As of the second product alone.
    inner = x @ torch.from_numpy(rand(4, 4))
    torch.testing.assert_close(gradient, inner.sum(0)[:, None].expand(4, 4))


def test_floats_are_of_one_type() -> None:
    model = dense({"a": "w"}, {"w": rand(4, 4).astype(np.float16)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    feed = {"x": torch.from_numpy(rand(3, 4).astype(np.float16))}
    exact = feed["x"].double() @ torch.from_numpy(rand(4, 4).astype(np.float16)).double()
    assert TorchGraph(model)(feed)["t0"].dtype == torch.float32
    result = TorchGraph(model, dtype="float64")(feed)["t0"]
    torch.testing.assert_close(result, exact, rtol=0, atol=1e-12)


def test_external_data(tmp_path: Path) -> None:
    model = dense({"a": "w"}, {"w": rand(4, 4)})
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    lazy = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    feed = {"x": rand(3, 4)}
    (result,) = run_torch(lazy, feed, base_dir=tmp_path)
    np.testing.assert_allclose(result, feed["x"] @ rand(4, 4), rtol=1e-5)


def test_local_functions() -> None:
    function = helper.make_function(
        "mine",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], "twice", domain="mine")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)
    assert_same(model, {"x": rand(2)})


def test_unsupported_operators_are_named() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "fine"),
        helper.make_node("Det", ["a"], ["b"], "determinant"),
        helper.make_node("Det", ["a"], ["e"], "another"),
        helper.make_node("QuickGelu", ["b"], ["c"], "quick", domain="com.microsoft"),
    ]
    model = make_model(nodes, {"x": rand(3, 3)}, {}, ["c"], 17)
    with pytest.raises(UnsupportedOperatorError) as raised:
        TorchGraph(model)
    assert str(raised.value) == (
        "The model cannot be run through torch from its ONNX graph: there is no torch counterpart "
        "of "
        "operator Det (node 'determinant'), com.microsoft.QuickGelu (node 'quick'). Pass the "
        "nn.Module that it was exported from instead: module=, with parameters=, a dict from op "
        "names to names of the module's parameters."
    )


@pytest.mark.parametrize(
    ("case", "what"),
    [
        (("Resize", 13, {"mode": "cubic"}, [IMAGE, NONE, rand(4)], 1), "in mode 'cubic'"),
        (("MaxPool", 12, {"kernel_shape": [2, 2]}, [IMAGE], 2), "with indices"),
        (
            ("AveragePool", 19, {"kernel_shape": [2], "dilations": [2]}, [SEQUENCE], 1),
            "with dilations",
        ),
        (
            ("BatchNormalization", 14, {"training_mode": 1}, [IMAGE, *[rand(4)] * 4], 3),
            "in training mode",
        ),
        (("Cast", 13, {"to": TensorProto.STRING}, [X], 1), "of type STRING"),
        (("Conv", 11, {}, [rand(1, 1, 2, 2, 2, 2), rand(1, 1, 2, 2, 2, 2)], 1), "over 4 axes"),
        (("Dropout", 13, {}, [X, scalar(0.5), np.array(True)], 1), "in training mode"),
    ],
)
def test_unsupported_features_are_named(case: Case, what: str) -> None:
    model, feed = one_node(*case)
    with pytest.raises(UnsupportedOperatorError, match=rf"{case[0]} {what}.*node 'the_node'"):
        run_torch(model, feed)


def test_failing_node_is_named() -> None:
    model = dense({"first": "w", "second": "v"}, {"w": rand(4, 4), "v": rand(5, 4)})
    with pytest.raises(RuntimeError, match=r"Node 'second' \(MatMul\) failed in torch: .*shape"):
        run_torch(model, {"x": rand(3, 4)})


def test_missing_input_is_named() -> None:
    with pytest.raises(ValueError, match="no value for input 'x'"):
        TorchGraph(dense({"a": "w"}, {"w": rand(4, 4)}))({"y": torch.zeros(3, 4)})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"conv": "w"}, "no node has the name 'conv'"),
        ({"conv1": "weight"}, "no initializer 'weight' (op 'conv1')"),
        ({"conv1": "v"}, "op 'conv1' (MatMul) does not read initializer 'v', but 'x', 'w'"),
    ],
)
def test_wrong_weights_are_named(weights: dict[str, str], message: str) -> None:
    model = dense({"conv1": "w", "conv10": "v"}, {"w": rand(4, 4), "v": rand(4, 4)})
    with pytest.raises(ValueError) as raised:
        TorchGraph(model, weights=weights)
    assert message in str(raised.value)


def test_op_name_used_twice() -> None:
    model = dense({"a": "w", "b": "w"}, {"w": rand(4, 4)})
    model.graph.node[1].name = "a"
    with pytest.raises(ValueError, match="2 nodes have the name 'a'"):
        TorchGraph(model, weights={"a": "w"})


def test_graph_out_of_order() -> None:
    model = dense({"a": "w", "b": "w"}, {"w": rand(4, 4)})
    model.graph.node.reverse()
    with pytest.raises(ValueError, match="Node 'b' \\(MatMul\\) reads 't0'"):
        TorchGraph(model)


def test_what_is_supported_is_told_without_torch() -> None:
    assert set(OPERATORS) == SUPPORTED
    code = (
        "import sys; import optuna_quant.backends.onnxruntime.sensitivity.gradient;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
