"""What a failed run of ONNX Runtime says to people with texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
import onnxruntime
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.session_model import SessionModel


def embedded() -> onnx.ModelProto:
    """A vocabulary of ten tokens and four positions."""
    m = Maker()
    ids = m.input("ids", ["N", "L"], onnx.TensorProto.INT64)
    tokens = m.node("Gather", [m.weight(10, 8), ids])
    summed = m.node("Add", [tokens, m.weight(4, 8)])
    return m.model([m.node("MatMul", [summed, m.weight(8, 2)])])


@pytest.mark.parametrize(
    ("ids", "cause"),
    [
        (np.full((1, 4), 12), "A table has no row of that number: tokens are beyond the model's"),
        (np.zeros((1, 6), int), "Two sizes do not fit: an input may be longer than the model"),
    ],
)
def test_tokens_and_lengths_that_do_not_fit_are_explained_once(
    ids: NDArray[np.int64], cause: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = embedded()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    with pytest.raises(Exception, match=r"ONNXRuntimeError") as caught:
        SessionModel(session).run({"ids": ids})
    assert any(cause in note for note in caught.value.__notes__)
    backend = OnnxRuntimeBackend(model, calibration_data={"ids": ids})
    with pytest.raises(RuntimeError, match=f"failed on calibration sample 0, .*{cause}"):
        backend.calibrate()
    assert capfd.readouterr().err == ""
