"""The workers of a study calibrate once, and go without each other where that does not pay."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any

from fake_backend import FakeBackend
from onnx_models import convnet
from onnx_models import samples
import optuna
from optuna.artifacts import FileSystemArtifactStore
import pytest
from value_worker import SharingBackend

from optuna_quant import _optuna
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.calibration import calibration as calibration_module
from optuna_quant.evaluation import shared_calibration
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.space.config import OpConfig


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def calibrations(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_the_second_worker_takes_what_the_first_one_found(study: optuna.Study, log: Path) -> None:
    first, second = SharingBackend(log), SharingBackend(log)
    share_calibration(study, first)
    share_calibration(study, second)
    assert calibrations(log) == 1
    assert second.statistics == first.statistics


def test_another_model_or_other_data_calibrate_for_themselves(
    study: optuna.Study, log: Path
) -> None:
    first, second = SharingBackend(log), SharingBackend(log, key="other")
    share_calibration(study, first)
    share_calibration(study, second)
    assert calibrations(log) == 2
    assert second.statistics != first.statistics


def test_a_backend_that_cannot_share_calibrates(study: optuna.Study) -> None:
    backend = FakeBackend()
    share_calibration(study, backend)
    assert backend.calls["calibrate"] == 1


def test_a_study_in_memory_keeps_nothing(log: Path) -> None:
    study = optuna.create_study()
    share_calibration(study, SharingBackend(log))
    assert calibrations(log) == 1
    # But for how long it took.
    assert set(_optuna.study_system_attrs(study)) <= {"optuna_quant.seconds:calibration:here"}


def test_a_calibrated_backend_waits_for_no_worker(study: optuna.Study, log: Path) -> None:
    backend = SharingBackend(log)
    backend.calibrate()
    name = f"optuna_quant:calibration:{backend.calibration_key()}:claim:far"
    # A worker elsewhere is at it.
    held = {"id": "far", "worker": "far b c d|1|1|1", "position": 1, "heartbeat": 0}
    _optuna.set_study_system_attr(study, name, held)
    began = time.monotonic()
    share_calibration(study, backend)
    assert time.monotonic() - began < 60


def test_a_failed_calibration_is_everyones_own_error(study: optuna.Study, log: Path) -> None:
    class Failing(SharingBackend):
        def calibrate(self) -> None:
            raise ValueError("NaN in the data")

    for _ in range(2):
        with pytest.raises(ValueError, match="NaN in the data"):
            share_calibration(study, Failing(log))
    share_calibration(study, SharingBackend(log))
    assert calibrations(log) == 1


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_positive(study: optuna.Study, log: Path, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be positive, but got"):
        share_calibration(study, SharingBackend(log), timeout=timeout)


# What the study cannot hold.


def test_large_statistics_stay_out_of_the_study(
    study: optuna.Study, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_calibration, "LARGEST_IN_STUDY", 1000)
    for _ in range(2):
        backend = SharingBackend(log, size=2000)
        with pytest.warns(UserWarning, match="takes 2004 bytes.*artifact_store=.*cache_dir"):
            share_calibration(study, backend)
        share_calibration(study, backend)  # Says nothing more.
        assert backend.is_calibrated()
    assert calibrations(log) == 2
    assert sum(len(str(v)) for v in _optuna.study_system_attrs(study).values()) < 1000
    # A store takes them, whatever was tried before.
    store = FileSystemArtifactStore(tmp_path)
    third, fourth = SharingBackend(log, size=2000), SharingBackend(log, size=2000)
    share_calibration(study, third, artifact_store=store)
    share_calibration(study, fourth, artifact_store=store)
    assert calibrations(log) == 3
    assert fourth.statistics == third.statistics


def test_an_artifact_that_is_gone_is_calibrated_again(
    study: optuna.Study, log: Path, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    share_calibration(study, SharingBackend(log), artifact_store=FileSystemArtifactStore(here))
    backend = SharingBackend(log)
    with pytest.warns(UserWarning, match="cannot be read from the artifact store"):
        share_calibration(study, backend, artifact_store=FileSystemArtifactStore(elsewhere))
    assert backend.is_calibrated()
    assert calibrations(log) == 2


def test_damaged_statistics_are_calibrated_again(
    study: optuna.Study, log: Path, tmp_path: Path
) -> None:
    store = FileSystemArtifactStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    share_calibration(study, SharingBackend(log), artifact_store=store)
    (artifact,) = (tmp_path / "store").iterdir()
    artifact.write_bytes(b"nonsense")
    backend = SharingBackend(log)
    with pytest.warns(UserWarning, match="cannot be used: These are no statistics"):
        share_calibration(study, backend, artifact_store=store)
    assert backend.is_calibrated()


# A real backend.


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a model was run over the calibration data."""
    made: list[int] = []
    collect = calibration_module._Collector.collect

    def spy(self: Any, data: Any, sizes: Any) -> Any:
        made.append(len(sizes))
        return collect(self, data, sizes)

    monkeypatch.setattr(calibration_module._Collector, "collect", spy)
    return made


def real(**kwargs: Any) -> OnnxRuntimeBackend:
    data = samples(48, 2, 8, 8)
    return OnnxRuntimeBackend(convnet(), **{"calibration_data": data, **kwargs})


def test_imported_statistics_build_the_same_models(study: optuna.Study, passes: list[int]) -> None:
    sizes = {"calibration_sizes": [48, 16]}
    first, second = real(**sizes), real(**sizes)
    share_calibration(study, first)
    share_calibration(study, second)
    assert passes == [2]
    space = second.tuning_space()
    algorithms = {
        option.activation.algorithm
        for tunable in space.tunables
        for option in tunable.options
        if option.activation is not None
    }
    assert algorithms == {"minmax", "percentile", "kl", "mse"}
    ops = list(space.default().ops)
    for option in space.tunables[0].quantized:
        for size in (48, 16):
            config = space.default().with_calibration_size(size)
            config = config.with_ops(dict.fromkeys(ops, option))
            one, two = first.quantize(config), second.quantize(config)
            assert one.fingerprint == two.fingerprint
            assert one.proto.SerializeToString() == two.proto.SerializeToString()
    assert passes == [2]


def test_a_hit_in_the_cache_needs_no_study(
    study: optuna.Study, tmp_path: Path, passes: list[int]
) -> None:
    real(cache_dir=tmp_path).calibrate()
    share_calibration(study, real(cache_dir=tmp_path))
    assert passes == [1]
    assert not _optuna.study_system_attrs(study)


def test_what_came_from_the_study_goes_into_the_cache(
    study: optuna.Study, tmp_path: Path, passes: list[int]
) -> None:
    share_calibration(study, real())
    share_calibration(study, real(cache_dir=tmp_path))
    real(cache_dir=tmp_path).calibrate()
    assert passes == [1]


def test_tensors_beyond_those_that_were_shared(study: optuna.Study, passes: list[int]) -> None:
    share_calibration(study, real())
    backend, alone = real(), real()
    share_calibration(study, backend)
    label = "static a=int8/sym/per_tensor/minmax w=int8/sym/per_tensor/minmax"
    config = backend.tuning_space().default()
    op = next(iter(config.ops))
    config = config.with_ops({op: OpConfig.from_label(label)})
    assert backend.fingerprint(config) == alone.fingerprint(config)


def test_ops_of_a_space_are_calibrated_with_the_rest(passes: list[int]) -> None:
    backend = real()
    space = backend.tuning_space(op_types="all")
    backend.calibrate()
    backend.quantize(space.default())
    assert passes == [1]
    assert backend.calibration_key() == backend.calibration_key()


def test_the_key_tells_model_data_and_sizes_apart() -> None:
    keys = [
        real().calibration_key(),
        real(calibration_data=samples(48, 2, 8, 8, seed=2)).calibration_key(),
        real(calibration_sizes=[16]).calibration_key(),
        OnnxRuntimeBackend(
            convnet(seed=1), calibration_data=samples(48, 2, 8, 8)
        ).calibration_key(),
    ]
    assert len(set(keys)) == len(keys)
    assert real().calibration_key() == keys[0]


def test_statistics_of_something_else_are_refused() -> None:
    data = real().export_calibration()
    other = real(calibration_data=samples(48, 2, 8, 8, seed=2))
    with pytest.raises(ValueError, match="of another model or other data"):
        other.import_calibration(data)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        real().import_calibration(bytes(damaged))
    with pytest.raises(ValueError, match="not calibration statistics of this version"):
        real().import_calibration(b"PK")
    with pytest.raises(ValueError, match="damaged"):
        real().import_calibration(data[:-1])


def test_without_data_there_is_nothing_to_share(study: optuna.Study) -> None:
    backend = real(calibration_data=None, approach="dynamic")
    share_calibration(study, backend)
    assert backend.is_calibrated()
    assert not _optuna.study_system_attrs(study)
    with pytest.raises(ValueError, match="no calibration_data"):
        backend.calibration_key()


def test_too_few_samples_are_told_to_every_worker(study: optuna.Study) -> None:
    for _ in range(2):
        with pytest.warns(UserWarning, match="size is 100, but the data hold only 48 samples"):
            share_calibration(study, real(calibration_sizes=[100]))


def test_statistics_are_small() -> None:
    backend = real(calibration_data=samples(512, 2, 8, 8))
    tensors, _ = backend._parts.default_variant.ranges.expected
    assert len(backend.export_calibration()) < 4000 * len(tensors) + 2000
