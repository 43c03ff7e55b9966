"""The first and the last product of a model, and what lies outside them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx_models import FLOAT
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import residual

from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.recipes.boundary_ops import first_product
from optuna_quant.backends.onnxruntime.recipes.boundary_ops import last_product
from optuna_quant.backends.onnxruntime.recipes.boundary_ops import outside_backbone


def graph(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def test_first_and_last_product() -> None:
    found = graph(convnet())
    assert (first_product(found), last_product(found)) == ("Conv0", "Gemm0")
    found = graph(attention())
    assert (first_product(found), last_product(found)) == ("query", "out")


def test_what_comes_before_and_after() -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 4, 4])
    h = m.node("Mul", [x, m.const(np.float32(2.0))], name="scale")
    h = m.conv(h, 2, 2, kernel=(1, 1))
    h = m.node("Sigmoid", [h], name="between")
    h = m.conv(h, 2, 2, kernel=(1, 1))
    m.node("GlobalAveragePool", [h], name="pooled", outputs=["y"])
    model = m.model(["y"])
    assert outside_backbone(graph(model)) == {"scale", "pooled"}


def test_a_second_input_is_prepared_outside_the_backbone() -> None:
    m = Maker()
    x, z = (m.input(name, ["N", 2, 4, 4]) for name in "xz")
    h = m.conv(x, 2, 2, kernel=(1, 1))
    other = m.node("Sigmoid", [z], name="prepared")
    h = m.node("Add", [h, other], name="joined")
    model = m.model([m.conv(h, 2, 2, kernel=(1, 1))])
    assert outside_backbone(graph(model)) == {"prepared"}


def test_a_branch_around_the_products_is_outside() -> None:
    m = Maker()
    x = m.input("x", ["N", 2, 4, 4])
    h = m.conv(x, 2, 2, kernel=(1, 1))
    around = m.node("Abs", [x], name="around")
    model = m.model([m.node("Add", [h, around], name="sum")])
    assert outside_backbone(graph(model)) == {"around", "sum"}


def test_all_between_products_is_inside() -> None:
    assert outside_backbone(graph(residual())) == {"GlobalAveragePool0"}


def test_a_product_inside_a_subgraph_reads_from_outside() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    h = m.node("Abs", [x], name="first")
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [h], ["inner"])],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("inner", FLOAT, None)],
    )
    flag = m.const(np.array(True))
    h = m.node("If", [flag], name="if", then_branch=body, else_branch=body)
    y = m.node("MatMul", [h, m.weight(4, 2)], name="product")
    found = graph(m.model([y]))
    assert outside_backbone(found) >= {"first"}
    assert first_product(found) == "product"


def test_without_products_there_is_nothing() -> None:
    m = Maker()
    x = m.input("x", ["N", 4])
    found = graph(m.model([m.node("Sigmoid", [x])]))
    assert first_product(found) is None
    assert last_product(found) is None
    assert outside_backbone(found) == frozenset()
