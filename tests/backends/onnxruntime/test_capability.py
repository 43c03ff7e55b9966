from __future__ import annotations

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import residual
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.capability import find_capability
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.op_tables import DYNAMIC_RULES
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_INTEGERS
from optuna_quant.backends.onnxruntime.model.op_tables import PASS_THROUGH
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.backends.onnxruntime.static.ops import check_static
from optuna_quant.backends.onnxruntime.static.ops import static_ops
from optuna_quant.space.capability import Capability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig


def capability(model: onnx.ModelProto, approach: str = "static") -> Capability:
    graph = normalize(load_model(model))
    static = {op.name: op for op in static_ops(graph)}
    return find_capability(graph, static, approach)


def labels(model: onnx.ModelProto, op: str, approach: str = "static") -> list[str]:
    (found,) = (o for o in capability(model, approach).ops if o.name == op)
    return [option.label for option in found.options]


def types(model: onnx.ModelProto, approach: str = "static") -> dict[str, tuple[str, bool]]:
    return {op.name: (op.op_type, op.default) for op in capability(model, approach).ops}


def test_ops_of_a_convnet() -> None:
    # Relu, MaxPool and Flatten follow the op before them.
    assert types(convnet()) == {
        "Conv0": ("Conv", True),
        "Conv1": ("Conv", True),
        "Gemm0": ("Gemm", True),
    }


def test_options_come_in_order() -> None:
    expected = [
        f"static a=uint8/asym/per_tensor/{algorithm} w=int8/sym/{granularity}/minmax"
        for granularity in ("per_channel", "per_tensor")
        for algorithm in ("minmax", "percentile", "kl", "mse")
    ]
    for op in ("Conv0", "Gemm0"):
        assert labels(convnet(), op) == [*expected, "fp32"]


def test_mean_minmax_is_there_for_those_who_name_it() -> None:
    backend = OnnxRuntimeBackend(convnet(), inspect_only=True)
    usual = backend.tuning_space()
    algorithms = ["minmax", "mean_minmax"]
    asked = backend.tuning_space(op_type_dict={"Conv": {"activation": {"algorithm": algorithms}}})
    for tunable, before in zip(asked.tunables, usual.tunables, strict=True):
        found = [o.activation.algorithm for o in tunable.quantized if o.activation]
        assert "mean_minmax" not in " ".join(o.label for o in before.options)
        if tunable.op_type == "Conv":
            assert found == ["minmax", "minmax", "mean_minmax", "mean_minmax"]
            assert tunable.default == before.default
        else:
            assert tunable == before


def test_products_of_activations_are_a_type_of_their_own() -> None:
    found = types(attention())
    assert found["query"] == found["out"] == ("MatMul", True)
    assert found["MatMul3"] == found["MatMul4"] == ("MatMulActivations", False)
    assert labels(attention(), "MatMul3") == [
        *(f"static a=uint8/asym/per_tensor/{a}" for a in ("minmax", "percentile", "kl", "mse")),
        "fp32",
    ]


def test_ops_on_request() -> None:
    found = types(residual())
    assert found["Add0"] == ("Add", False)
    assert found["GlobalAveragePool0"] == ("GlobalAveragePool", False)
    assert labels(residual(), "Add0") == ["static a=uint8/asym/per_tensor/minmax", "fp32"]


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_every_op_can_fall_back(approach: str) -> None:
    for model in (convnet(), attention(), residual()):
        for op in capability(model, approach).ops:
            assert op.options[-1] == FP32
            assert op.options[0].is_quantized
            assert len(set(op.options)) == len(op.options)


def test_float16_model_is_told_to_be_exported_again() -> None:
    maker = Maker()
    x = maker.input("x", ["n", 4], onnx.TensorProto.FLOAT16)
    weight = maker.const(np.ones((4, 4), np.float16))
    model = maker.model({maker.node("MatMul", [x, weight]): onnx.TensorProto.FLOAT16})
    with pytest.raises(ValueError, match=r"worth quantizing\..*float16.*export it in float32"):
        capability(model).select()
    assert capability(convnet()).hint == ""


def test_dynamic_options() -> None:
    weights = ["int8/sym/per_channel/minmax", "int8/sym/per_tensor/minmax"]
    expected = [f"dynamic a=uint8/asym/per_tensor/minmax w={weight}" for weight in weights]
    assert labels(attention(), "query", "dynamic") == [*expected, "fp32"]
    assert labels(attention(), "query", "auto") == [
        *labels(attention(), "query", "static")[:-1],
        *expected,
        "fp32",
    ]


def test_dynamic_convolutions_are_not_offered_beside_static_ones() -> None:
    # They are slower than in FP32.
    assert types(convnet(), "dynamic")["Conv0"] == ("Conv", False)
    assert labels(convnet(), "Conv0", "dynamic") == [
        "dynamic a=uint8/asym/per_tensor/minmax w=uint8/asym/per_tensor/minmax",
        "fp32",
    ]
    assert labels(convnet(), "Conv0", "auto") == labels(convnet(), "Conv0", "static")


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_models_in_old_opsets_can_do_what_new_ones_can(approach: str) -> None:
    assert capability(convnet(opset=10), approach) == capability(convnet(opset=13), approach)


@pytest.mark.parametrize(
    ("shapes", "granularities"),
    [
        (((4, 3),), {"per_channel", "per_tensor"}),
        (((4,),), {"per_tensor"}),
        (((2, 4, 3),), {"per_tensor"}),
    ],
)
def test_matmul_granularities(shapes: tuple[tuple[int, ...]], granularities: set[str]) -> None:
    m = Maker()
    x = m.input("x", [2, "N", 4])
    model = m.model([m.node("MatMul", [x, m.weight(*shapes[0])])])
    (op,) = capability(model).ops
    assert {option.weight.granularity for option in op.options if option.weight} == granularities


def test_matmul_with_constant_on_the_left() -> None:
    m = Maker()
    x = m.input("x", [4, "N"])
    model = m.model([m.node("MatMul", [m.weight(3, 4), x])])
    assert types(model) == {"MatMul0": ("MatMul", True)}
    assert labels(model, "MatMul0")[0].endswith("w=uint8/asym/per_tensor/minmax")
    assert capability(model, "dynamic").ops == ()


def unfit(reason: str) -> onnx.ModelProto:
    m = Maker()
    if reason == "integers":
        x = m.input("x", [2, 3], onnx.TensorProto.INT64)
        return m.model({m.node("Add", [x, x]): onnx.TensorProto.INT64})
    if reason == "half":
        x = m.input("x", [2, 3], onnx.TensorProto.FLOAT16)
        weight = m.const(np.ones((3, 3), np.float16))
        return m.model({m.node("MatMul", [x, weight]): onnx.TensorProto.FLOAT16})
    if reason == "computed weight":
        x, w = m.input("x", [1, 2, 5, 5]), m.input("w", [2, 2, 3, 3])
        return m.model([m.node("Conv", [x, w])])
    if reason == "computed bias":
        x, b = m.input("x", [1, 2, 5, 5]), m.input("b", [2])
        return m.model([m.node("Conv", [x, m.weight(2, 2, 3, 3), b])])
    if reason == "bias for rows":
        x = m.input("x", [3, 4])
        return m.model([m.node("Gemm", [x, m.weight(4, 2), m.weight(3, 1)])])
    if reason == "constants only":
        return m.model([m.node("Add", [m.weight(2), m.weight(2)])])
    if reason == "other domain":
        x = m.input("x", [2, 3])
        return m.model([m.node("Gelu", [x], domain="com.microsoft")])
    x = m.input("x", [1, 2, 4, 4])
    sizes = m.const(np.array([1, 2, 8, 8], np.int64))
    return m.model([m.node("Resize", [x, "", "", sizes], mode="nearest")])


@pytest.mark.parametrize(
    "reason",
    [
        "integers",
        "half",
        "computed weight",
        "computed bias",
        "bias for rows",
        "constants only",
        "other domain",
        "passes values on",
    ],
)
def test_what_cannot_be_quantized(reason: str) -> None:
    assert capability(unfit(reason)).ops == ()


def test_behind_operators_without_type_inference() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    h = m.node("BiasGelu", [x, m.weight(4)], domain="com.microsoft")
    model = m.model([m.node("Sigmoid", [m.node("MatMul", [h, m.weight(4, 2)])])])
    # Beside a weight of 32-bit floats the type follows.
    assert "MatMul0" in types(model)


def test_ops_of_the_reference_are_known() -> None:
    tuned = {"Conv", "MatMul", "Gemm", "Gather", "GatherElements", "LeakyRelu", "Sigmoid"}
    tuned |= {"GlobalAveragePool", "AveragePool", "Concat", "Resize", "Abs", "Shrink", "Sign"}
    tuned |= {"Mod", "Mul", "Add", "ArgMax", "Attention", "EmbedLayerNormalization"}
    assert tuned <= STATIC_RULES.keys()
    followed = {"MaxPool", "Split", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}
    followed |= {"Expand", "Slice", "ReduceMax", "ReduceMin", "Tile"}
    assert followed <= PASS_THROUGH
    assert {"Pad", "GatherND"} <= PASS_INTEGERS
    dynamic = {"Conv", "MatMul", "Gather", "Attention", "LSTM", "EmbedLayerNormalization"}
    assert dynamic <= {op_type for _, op_type in DYNAMIC_RULES}
    assert not followed & STATIC_RULES.keys()


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("static a=uint4/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax", "to 8 or 16 bits"),
        ("static a=uint8/asym/per_channel/minmax w=int8/sym/per_tensor/minmax", "per tensor"),
        ("static a=uint8/asym/per_tensor/minmax w=int4/sym/per_tensor/minmax", "to 8 bits"),
        ("static a=uint8/asym/per_tensor/minmax", "to 8 bits"),
        ("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_group=4/minmax", "per_group"),
    ],
)
def test_check_static_says_what_is_possible(label: str, problem: str) -> None:
    (op, *_) = static_ops(normalize(load_model(convnet())))
    with pytest.raises(ValueError, match=rf"Op 'Conv0' \(Conv\) .*{problem}.*options are: static"):
        check_static(op, OpConfig.from_label(label))


def test_check_static_allows_more_than_is_offered() -> None:
    (op, *_) = static_ops(normalize(load_model(convnet())))
    label = "static a=int8/sym/per_tensor/kl w=uint8/asym/per_tensor/mse"
    check_static(op, OpConfig.from_label(label))


def with_lstm(width: int = 16) -> onnx.ModelProto:
    """A wide linear layer, which has both modes, before an LSTM, which has only one."""
    m = Maker()
    h = m.node("MatMul", [m.input("x", ["N", 4, 128]), m.weight(128, 64)], name="dense")
    weights = [m.weight(1, 4 * width, 64), m.weight(1, 4 * width, width)]
    m.node("LSTM", [h, *weights], outputs=["y"], name="lstm", hidden_size=width)
    return m.model(["y"])


@pytest.mark.parametrize(
    ("model", "approach"),
    [
        (convnet(), "static"),
        (attention(), "static"),
        (residual(), "static"),
        (with_lstm(), "auto"),
        # Of the model's bytes the LSTM has 3 percent.
        (with_lstm(width=1), "static"),
    ],
)
def test_the_approach_where_none_is_named(model: onnx.ModelProto, approach: str) -> None:
    shape = [axis.dim_value or 4 for axis in model.graph.input[0].type.tensor_type.shape.dim]
    data = [np.ones(shape, np.float32)]
    backend, named = (
        OnnxRuntimeBackend(model, calibration_data=data, **options)
        for options in ({}, {"approach": approach})
    )
    # So a study that was started with the approach by name goes on without, and the other way.
    assert backend.signature() == named.signature()
    assert backend.capability() == named.capability()
    assert backend.tuning_space().describe() == named.tuning_space().describe()
    modes = {t.name: t.default.mode for t in backend.tuning_space().tunables}
    assert ("dynamic" in modes.values()) == (approach == "auto")
    assert modes.get("dense", "static") == "static"


def test_a_large_table_does_not_change_the_approach() -> None:
    m = Maker()
    ids = m.input("ids", ["N"], onnx.TensorProto.INT64)
    h = m.node("Gather", [m.weight(500, 8), ids], name="table")
    model = m.model([m.node("MatMul", [h, m.weight(8, 8)], name="dense")])
    backend = OnnxRuntimeBackend(model, calibration_data=np.arange(9))
    space = backend.tuning_space()
    assert [tunable.name for tunable in space.tunables] == ["dense"]
    assert "approach='static'" in backend.signature()["options"]
    found = backend.float_weights(space.default())
    assert found.nbytes == 500 * 8 * 4
    assert "Gather 'table' 16 kB (a quantized table makes the model smaller" in str(found)
    assert 'op_types=["default", "Gather"] or --op-types default,Gather' in str(found)
