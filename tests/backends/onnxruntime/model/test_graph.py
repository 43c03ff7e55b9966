from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime.model.fingerprint import fingerprint
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize


def normal(model: onnx.ModelProto) -> Graph:
    before = model.SerializeToString()
    graph = normalize(load_model(model))
    assert model.SerializeToString() == before, "the user's model has changed"
    return graph


def assert_same_outputs(model: onnx.ModelProto, rtol: float = 0.0, **feed: object) -> None:
    expected = run(model, feed, optimized=False)
    actual = run(normal(model).to_model(), feed, optimized=False)
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=rtol, atol=rtol)


def op_types(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def test_normalize_changes_nothing_where_nothing_is_to_do() -> None:
    model = convnet()
    graph = normal(model)
    assert list(graph.nodes) == list(model.graph.node)
    assert graph.to_model() == model


def test_names_are_unique_and_stable() -> None:
    m = Maker()
    h = m.input("x", ["N", 3])
    for name in ("", "same", "", "same", "Relu_4", ""):
        h = m.node("Relu", [h], name=name)
    model = m.model([h])
    names = [node.name for node in normal(model).nodes]
    assert names == ["Relu_0", "same", "Relu_2", "same_1", "Relu_4", "Relu_5"]
    assert names == [node.name for node in normal(model).nodes]


def test_unsorted_nodes_are_sorted() -> None:
    model = convnet()
    backwards = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(backwards)
    assert [node.name for node in normal(model).nodes] == [n.name for n in convnet().graph.node]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value": onnx.numpy_helper.from_array(np.array([1.5, 2.0], np.float32))}, [1.5, 2.0]),
        ({"value_float": 2.5}, 2.5),
        ({"value_floats": [1.0, 2.0]}, [1.0, 2.0]),
    ],
)
def test_constants_become_initializers(attribute: dict[str, object], expected: object) -> None:
    m = Maker()
    x = m.input("x", ["N", 2])
    y = m.node("Add", [x, m.node("Constant", [], **attribute)])
    model = m.model([y])
    graph = normal(model)
    assert op_types(graph) == ["Add"]
    np.testing.assert_array_equal(graph.array("Constant0_out"), expected)
    assert_same_outputs(model, x=samples(3, 2))


def test_constant_that_is_an_output_stays() -> None:
    m = Maker()
    x = m.input("x", ["N", 2])
    constant = m.node("Constant", [], value_float=1.0)
    model = m.model([m.node("Relu", [x]), constant])
    assert op_types(normal(model)) == ["Constant", "Relu"] or op_types(normal(model)) == [
        "Relu",
        "Constant",
    ]
    assert_same_outputs(model, x=samples(3, 2))


def test_identity_and_transpose_of_weights_are_folded() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    weight = m.weight(3, 4)
    copied = m.node("Identity", [weight])
    h = m.node("MatMul", [x, m.node("Transpose", [copied])])
    y = m.node("Gemm", [x, copied], transB=1)
    model = m.model([h, y])
    graph = normal(model)
    assert op_types(graph) == ["MatMul", "Gemm"]
    assert all(graph.is_constant(node.input[1]) for node in graph.nodes)
    assert_same_outputs(model, x=samples(3, 4))


def batch_norm(m: Maker, h: str, channels: int, **attributes: object) -> str:
    variance = m.const(np.abs(m.rng.standard_normal(channels)).astype(np.float32) + 0.1)
    inputs = [h, m.weight(channels), m.weight(channels), m.weight(channels), variance]
    return m.node("BatchNormalization", inputs, **attributes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_batch_norm_is_folded(bias: bool, group: int) -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 5, 5])
    h = batch_norm(m, m.conv(x, 2, 4, bias=bias, group=group), 4, epsilon=0.01)
    model = m.model([m.node("Relu", [h])])
    assert op_types(normal(model)) == ["Conv", "Relu"]
    assert_same_outputs(model, rtol=1e-5, x=samples(3, 2, 5, 5))


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize(
    ("activation", "parameters"),
    [("Relu", []), ("Clip", [0.0, 0.7]), ("LeakyRelu", [0.3]), ("", [])],
)
def test_fused_convs_are_split(activation: str, parameters: list[float], added: bool) -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 5, 5])
    inputs = [x, m.weight(3, 2, 3, 3), m.weight(3)]
    if added:
        inputs.append(m.node("Tanh", [m.conv(x, 2, 3)]))
    attributes = {"activation": activation, "activation_params": parameters}
    attributes = {name: value for name, value in attributes.items() if value}
    y = m.node("FusedConv", inputs, domain="com.microsoft", pads=[0, 0, 0, 0], **attributes)
    model = m.model([y])
    expected = [*(["Conv", "Tanh"] if added else []), "Conv"]
    expected += [*(["Add"] if added else []), *([activation] if activation else [])]
    graph = normal(model)
    assert op_types(graph) == expected
    assert "FusedConv0" in {node.name for node in graph.nodes}
    assert_same_outputs(model, rtol=1e-6, x=samples(3, 2, 5, 5))


def test_batch_norm_of_a_shared_weight_is_folded_apart() -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 5, 5])
    weight = m.weight(2, 2, 3, 3)
    h = batch_norm(m, m.node("Conv", [x, weight], pads=[1, 1, 1, 1]), 2)
    model = m.model([m.node("Conv", [h, weight])])
    assert op_types(normal(model)) == ["Conv", "Conv"]
    assert_same_outputs(model, rtol=1e-5, x=samples(3, 2, 5, 5))


@pytest.mark.parametrize("reason", ["two readers", "output", "captured", "not constant"])
def test_batch_norm_is_not_folded(reason: str) -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 5, 5])
    conv = m.conv(x, 2, 2)
    if reason == "not constant":
        scale = m.node("ReduceMean", [x], axes=[0, 2, 3], keepdims=0)
        inputs = [conv, scale, m.weight(2), m.weight(2), m.const(np.ones(2, np.float32))]
        outputs = [m.node("BatchNormalization", inputs)]
    else:
        outputs = [batch_norm(m, conv, 2)]
    if reason == "two readers":
        outputs.append(m.node("Sigmoid", [conv]))
    elif reason == "output":
        outputs.append(conv)
    elif reason == "captured":
        branch = Maker()
        branch.node("Relu", [conv], outputs=["then"])
        graph = branch.model(["then"]).graph
        condition = m.const(np.array(True))
        outputs.append(m.node("If", [condition], then_branch=graph, else_branch=graph))
    model = m.model(outputs)
    assert "BatchNormalization" in op_types(normal(model))
    assert_same_outputs(model, x=samples(3, 2, 5, 5))


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_are_taken_off_the_inputs(ir_version: int) -> None:
    m = Maker(opset=11, ir_version=ir_version)
    x = m.input("x", ["N", 2, 5, 5])
    y = m.node("Add", [m.conv(x, 2, 2), m.weight(1, name="offset")])
    for tensor in m.initializers:
        m.input(tensor.name, list(tensor.dims))
    model = m.model([y])
    graph = normal(model)
    # A default that callers may replace stays one, which old models did not have.
    assert graph.inputs == ({"x"} if ir_version == 3 else {"x", "offset"})
    assert op_types(graph) == (["Conv"] if ir_version == 3 else ["Conv", "Add"])
    assert graph.is_constant("offset") == (ir_version == 3)
    assert_same_outputs(model, rtol=1e-6, x=samples(3, 2, 5, 5))


def test_functions_are_inlined() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    y = m.node("Twice", [x], domain="local")
    model = m.model([y])
    weight = helper.make_node(
        "Constant", [], ["w"], value=onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32))
    )
    body = [weight, helper.make_node("MatMul", ["a", "w"], ["b"])]
    model.functions.append(
        helper.make_function("local", "Twice", ["a"], ["b"], body, model.opset_import[:1])
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert "MatMul" in op_types(normal(model))
    assert_same_outputs(model, x=samples(3, 4))


def test_graph_knows_readers_and_captures() -> None:
    m = Maker()
    x = m.input("x", ["N", 2])
    h = m.node("Relu", [x])
    branch = Maker()
    branch.node("Add", [h, h], outputs=["then"])
    inner = branch.model(["then"]).graph
    condition = m.const(np.array(True))
    y = m.node("If", [condition], then_branch=inner, else_branch=inner)
    graph = normal(m.model([y]))
    assert graph.captured == {"Relu0_out"}
    assert graph.only_reader("Relu0_out") is None
    assert graph.only_reader("x") == 0
    assert graph.producer["If0_out"] == 1
    assert "then" in graph.names


def test_dtypes_are_inferred() -> None:
    graph = normal(attention())
    assert graph.is_float("Softmax0_out")
    assert graph.is_float("c0") is False
    assert graph.is_float("nothing") is None


# The fingerprint.


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with other names inside and other order of nodes, where that is free."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    keep = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    for node in copy.graph.node:
        node.name = f"{node.name}_renamed"
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = name if name in keep or not name else f"{name}_renamed"
    for tensor in copy.graph.initializer:
        tensor.name = f"{tensor.name}_renamed"
    tensors = list(copy.graph.initializer)[::-1]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(tensors)
    return copy


@pytest.mark.parametrize("make", [convnet, attention])
def test_fingerprint_is_blind_to_names(make: object) -> None:
    model = make()  # type: ignore[operator]
    assert fingerprint(model) == fingerprint(renamed(model))


def test_fingerprint_sees_content() -> None:
    model = convnet()
    seen = {fingerprint(model)}
    other = convnet(seed=1)
    seen.add(fingerprint(other))
    for change in ("attribute", "operator", "input", "opset", "output name", "type"):
        other = convnet()
        node = other.graph.node[2]
        if change == "attribute":
            node.attribute[0].ints[0] = 3
        elif change == "operator":
            other.graph.node[1].op_type = "Sigmoid"
        elif change == "input":
            other.graph.node[3].input[2] = ""
        elif change == "opset":
            other.opset_import[0].version = 18
        elif change == "output name":
            other.graph.output[0].name = other.graph.node[-1].output[0] = "y"
        else:
            other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        seen.add(fingerprint(other))
    assert len(seen) == 8


def test_fingerprint_tells_inner_inputs_from_outer_ones() -> None:
    found = set()
    for read in ("inner", "x"):
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("Add", [read, "x"], ["out"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("step", onnx.TensorProto.INT64, []),
                helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
                helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [2]),
            ],
            [
                helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
                helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [2]),
            ],
        )
        m = Maker()
        x = m.input("x", [2])
        y = m.node("Loop", [m.const(np.int64(2)), "", x], body=body)
        found.add(fingerprint(m.model([y])))
    assert len(found) == 2


def test_fingerprint_ignores_how_data_are_stored() -> None:
    model = convnet()
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    for tensor in typed.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).ravel().tolist()
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values)
    assert fingerprint(typed) == fingerprint(model)
