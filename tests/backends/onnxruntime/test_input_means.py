"""Means of tensors over calibration data: expected values are NumPy's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime.calibration.input_means import InputMeansSource
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.quantized_model import SessionMaker


def doubled(shape: list[int | str]) -> onnx.ModelProto:
    m = Maker()
    x = m.input("x", shape)
    y = m.node("Mul", [x, m.const(np.float32(2.0))], outputs=["twice"])
    return m.model([m.node("Log", [y], outputs=["log"])])


def source(
    model: onnx.ModelProto,
    batches: list[NDArray[np.float32]],
    *tensors: tuple[str, int],
    sizes: tuple[int | None, ...] = (None,),
) -> InputMeansSource:
    data = CalibrationData([{"x": batch} for batch in batches], input_specs(model))
    sessions = SessionMaker(["CPUExecutionProvider"], None)
    found = InputMeansSource(normalize(load_model(model)), data, sessions, sizes)
    found.expect(tensors)
    return found


def test_means_of_channels_of_given_and_computed_tensors() -> None:
    x = samples(12, 3, 4, 5) + np.arange(3, dtype=np.float32)[:, None, None]
    means = source(doubled(["N", 3, 4, 5]), [x[:8], x[8:]], ("x", 1), ("twice", -1))
    found = means.get("x", 1, None)
    np.testing.assert_allclose(found, x.mean((0, 2, 3), dtype=np.float64), rtol=1e-6)
    found = means.get("twice", -1, None)
    np.testing.assert_allclose(found, 2 * x.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_texts_of_different_lengths_count_by_their_length() -> None:
    batches = [samples(2, 5, 3, seed=1), samples(1, 9, 3, seed=2)]
    means = source(doubled(["N", "L", 3]), batches, ("x", -1))
    rows = np.concatenate([batch.reshape(-1, 3) for batch in batches])
    np.testing.assert_allclose(means.get("x", -1, None), rows.mean(0, dtype=np.float64), rtol=1e-5)


def test_each_size_has_its_own() -> None:
    x = samples(10, 4)
    means = source(doubled(["N", 4]), [x[:6], x[6:]], ("x", 1), sizes=(3, 10))
    for size in (3, 10, 7):
        np.testing.assert_allclose(
            means.get("x", 1, size), x[:size].mean(0, dtype=np.float64), rtol=1e-5
        )


def test_what_has_no_means_gives_none() -> None:
    x = samples(6, 4)
    means = source(doubled(["N", 4]), [x], ("x", 1), ("log", 1))
    assert means.get("x", 1, None) is not None
    # Of negative numbers.
    assert means.get("log", 1, None) is None
    # The axis has another size in each batch.
    wide = source(doubled(["N", "L"]), [samples(2, 4), samples(2, 5)], ("x", 1))
    assert wide.get("x", 1, None) is None


@pytest.mark.parametrize("size", [None, 4])
def test_one_pass_is_made_for_all(size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    given = CalibrationData.pieces
    monkeypatch.setattr(
        CalibrationData, "pieces", lambda *a, **kw: passes.append(1) or given(*a, **kw)
    )
    means = source(doubled(["N", 4]), [samples(8, 4)], ("x", 1), ("twice", 1), sizes=(size, 2))
    for each in (size, 2):
        for tensor in ("x", "twice"):
            assert means.get(tensor, 1, each) is not None
    assert len(passes) == 1
