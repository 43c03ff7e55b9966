"""Where there is room to spare, weights get fewer bits, the most tolerant ones first."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import samples
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


WIDTH = 64

pytestmark = pytest.mark.slow


def network() -> onnx.ModelProto:
    """Four layers, of which the outputs of the last are close to each other."""
    m = Maker()
    h = m.input("x", ["N", WIDTH])
    for _ in range(3):
        h = m.node("Relu", [m.node("MatMul", [h, m.weight(WIDTH, WIDTH, scale=0.2)])])
    return m.model([m.node("MatMul", [h, m.weight(WIDTH, 6, scale=0.2)])])


def search(loss: float, **options: Any) -> TuningResult:
    x = samples(400, WIDTH)
    model = OnnxRuntimeBackend(network(), approach="weight_only")
    (logits,) = model.quantize(model.tuning_space().fp32()).run({"x": x})
    return tune(
        network(),
        calibration_data=x[:50],
        data=({"x": x}, logits.argmax(1)),
        metric="accuracy",
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=loss),
        objective="size",
        timeout=None,
        max_trials=12,
        measure_gain=False,
        verify=False,
        **options,
    )


def bits(result: TuningResult) -> list[int]:
    assert result.config is not None
    return [0 if op.weight is None else op.weight.bits for op in result.config.ops.values()]


@pytest.mark.parametrize(
    "options",
    [
        {"approach": "weight_only"},
        {"approach": "auto", "op_type_dict": {".*": {"weight": {"bits": [8, 4]}}}},
    ],
)
def test_the_default_strategy_lowers_bits(options: dict[str, Any]) -> None:
    loose, tight = search(0.5, **options), search(0.045, **options)
    assert loose.met and tight.met
    assert set(bits(loose)) == {4}
    assert sum(bits(loose)) < sum(bits(tight))
    assert 4 in bits(tight)
    assert {8, 4} >= set(bits(tight))
    assert loose.cost is not None and tight.cost is not None
    assert loose.cost < tight.cost


def test_lowest_bits_first_where_they_are_asked_for() -> None:
    wish = {".*": {"weight": {"bits": [8, 4, 2], "algorithm": ["rtn"]}}}
    result = search(0.3, approach="weight_only", op_type_dict=wish)
    assert result.met
    assert 2 in bits(result)
    assert np.mean(bits(result)) < 4
