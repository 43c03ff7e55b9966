"""The first and the last product of a model, and what lies outside them."""

from __future__ import annotations

from collections.abc import Iterator
import logging
from typing import Any

import numpy as np
import onnx
from onnx_models import FLOAT
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import residual
from onnx_models import samples
import optuna
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.recipes.ends.ops import first_product
from optuna_quant.backends.onnxruntime.recipes.ends.ops import last_product
from optuna_quant.backends.onnxruntime.recipes.ends.ops import outside_backbone
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig


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


# The recipes.


def backend_of(model: onnx.ModelProto, *shape: int, **kw: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, calibration_data=samples(*shape), **kw)


@pytest.mark.parametrize(
    ("recipe", "op"),
    [
        ("first_conv_or_matmul_quantization", "Conv0"),
        ("last_conv_or_matmul_quantization", "Gemm0"),
    ],
)
def test_a_fixed_recipe_keeps_its_op_in_fp32_and_out_of_the_search(recipe: str, op: str) -> None:
    backend = backend_of(convnet(), 16, 2, 8, 8, recipes={recipe: False})
    space = backend.tuning_space()
    (tunable,) = (each for each in space.tunables if each.name == op)
    assert tunable.options == (FP32,)
    assert space.recipes == {recipe: ("off",)}
    assert space.parameter_name(f"op:{op}") not in space.distributions()
    assert space.parameter_name(f"recipe:{recipe}") not in space.distributions()
    config = space.default()
    assert config.recipes == {recipe: "off"}
    assert set(config.quantized_ops) == {"Conv0", "Conv1", "Gemm0"} - {op}
    # It is the model in which the op is in fallback, and no recipe is needed for that.
    assert backend.fingerprint(config) == backend.fingerprint(QuantConfig(config.ops))
    # A configuration that quantizes the op all the same is changed.
    everything = OnnxRuntimeBackend(convnet(), calibration_data=samples(16, 2, 8, 8))
    quantized = everything.tuning_space().default().with_recipe(recipe, "off")
    assert everything.fingerprint(quantized) == backend.fingerprint(config)


def test_a_tuned_recipe_is_a_parameter() -> None:
    recipe = "first_conv_or_matmul_quantization"
    backend = backend_of(convnet(), 16, 2, 8, 8, recipes=[recipe])
    space = backend.tuning_space()
    name = space.parameter_name(f"recipe:{recipe}")
    assert space.distributions()[name].choices == ("on", "off")
    config = space.default()
    off = config.with_recipe(recipe, "off")
    assert backend.fingerprint(off) == backend.fingerprint(config.with_fallback("Conv0"))


def test_what_lies_outside_is_quantized_or_not() -> None:
    recipe = "pre_post_process_quantization"
    backend = backend_of(residual(), 8, 3, 6, 6, recipes={recipe: [True, False]})
    space = backend.tuning_space(op_types="all")
    assert space.recipes == {recipe: ("on", "off")}
    config = space.default()
    off = config.with_recipe(recipe, "off")
    assert backend.fingerprint(off) == backend.fingerprint(
        config.with_fallback("GlobalAveragePool0")
    )
    assert backend.fingerprint(off) != backend.fingerprint(config)
    # The pool is no op of this space, so the recipe is no part of it either.
    assert backend.tuning_space().recipes == {}


def test_a_recipe_that_would_change_nothing_is_left_out() -> None:
    m = Maker()
    model = m.model([m.node("MatMul", [m.input("x", ["N", 4]), m.weight(4, 2)])])
    last = "last_conv_or_matmul_quantization"
    backend = backend_of(model, 8, 4, recipes=[last, "pre_post_process_quantization"])
    assert backend.capability().recipes == {}
    backend = backend_of(model, 8, 4, recipes={"first_conv_or_matmul_quantization": False})
    with pytest.raises(ValueError) as error:
        backend.tuning_space()
    assert str(error.value) == (
        "recipes: first_conv_or_matmul_quantization='off' keep all ops of the tuning space in "
        "FP32, so that nothing is left to be quantized. Take one of them out of recipes, or tune "
        "other ops as well (op_types)."
    )


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    optuna.logging.enable_propagation()
    yield caplog
    optuna.logging.disable_propagation()


@pytest.mark.parametrize("asked", ["named", "all"])
def test_a_named_recipe_without_effect_is_a_warning(
    asked: str, told: pytest.LogCaptureFixture
) -> None:
    m = Maker()
    model = m.model([m.node("MatMul", [m.node("Relu", [m.input("x", ["N", 4])]), m.weight(4, 2)])])
    last, ends = "last_conv_or_matmul_quantization", "pre_post_process_quantization"
    backend = backend_of(model, 8, 4, recipes=[last, ends] if asked == "named" else "all")
    for _ in range(2):
        backend.tuning_space()
    warnings = [r.getMessage() for r in told.records if r.levelno == logging.WARNING]
    if asked == "all":
        assert not warnings
        return
    assert warnings == [
        f"Recipe {last!r} is left out, since it would change nothing: the last convolution or "
        "matrix product, 'MatMul0', is also the first.",
        f"Recipe {ends!r} is left out, since it would change nothing: the ops that it keeps in "
        "FP32 are not tuned.",
    ]
