"""Einsums with a weight: those that are products with a matrix, and those that are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx.reference import ReferenceEvaluator
from onnx_models import Maker
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.einsum_products import as_matrix_product


DIMS = {"a": 3, "b": 5, "c": 16, "d": 4, "e": 8, "f": 2}

PRODUCTS = [
    "abc,cde->abde",  # The projections of Keras' attention, and its output.
    "abcd,cde->abe",
    "abc,ce->abe",
    "ac,ec->ae",
    "abcd,edc->abe",
    "abc,dce->abed",
    "abcd, cdef -> abef",
]
OTHERS = [
    "abc,cde->abed",  # All of these are written as MatMuls or stay: the result is the same.
    "abc,bce->abe",
    "abc,cd->dab",
    "cab,cd->abd",
    "abc,c->ab",
    "bc,bc->bc",
    "c,cd->d",
    "abc,cde->abd",
]


def model_of(equation: str) -> onnx.ModelProto:
    left, right = equation.replace(" ", "").split("->")[0].split(",")
    m = Maker()
    x = m.input("x", [None if label == "a" else DIMS[label] for label in left])
    weight = m.weight(*(DIMS[label] for label in right))
    y = m.node("Einsum", [x, weight], name="project", equation=equation)
    return m.model([m.node("Relu", [y])])


def inputs(equation: str) -> NDArray[np.float32]:
    left = equation.split(",")[0]
    shape = [DIMS[label] for label in left]
    if "a" in left:
        shape[left.index("a")] = 12
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("equation", PRODUCTS)
@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_a_product_with_a_weight_is_quantized_as_a_matmul(equation: str, approach: str) -> None:
    model, x = model_of(equation), inputs(equation)
    backend = OnnxRuntimeBackend(model, calibration_data=[{"x": x}], approach=approach)
    space = backend.tuning_space()
    (tunable,) = space.tunables
    assert (tunable.name, tunable.op_type) == ("project", "MatMul")
    (exact,) = backend.quantize(space.fp32()).run({"x": x})
    bits = 4 if approach == "weight_only" else 8
    quantized = backend.quantize(space.default())
    (found,) = quantized.run({"x": x})
    assert found.shape == exact.shape
    assert np.abs(found - exact).mean() < (0.1 if bits == 4 else 0.02) * np.abs(exact).max()
    assert "Einsum" not in {node.op_type for node in quantized.proto.graph.node}


@pytest.mark.parametrize("equation", PRODUCTS + OTHERS)
def test_what_is_computed_stays_the_same(equation: str) -> None:
    x = inputs(equation)
    backend = OnnxRuntimeBackend(model_of(equation), approach="dynamic")
    (expected,) = ReferenceEvaluator(model_of(equation)).run(None, {"x": x})
    normal = backend._parts.model.graph.to_model()
    (found,) = ReferenceEvaluator(normal).run(None, {"x": x})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("equation", [*OTHERS[1:], "...c,cd->...d", "ab,bc", "abb,bc->ac"])
def test_what_is_no_product_with_a_matrix(equation: str) -> None:
    right = equation.split("->")[0].split(",")[1]
    assert as_matrix_product(equation, [DIMS.get(label, 2) for label in right]) is None


def test_a_product_of_two_activations_stays() -> None:
    m = Maker()
    x, y = m.input("x", [None, 4, 8]), m.input("y", [None, 8, 4])
    h = m.node("Einsum", [x, y], equation="abc,acd->abd")
    out = m.node("MatMul", [h, m.weight(4, 4)])
    backend = OnnxRuntimeBackend(m.model([out]), approach="dynamic")
    assert [n.op_type for n in backend._parts.model.graph.nodes] == ["Einsum", "MatMul"]


def test_layers_that_share_a_weight_are_tied() -> None:
    m = Maker()
    x, weight = m.input("x", [None, 5, 16]), m.weight(16, 4, 4)
    h = m.node("Einsum", [x, weight], name="one", equation="abc,cde->abde")
    h = m.node("Reshape", [m.node("Relu", [h]), m.const(np.array([0, 0, 16]))])
    y = m.node("Einsum", [h, weight], name="two", equation="abc,cde->abde")
    backend = OnnxRuntimeBackend(m.model([y]), approach="dynamic")
    assert [tunable.ops for tunable in backend.tuning_space().tunables] == [("one", "two")]
