"""MatMuls with an Add behind them, which the runtime would make a Gemm of floats."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import FLOAT
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.static.matmul_add import GemmForm
from optuna_quant.backends.onnxruntime.static.matmul_add import find_constant_add
from optuna_quant.backends.onnxruntime.static.matmul_add import find_matmul_add
from optuna_quant.backends.onnxruntime.static.matmul_add import may_fuse_with_vector
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


STATIC = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax")
DYNAMIC = OpConfig.from_label(
    "dynamic a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"
)


def layer(shape: list[int | str], bias: list[int], *, swapped: bool = False) -> onnx.ModelProto:
    m = Maker()
    x = m.input("x", shape)
    product = m.node("MatMul", [x, m.weight(6, 4, name="w")], name="dense")
    operands = [product, m.weight(*bias, name="b")]
    return m.model([m.node("Add", operands[::-1] if swapped else operands, name="add")])


def graph(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def form(model: onnx.ModelProto) -> GemmForm | None:
    found = find_matmul_add(0, graph(model))
    assert found is not None
    return found.gemm


def arrays(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("bias", [[4], [1, 4]])
def test_a_bias_of_matrices_becomes_that_of_a_gemm(bias: list[int], swapped: bool) -> None:
    assert form(layer(["n", 6], bias, swapped=swapped)) == GemmForm("b", (1,), "Add0_out")


def test_more_axes_are_flattened_where_they_are_known() -> None:
    assert form(layer([2, 3, 6], [4])) == GemmForm("b", (1,), "Add0_out", (-1, 3, 4))
    assert form(layer([6], [4])) == GemmForm("b", (1,), "Add0_out", (4,))


@pytest.mark.parametrize(
    ("shape", "bias"),
    [(["n", 3, 6], [4]), ([2, 3, 6], [1, 4]), ([2, 6], [1]), ([2, 6], [1, 1, 4]), ([2, 6], [])],
)
def test_what_the_runtime_does_not_fuse_is_left_alone(
    shape: list[int | str], bias: list[int]
) -> None:
    assert find_matmul_add(0, graph(layer(shape, bias))) is None


def test_a_computed_operand_is_no_bias() -> None:
    m = Maker()
    x = m.input("x", ["n", 6])
    product = m.node("MatMul", [x, m.weight(6, 6)])
    model = m.model([m.node("Add", [x, product])])
    assert form(model) == GemmForm(None, (), "MatMul0_out")
    data = samples(16, 6)
    backend = OnnxRuntimeBackend(model, calibration_data=data)
    proto = backend.quantize(QuantConfig({"MatMul0": STATIC})).proto
    (gemm,) = (node for node in proto.graph.node if node.op_type == "Gemm")
    assert len(gemm.input) == 2
    (add,) = (node for node in proto.graph.node if node.op_type == "Add")
    # The residual is added as it is, not quantized.
    assert list(add.input) == ["x", "MatMul0_out"]


def test_a_product_that_others_see_is_left_alone() -> None:
    m = Maker()
    x = m.input("x", [2, 6])
    product = m.node("MatMul", [x, m.weight(6, 4)])
    total = m.node("Add", [product, m.weight(4)])
    assert find_matmul_add(0, graph(m.model([total, product]))) is None
    assert find_matmul_add(0, graph(m.model([total, m.node("Tanh", [product])]))) is None


def test_a_sum_of_a_product_with_itself_has_no_bias() -> None:
    m = Maker()
    product = m.node("MatMul", [m.input("x", [2, 6]), m.weight(6, 4)])
    assert find_matmul_add(0, graph(m.model([m.node("Add", [product, product])]))) is None


def test_the_bias_is_of_32_bit_integers_on_the_grid_of_the_products() -> None:
    data = samples(64, 6)
    model = layer(["n", 6], [4])
    backend = OnnxRuntimeBackend(model, calibration_data=data, session_options=exact_options())
    built = backend.quantize(QuantConfig({"dense": STATIC}))
    weight, bias = (arrays(model)[name] for name in "wb")
    scale_x = (data.max() - data.min()) / 255
    scale_w = np.abs(weight).max(axis=0) / 127
    zero = np.rint(-data.min() / scale_x)
    x = (np.clip(np.rint(data / scale_x) + zero, 0, 255) - zero) @ np.rint(weight / scale_w)
    expected = (x + np.rint(bias / (scale_x * scale_w))) * scale_x * scale_w
    np.testing.assert_allclose(built.run({"x": data})[0], expected, atol=0.03)
    (bias_integers,) = (a for a in arrays(built.proto).values() if a.dtype == np.int32 and a.any())
    np.testing.assert_allclose(bias_integers, bias / (scale_x * scale_w), atol=0.51, rtol=1e-5)
    # It is one part in thousands of a step of eight bits, so the sum is as exact as the product.
    (exact,) = run(model, {"x": data})
    assert np.abs(built.run({"x": data})[0] - exact).max() < 0.05 * exact.std()


@pytest.mark.parametrize("shape", [["n", 6], [4, 6], [2, 2, 6]])
def test_it_runs_as_the_same_layer_written_as_a_gemm(shape: list[int | str]) -> None:
    sizes = [4 if size == "n" else int(size) for size in shape]
    data = samples(*sizes)
    model = layer(shape, [4])
    backend = OnnxRuntimeBackend(model, calibration_data=[{"x": data}])
    config = QuantConfig({"dense": STATIC})
    (done,) = backend.executed(config).values()
    assert (done.kernel, done.integer, done.note) == ("QGemm", True, "")
    m = Maker()
    weights = [m.const(array, name) for name, array in arrays(model).items()]
    flat = data.reshape(-1, 6)
    duplicate = m.model([m.node("Gemm", [m.input("x", ["n", 6]), *weights], name="dense")])
    (expected,) = (
        OnnxRuntimeBackend(duplicate, calibration_data=flat).quantize(config).run({"x": flat})
    )
    (actual,) = backend.quantize(config).run({"x": data})
    assert actual.shape == (*sizes[:-1], 4)
    np.testing.assert_array_equal(actual.reshape(-1, 4), expected)


def test_an_add_that_is_quantized_itself_stays_an_op() -> None:
    model = layer([4, 6], [4])
    backend = OnnxRuntimeBackend(model, calibration_data=[{"x": samples(4, 6)}])
    space = backend.tuning_space(op_types="all")
    assert [t.op_type for t in space.tunables] == ["MatMul", "Add"]
    config = space.default()
    kernels = {op: done.kernel for op, done in backend.executed(config).items()}
    assert kernels == {"dense": "QLinearMatMul", "add": "QLinearAdd"}
    types = Counter(node.op_type for node in backend.quantize(config).proto.graph.node)
    assert types["MatMul"] == types["Add"] == 1


def test_in_fp32_and_in_dynamic_mode_the_nodes_stay_as_they_are() -> None:
    model = layer([4, 6], [4])
    backend = OnnxRuntimeBackend(model, calibration_data=[{"x": samples(4, 6)}], approach="auto")
    fp32 = backend.quantize(QuantConfig({"dense": FP32}))
    assert [node.op_type for node in fp32.proto.graph.node] == ["MatMul", "Add"]
    config = QuantConfig({"dense": DYNAMIC})
    assert "Gemm" not in {node.op_type for node in backend.quantize(config).proto.graph.node}
    (done,) = backend.executed(config).values()
    assert (done.kernel, done.integer) == ("DynamicQuantizeMatMul", True)


def test_the_space_has_the_same_op_as_before() -> None:
    backend = OnnxRuntimeBackend(layer([4, 6], [4]), calibration_data=[{"x": samples(4, 6)}])
    (op,) = backend.capability().select()
    assert (op.name, op.op_type) == ("dense", "MatMul")


def test_its_error_is_that_of_the_sum() -> None:
    model = layer(["n", 6], [4])
    data = samples(64, 6)
    backend = OnnxRuntimeBackend(model, calibration_data=data, session_options=exact_options())
    config = QuantConfig({"dense": STATIC})
    (exact,) = run(model, {"x": data})
    (actual,) = run(backend.quantize(config).proto, {"x": data}, optimized=False)
    squared, variance = np.mean((actual - exact) ** 2, axis=0), exact.var(axis=0)
    whole, channels = squared.sum() / variance.sum(), np.mean(squared / variance)
    score = backend.mse_sensitivity()(config, ["dense"])["dense"]
    assert score == pytest.approx((whole + channels) / 2, rel=0.01)


def test_shapes_that_are_computed_from_shapes_are_known() -> None:
    m = Maker()
    x = m.input("x", [2, 3, 6])
    columns = m.node("Gather", [m.node("Shape", [x]), m.const(np.array([2]))], axis=0)
    shape = m.node("Concat", [m.const(np.array([-1])), columns], axis=0)
    flat = m.node("Reshape", [x, shape])
    found = graph(m.model([m.node("MatMul", [flat, m.weight(6, 4)])]))
    assert found.shapes["MatMul0_out"] == (6, 4)
    assert found.shapes["x"] == (2, 3, 6)


def test_copies_are_left_out_unless_somebody_else_sees_them() -> None:
    m = Maker()
    x = m.input("x", ["n", 4])
    same = m.node("Identity", [m.node("Tanh", [x])])
    kept = m.node("Identity", [same])
    dropped = m.node("Dropout", [same])
    model = m.model({kept: FLOAT, m.node("Relu", [dropped]): FLOAT})
    assert [n.op_type for n in graph(model).nodes] == ["Tanh", "Identity", "Relu"]


@pytest.mark.parametrize(
    ("shape", "bias", "place"),
    [
        (["n", 6], [4], (1, 1)),
        (["n", 3, 6], [1, 4], (1, 1)),
        (["n", 6], [], (1, 1)),
        (["n", 6], [1, 1, 4], None),  # which gives the sum another axis
        ([2, 6], [2, 4], None),  # which adds other values to each row
    ],
)
def test_a_constant_that_is_added_to_each_row(
    shape: list[int | str], bias: list[int], place: tuple[int, int] | None
) -> None:
    assert find_constant_add(0, graph(layer(shape, bias))) == place


def test_where_a_vector_behind_a_product_would_be_fused_with_it() -> None:
    assert may_fuse_with_vector(0, graph(layer(["n", 6], [4])))
    assert may_fuse_with_vector(0, graph(layer([2, 3, 6], [4])))
    assert not may_fuse_with_vector(0, graph(layer(["n", 3, 6], [4])))
