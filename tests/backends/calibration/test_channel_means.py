"""Means of channels over calibration data: expected values are NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import convnet
from onnx_models import samples
import optuna
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.calibration.calibration import collect_statistics
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


FP32 = OpConfig("fp32")
RECIPE = "fast_bias_correction"


def doubled(shape: list[int | str]) -> onnx.ModelProto:
    m = Maker()
    x = m.input("x", shape)
    y = m.node("Mul", [x, m.const(np.float32(2.0))], outputs=["twice"])
    return m.model([y, m.node("Log", [y], outputs=["log"])])


def collected(
    model: onnx.ModelProto,
    batches: list[NDArray[np.float32]],
    *places: tuple[str, int],
    sizes: tuple[int, ...] = (1 << 62,),
) -> dict[int, CalibrationStatistics]:
    data = CalibrationData([{"x": batch} for batch in batches], input_specs(model))
    tensors = {name for name, _ in places}
    return collect_statistics(model, tensors, data, sizes, means=places)


def test_means_of_channels_of_given_and_computed_tensors() -> None:
    x = samples(12, 3, 4, 5) + np.arange(3, dtype=np.float32)[:, None, None]
    places = ("x", 1), ("twice", -1)
    (found,) = collected(doubled(["N", 3, 4, 5]), [x[:8], x[8:]], *places, sizes=(12,)).values()
    assert found.means.keys() == set(places)
    np.testing.assert_allclose(found.means["x", 1], x.mean((0, 2, 3), dtype=float), rtol=1e-6)
    twice = 2 * x.mean((0, 1, 2), dtype=float)
    np.testing.assert_allclose(found.means["twice", -1], twice, rtol=1e-6)


def test_texts_of_different_lengths_count_by_their_length() -> None:
    batches = [samples(2, 5, 3, seed=1), samples(1, 9, 3, seed=2)]
    (found,) = collected(doubled(["N", "L", 3]), batches, ("x", -1), sizes=(3,)).values()
    rows = np.concatenate([batch.reshape(-1, 3) for batch in batches])
    np.testing.assert_allclose(found.means["x", -1], rows.mean(0, dtype=float), rtol=1e-5)


def test_each_size_has_its_own() -> None:
    x = samples(10, 4)
    found = collected(doubled(["N", 4]), [x[:6], x[6:]], ("x", 1), sizes=(3, 7, 10))
    for size, statistics in found.items():
        mean = x[:size].mean(0, dtype=float)
        np.testing.assert_allclose(statistics.means["x", 1], mean, rtol=1e-5)


def test_what_has_no_means_gives_none() -> None:
    places = ("x", 1), ("log", 1)  # The logarithms of negative numbers.
    (found,) = collected(doubled(["N", 4]), [samples(6, 4)], *places, sizes=(6,)).values()
    assert found.means.keys() == {("x", 1)}
    wide = [samples(2, 4), samples(2, 5)]  # The axis has another size in each batch.
    (found,) = collected(doubled(["N", "L"]), wide, ("x", 1), sizes=(4,)).values()
    assert not found.means


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each pass over the data, but those that only tell data apart."""
    found: list[int] = []
    pieces = CalibrationData.pieces

    def counted(self: CalibrationData, sizes: Any) -> Any:
        found.append(1)
        return pieces(self, sizes)

    monkeypatch.setattr(CalibrationData, "pieces", counted)
    fingerprints = CalibrationData.fingerprints

    def uncounted(self: CalibrationData, sizes: Any) -> Any:
        with monkeypatch.context() as m:
            m.setattr(CalibrationData, "pieces", pieces)
            return fingerprints(self, sizes)

    monkeypatch.setattr(CalibrationData, "fingerprints", uncounted)
    return found


def backend_of(**options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(convnet(), calibration_data=samples(32, 2, 8, 8), **options)


def corrected(backend: OnnxRuntimeBackend, size: int | None = None) -> QuantConfig:
    ops = backend.tuning_space().default().ops
    return QuantConfig(ops, {RECIPE: "on"}, size)


def test_one_pass_gives_ranges_and_means_to_all_configurations(passes: list[int]) -> None:
    backend = backend_of(recipes=[RECIPE], calibration_sizes=[32, 8])
    found = {backend.fingerprint(corrected(backend, size)) for size in (32, 8)}
    found |= {backend.fingerprint(corrected(backend, 8).with_recipe(RECIPE, "off"))}
    one_op = corrected(backend, 8)
    found |= {backend.fingerprint(one_op.with_ops(dict.fromkeys(one_op.quantized_ops[1:], FP32)))}
    assert len(found) == 4
    assert len(passes) == 1


def test_means_that_were_not_offered_are_collected_when_a_configuration_asks(
    passes: list[int],
) -> None:
    offered, other = backend_of(recipes=[RECIPE]), backend_of()
    plain = corrected(other).with_recipe(RECIPE, "off")
    before = other.fingerprint(plain)
    assert other.fingerprint(corrected(other)) == offered.fingerprint(corrected(offered))
    assert other.fingerprint(plain) == before == offered.fingerprint(plain)
    assert len(passes) == 3


def test_means_are_kept_in_the_cache_directory(tmp_path: Path, passes: list[int]) -> None:
    found = {
        backend.fingerprint(corrected(backend))
        for backend in (backend_of(recipes=[RECIPE], cache_dir=tmp_path) for _ in range(2))
    }
    assert len(found) == len(passes) == 1


def test_means_are_shared_with_the_ranges(tmp_path: Path, passes: list[int]) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")
    found = set()
    for _ in range(2):
        backend = backend_of(recipes=[RECIPE])
        share_calibration(study, backend, config=corrected(backend))
        found.add(backend.fingerprint(corrected(backend)))
    assert len(found) == len(passes) == 1


def test_recipes_that_need_no_means_leave_the_key_as_it_is() -> None:
    keys = [backend_of(recipes=r).calibration_key() for r in (None, ["equalization"], [RECIPE])]
    assert keys[0] == keys[1] != keys[2]
