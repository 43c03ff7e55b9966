"""A failed evaluation of the FP32 model is told once, with what to do."""

from __future__ import annotations

import logging
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import onnx_models
import onnxruntime
import optuna
import pytest
import torch

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.study.errors import BaselineError
from optuna_quant.tuning.api import tune


def test_a_metric_of_torch_is_told_that_it_gets_arrays(caplog: pytest.LogCaptureFixture) -> None:
    def evaluate(model: FakeModel) -> float:
        import numpy as np

        return float(torch.nn.functional.softmax(np.zeros(3), dim=0)[0])

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    try:
        with (
            caplog.at_level(logging.INFO),
            pytest.raises(BaselineError, match=r"NumPy arrays: torch.from_numpy\(...\) makes"),
        ):
            tune(backend=FakeBackend({"a": 0.1}), evaluate=evaluate)
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(before)
    assert "failed with" not in caplog.text


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda model: onnxruntime.InferenceSession(model.SerializeToString()),
        lambda model: onnxruntime.InferenceSession(model),
        lambda model: model.graph.node,
    ],
)
def test_a_function_that_wants_the_model_is_told_what_it_gets(evaluate: Any) -> None:
    backend = OnnxRuntimeBackend(
        onnx_models.convnet(), calibration_data=[{"x": onnx_models.samples(2, 2, 8, 8)}]
    )
    with pytest.raises(BaselineError, match="evaluate gets the InferenceSession that runs the"):
        tune(backend=backend, evaluate=evaluate)


def test_other_errors_get_no_hint() -> None:
    with pytest.raises(BaselineError, match=r"AttributeError: 'int' object has no attribute 'x'$"):
        tune(backend=FakeBackend({"a": 0.1}), evaluate=lambda model: (1).x)  # type: ignore[attr-defined]
