"""A MatMul and an Add in place of each Gemm."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.constant_folding import unfold
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.recipes.matmuls import gemms_as_matmuls
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


def graph(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def layer(bias: list[int] | None = None, **attributes: Any) -> onnx.ModelProto:
    m = Maker()
    turned = attributes.get("transB", 0)
    inputs = [m.input("x", ["N", 6]), m.weight(*((4, 6) if turned else (6, 4)), name="w")]
    if bias is not None:
        inputs.append(m.weight(*bias, name="b"))
    return m.model([m.node("Gemm", inputs, name="fc", **attributes)])


@pytest.mark.parametrize("bias", [None, [4], [1, 4], [1], []])
@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}, {"transB": 1, "alpha": -1.0}]
)
def test_the_function_is_the_same(bias: list[int] | None, attributes: dict[str, Any]) -> None:
    model = layer(bias, **attributes)
    before = graph(model)
    after = gemms_as_matmuls(before)
    kinds = [node.op_type for node in after.nodes]
    assert kinds == (["MatMul"] if bias is None else ["MatMul", "Add"])
    assert after.nodes[0].name == "fc"
    assert [node.op_type for node in before.nodes] == ["Gemm"]
    x = samples(5, 6)
    expected = run(model, {"x": x})[0]
    np.testing.assert_allclose(run(after.to_model(), {"x": x})[0], expected, atol=1e-6)


def test_a_zero_factor_leaves_no_bias() -> None:
    after = gemms_as_matmuls(graph(layer([4], beta=0.0)))
    assert [node.op_type for node in after.nodes] == ["MatMul"]


def test_gemms_that_share_a_weight_share_the_new_one() -> None:
    m = Maker()
    x = m.input("x", ["N", 6])
    weight = m.weight(6, 6, name="w")
    h = m.node("Gemm", [x, weight], transB=1)
    model = m.model([m.node("Gemm", [h, weight], transB=1)])
    after = gemms_as_matmuls(graph(model))
    assert [node.op_type for node in after.nodes] == ["MatMul", "MatMul"]
    assert after.nodes[0].input[1] == after.nodes[1].input[1] == "w_transposed"


def test_what_would_need_more_nodes_stays_a_gemm() -> None:
    m = Maker()
    x, w = m.input("x", ["N", 6]), m.input("w", [4, 6])
    y = m.node("Gemm", [x, w], transB=1)
    assert [n.op_type for n in gemms_as_matmuls(graph(m.model([y]))).nodes] == ["Gemm"]
    m = Maker()
    y = m.node("Gemm", [m.input("x", [6, "N"]), m.weight(6, 4)], transA=1)
    assert [n.op_type for n in gemms_as_matmuls(graph(m.model([y]))).nodes] == ["Gemm"]


def test_a_weight_that_is_read_elsewhere_is_not_stored_twice() -> None:
    m = Maker()
    ids = m.input("ids", ["N"], onnx.TensorProto.INT64)
    table = m.weight(40, 30, name="table")
    h = m.node("Gather", [table, ids])
    before = graph(m.model([m.node("Gemm", [h, table], transB=1)]))
    after = gemms_as_matmuls(before)
    model = after.to_model()
    assert {t.name for t in model.graph.initializer} == {"table", "table_transposed"}
    unfold(model, after)
    assert {t.name for t in model.graph.initializer} == {"table"}
    feed = {"ids": np.arange(4)}
    np.testing.assert_allclose(
        run(model, feed)[0], run(before.to_model(), feed)[0], rtol=1e-5, atol=1e-6
    )


def test_the_recipe_quantizes_the_matmul_under_the_name_of_the_gemm() -> None:
    data = samples(32, 6)
    model = layer([4], transB=1)
    backend = OnnxRuntimeBackend(
        model,
        calibration_data=data,
        recipes={"gemm_to_matmul": True},
        approach="dynamic",
        session_options=exact_options(),
    )
    config = backend.tuning_space().default()
    assert list(config.quantized_ops) == ["fc"]
    assert config.recipes == {"gemm_to_matmul": "on"}
    built = backend.quantize(config)
    np.testing.assert_allclose(built.run({"x": data})[0], run(model, {"x": data})[0], atol=0.2)
    # In static mode the two are written as a Gemm again: it is the same model.
    static = QuantConfig(
        {
            "fc": OpConfig.from_label(
                "static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"
            )
        }
    )
    backend = OnnxRuntimeBackend(layer([4]), calibration_data=data)
    assert backend.fingerprint(static) == backend.fingerprint(
        static.with_recipe("gemm_to_matmul", "on")
    )


def test_without_a_gemm_the_recipe_is_left_out() -> None:
    m = Maker()
    model = m.model([m.node("MatMul", [m.input("x", ["N", 6]), m.weight(6, 4)])])
    backend = OnnxRuntimeBackend(
        model, calibration_data=samples(8, 6), recipes={"gemm_to_matmul": True}
    )
    assert backend.capability().recipes == {}
