"""A failed evaluation of the FP32 model is told once, with what to do."""

from __future__ import annotations

import logging

from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
import pytest
import torch

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
