"""What only some configurations need of the calibration data: the inputs of ops, for GPTQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx_models import Maker
from onnx_models import samples
import optuna
from optuna.artifacts import FileSystemArtifactStore
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.weight_only.inputs import InputMomentsSource
from optuna_quant.evaluation import shared_calibration
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")


GPTQ = OpConfig.from_label("weight_only w=int4/asym/per_group=32/gptq level=4")
RTN = OpConfig.from_label("weight_only w=int4/asym/per_group=32/rtn level=4")


def products() -> OnnxRuntimeBackend:
    b = Maker()
    h = b.node("MatMul", [b.input("x", ["n", 48]), b.weight(48, 40)])
    model = b.model([b.node("MatMul", [b.node("Relu", [h]), b.weight(40, 8)])])
    data = [{"x": samples(n, 48, seed=n)} for n in (7, 20)]
    backend = OnnxRuntimeBackend(model, approach="weight_only", calibration_data=data)
    backend.tuning_space()
    return backend


@pytest.fixture
def input_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each pass over the data for the inputs of ops."""
    found: list[int] = []
    collect = InputMomentsSource._collect

    def counted(self: InputMomentsSource, sizes: Any) -> None:
        found.append(1)
        collect(self, sizes)

    monkeypatch.setattr(InputMomentsSource, "_collect", counted)
    return found


def share(study: optuna.Study, option: OpConfig, **kwargs: Any) -> str:
    backend, config = products(), QuantConfig(dict.fromkeys(("MatMul0", "MatMul1"), option))
    share_calibration(study, backend, config=config, **kwargs)
    return backend.fingerprint(config)


def test_inputs_of_ops_are_collected_once_and_only_if_needed(
    study: optuna.Study, input_passes: list[int]
) -> None:
    share(study, RTN)
    assert not input_passes
    fingerprints = {share(study, GPTQ) for _ in range(3)}
    assert len(fingerprints) == len(input_passes) == 1


def test_inputs_that_a_study_cannot_hold_are_taken_from_a_store(
    study: optuna.Study, input_passes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_calibration, "LARGEST_IN_STUDY", 1000)
    with pytest.warns(UserWarning, match="every worker calibrates for itself"):
        alone = share(study, GPTQ)
    store = FileSystemArtifactStore(tmp_path)
    assert {share(study, GPTQ, artifact_store=store) for _ in range(2)} == {alone}
    assert len(input_passes) == 2


def test_in_memory_they_are_collected_when_the_candidate_is_built(input_passes: list[int]) -> None:
    backend, study = products(), optuna.create_study()
    config = QuantConfig({"MatMul0": GPTQ})
    share_calibration(study, backend, config=config)
    assert not input_passes
    backend.quantize(config)
    assert len(input_passes) == 1


@pytest.mark.parametrize("damage", [slice(0, 0), slice(0, -5), slice(5, None)])
def test_damaged_inputs_are_refused(damage: slice) -> None:
    backend, config = products(), QuantConfig({"MatMul0": GPTQ})
    (part,) = backend.calibrations_for(config)
    data = part.export_calibration()
    (other,) = products().calibrations_for(config)
    with pytest.raises(ValueError):
        other.import_calibration(data[damage])
    assert not other.is_calibrated()
    other.import_calibration(data)
    assert other.is_calibrated()
    assert other.export_calibration() == data


def test_inputs_without_a_meaning_are_told_as_well() -> None:
    def broken() -> Any:
        data = [{"x": np.full((4, 48), np.nan, np.float32)}]
        backend = OnnxRuntimeBackend(
            products()._parts.model.proto, approach="weight_only", calibration_data=data
        )
        backend.tuning_space()
        return backend

    config = QuantConfig({"MatMul0": GPTQ})
    other = broken()
    (one,), (part,) = broken().calibrations_for(config), other.calibrations_for(config)
    part.import_calibration(one.export_calibration())
    assert part.is_calibrated()
    assert other.fingerprint(config) == other.fingerprint(QuantConfig({}))
