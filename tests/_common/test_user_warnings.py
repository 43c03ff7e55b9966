"""Warnings point at the user's line."""

from __future__ import annotations

import onnx_models
import pytest

import optuna_quant


def test_a_warning_of_tune_is_at_the_line_that_calls_it() -> None:
    model = onnx_models.convnet()
    x = onnx_models.samples(40, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    with pytest.warns(UserWarning, match="16 is not available") as caught:
        optuna_quant.tune(
            model,
            calibration_data={"x": x},
            data=({"x": x}, scores.argmax(axis=1)),
            objective="ops",
            max_trials=1,
            op_type_dict={"Conv": {"weight": {"bits": [8, 16]}}},
        )
    assert {each.filename for each in caught} == {__file__}
