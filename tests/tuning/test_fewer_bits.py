"""A search for size says that weights of 4 bits were not searched, where there is room."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx_models import Maker
from onnx_models import samples
import onnxruntime
import pytest

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.result import TuningResult


HINT = "not searched: weights of 4 bits, which half of the tolerated loss leaves room for"
WISH = {".*": {"weight": {"bits": [8, 4]}}}


def products() -> onnx.ModelProto:
    maker = Maker()
    x = maker.input("x", ["batch", 64])
    hidden = maker.node("Relu", [maker.node("MatMul", [x, maker.weight(64, 64)])])
    return maker.model([maker.node("MatMul", [hidden, maker.weight(64, 64)])])


def convolutions() -> onnx.ModelProto:
    """Convolutions, and a product with a small part of the weights."""
    maker = Maker()
    x = maker.input("x", ["batch", 16, 6, 6])
    x = maker.conv(maker.conv(x, 16, 64), 64, 64)
    flat = maker.node("Flatten", [maker.node("GlobalMaxPool", [x])])
    return maker.model([maker.node("MatMul", [flat, maker.weight(64, 64)])])


def search(
    model: onnx.ModelProto,
    *,
    loss: float = 0.0,
    objective: str = "size",
    approach: str = "auto",
    op_type_dict: dict[str, dict[str, dict[str, list[int]]]] | None = None,
) -> TuningResult:
    """A search in which all quantized models lose the same."""
    baseline = iter([1.0])

    def evaluate(session: onnxruntime.InferenceSession) -> float:
        return next(baseline, 1.0 - loss)

    (given,) = model.graph.input
    shape = [each.dim_value or 8 for each in given.type.tensor_type.shape.dim]
    return tune(
        model,
        calibration_data={given.name: samples(*shape)},
        evaluate=evaluate,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.1),
        approach=approach,
        objective=objective,
        op_type_dict=op_type_dict,
        measure_gain=False,
        max_trials=4,
    )


def test_it_is_said_with_what_to_do() -> None:
    (line,) = [each for each in str(search(products())).splitlines() if HINT in each]
    assert 'op_type_dict={".*": {"weight": {"bits": [8, 4]}}}' in line
    found = search(products(), op_type_dict=WISH)
    assert found.config is not None
    bits = {each.weight.bits for each in found.config.ops.values() if each.weight is not None}
    assert bits == {4}


@pytest.mark.parametrize(
    "without",
    [
        pytest.param(lambda: search(products(), loss=0.06), id="little room"),
        pytest.param(lambda: search(products(), objective="bit_operations"), id="not for size"),
        pytest.param(lambda: search(products(), op_type_dict=WISH), id="searched"),
        pytest.param(lambda: search(products(), approach="static"), id="not offered"),
        pytest.param(lambda: search(convolutions()), id="of a small part"),
    ],
)
def test_it_is_not_said_otherwise(without: Callable[[], TuningResult]) -> None:
    result = without()
    assert result.met
    assert HINT not in str(result)
