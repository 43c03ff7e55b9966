"""Multiply-adds and bit operations, from shapes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
import onnx_models
from onnx_models import Maker
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.costs.operations import multiply_adds


def node(op_type: str, *inputs: str, domain: str = "", **attributes: int) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, ["y"], domain=domain, **attributes)


@pytest.mark.parametrize(
    ("made", "shapes", "expected"),
    [
        # Each of 2 x 8 x 5 x 5 outputs is a sum over 3 channels and a 3 x 3 window.
        (node("Conv", "x", "w"), {"w": (8, 3, 3, 3), "y": (2, 8, 5, 5)}, 400 * 27),
        (node("Conv", "x", "w", group=8), {"w": (8, 1, 3, 3), "y": (1, 8, 5, 5)}, 200 * 9),
        # Each of 4 x 5 x 5 inputs goes into 6 channels and a 2 x 2 window.
        (node("ConvTranspose", "x", "w"), {"x": (1, 4, 5, 5), "w": (4, 6, 2, 2)}, 100 * 24),
        (node("MatMul", "x", "w"), {"x": (2, 3, 7), "w": (7, 5), "y": (2, 3, 5)}, 30 * 7),
        (node("Gemm", "x", "w"), {"x": (3, 7), "y": (3, 5)}, 15 * 7),
        (node("Gemm", "x", "w", transA=1), {"x": (7, 3), "y": (3, 5)}, 15 * 7),
        # 6 steps of 2 samples, 4 gates of 5 with 3 inputs and 5 states.
        (node("LSTM", "x", "w", "r"), {"x": (6, 2, 3), "w": (1, 20, 3)}, 12 * 20 * 8),
        (
            node("Attention", "x", "w", domain="com.microsoft"),
            {"x": (1, 6, 8), "w": (8, 24)},
            6 * 8 * 24 + 2 * 6 * 6 * 8,
        ),
        (node("Relu", "x"), {}, 0),
    ],
)
def test_multiply_adds(
    made: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], expected: int
) -> None:
    assert multiply_adds(made, shapes) == expected


def test_tables_of_a_model_are_those_of_one_sample() -> None:
    backend = OnnxRuntimeBackend(
        onnx_models.convnet(), calibration_data=[{"x": samples(4, 2, 8, 8)}]
    )
    space = backend.tuning_space()
    costs = backend.costs(space, seconds=0.1, checks=0)
    first, second = 4 * 6 * 6 * 2 * 9, 6 * 2 * 2 * 4 * 4
    total = first + second + 24 * 5
    counts, products = costs.table("multiply_adds"), costs.table("bit_operations")
    assert counts.cost(space.fp32()) == total
    assert counts.cost(space.default()) == 0
    assert products.cost(space.fp32()) == total * 32 * 32
    assert products.cost(space.default()) == total * 8 * 8
    mixed = space.default().with_fallback("Conv0")
    assert counts.cost(mixed) == first
    assert products.cost(mixed) == first * 32 * 32 + (total - first) * 64


def test_ops_that_are_not_in_the_space_count_in_floats() -> None:
    backend = OnnxRuntimeBackend(onnx_models.convnet(), calibration_data=samples(4, 2, 8, 8))
    space = backend.tuning_space(op_types=["Gemm"])
    costs = backend.costs(space, seconds=0.1, checks=0)
    convs = 4 * 6 * 6 * 2 * 9 + 6 * 2 * 2 * 4 * 4
    assert costs.table("multiply_adds").cost(space.default()) == convs
    assert costs.table("bit_operations").fixed == convs * 32 * 32


def test_shapes_that_cannot_be_inferred_are_found_by_running() -> None:
    m = Maker()
    x = m.input("x", ["N", "L"])
    # As many rows as there are positive values, which no inference knows.
    rows = m.node("Transpose", [m.node("NonZero", [m.node("Relu", [x])])])
    h = m.node("Cast", [rows], to=onnx_models.FLOAT)
    y = m.node("MatMul", [h, m.weight(2, 3)])
    data = np.abs(samples(1, 6)) + 1
    backend = OnnxRuntimeBackend(m.model([y]), calibration_data=[{"x": data}])
    space = backend.tuning_space()
    costs = backend.costs(space, seconds=0.1, checks=0)
    assert costs.table("multiply_adds").cost(space.fp32()) == 6 * 2 * 3
