"""Weights that take long to quantize are computed by one worker of a study for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from onnx_models import Maker
from onnx_models import samples
import optuna
from optuna.artifacts import FileSystemArtifactStore
import pytest
from zygote import Zygote

from optuna_quant import _optuna
from optuna_quant.backends.base import SharesParts
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.weight_only import weights
from optuna_quant.evaluation import shared_parts
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.shared_parts import StudyParts
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.blobs import stored_bytes


OPS = ("MatMul0", "MatMul1")


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=url(tmp_path), study_name="s")


def products() -> OnnxRuntimeBackend:
    b = Maker()
    h = b.node("MatMul", [b.input("x", ["n", 48]), b.weight(48, 40)])
    model = b.model([b.node("MatMul", [b.node("Relu", [h]), b.weight(40, 8)])])
    backend = OnnxRuntimeBackend(
        model, approach="weight_only", calibration_data={"x": samples(20, 48)}
    )
    backend.tuning_space()
    return backend


def in_algorithm(algorithm: str) -> QuantConfig:
    option = OpConfig.from_label(f"weight_only w=int4/asym/per_group=32/{algorithm} level=4")
    return QuantConfig(dict.fromkeys(OPS, option))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the algorithm of each weight that is quantized."""
    found: list[str] = []
    quantize = weights.quantize_grouped

    def counted(*args: Any, **options: Any) -> Any:
        found.append(options["algorithm"])
        return quantize(*args, **options)

    monkeypatch.setattr(weights, "quantize_grouped", counted)
    return found


def fingerprint(study: optuna.Study, algorithm: str, **options: Any) -> str:
    """That of a candidate of a new backend object, as a trial of another worker builds it."""
    backend, config = products(), in_algorithm(algorithm)
    share_calibration(study, backend, config=config, **options)
    return backend.fingerprint(config)


def test_the_backend_shares_parts() -> None:
    assert isinstance(products(), SharesParts)


@pytest.mark.parametrize("algorithm", ["gptq", "awq", "hqq"])
def test_a_second_backend_computes_none(
    study: optuna.Study, computed: list[str], algorithm: str
) -> None:
    alone = products().fingerprint(in_algorithm(algorithm))
    computed.clear()
    assert {fingerprint(study, algorithm) for _ in range(3)} == {alone}
    assert computed == [algorithm] * len(OPS)


def test_what_is_quick_is_not_shared(study: optuna.Study, computed: list[str]) -> None:
    assert len({fingerprint(study, "rtn") for _ in range(2)}) == 1
    assert len(computed) == 2 * len(OPS)
    assert not any("weight:" in name for name in _optuna.study_system_attrs(study))


def count_in_another_process(folder: str) -> None:
    """Write down the fingerprint that a worker gets, and how many weights it has quantized."""
    computed = []
    quantize = weights.quantize_grouped

    def counted(*args: Any, **options: Any) -> Any:
        computed.append(1)
        return quantize(*args, **options)

    weights.quantize_grouped = counted  # type: ignore[assignment]
    study = optuna.load_study(storage=url(Path(folder)), study_name="s")
    text = fingerprint(study, "gptq")
    (Path(folder) / f"found-{os.getpid()}").write_text(f"{text} {len(computed)}")


def test_two_processes_compute_each_weight_once(
    study: optuna.Study, zygote: Zygote, tmp_path: Path
) -> None:
    worker = "evaluation.test_shared_parts:count_in_another_process"
    workers = [zygote.start(worker, folder=str(tmp_path)) for _ in range(2)]
    assert zygote.join(*workers) == [0, 0]
    found = [path.read_text().split() for path in tmp_path.glob("found-*")]
    assert len(found) == 2
    assert len({text for text, _ in found}) == 1
    assert sum(int(number) for _, number in found) == len(OPS)


def test_large_weights_go_to_the_store(
    study: optuna.Study, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_parts, "LARGEST_PART", 100)
    fingerprint(study, "hqq")
    fingerprint(study, "hqq")
    assert len(computed) == 2 * len(OPS)  # Without a store each worker computes its own.
    assert stored_bytes(_optuna.study_system_attrs(study), "part:") == 0
    computed.clear()
    store = FileSystemArtifactStore(tmp_path)
    assert len({fingerprint(study, "hqq", artifact_store=store) for _ in range(3)}) == 1
    assert len(computed) == len(OPS)


def test_an_artifact_that_is_gone_is_computed_again(
    study: optuna.Study, computed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_parts, "LARGEST_PART", 100)
    folder = tmp_path / "store"
    folder.mkdir()
    store = FileSystemArtifactStore(folder)
    first = fingerprint(study, "hqq", artifact_store=store)
    for file in folder.iterdir():
        file.unlink()
    with pytest.warns(UserWarning, match="artifact .* cannot be read from the artifact store"):
        assert fingerprint(study, "hqq", artifact_store=store) == first
    assert len(computed) == 2 * len(OPS)


def test_a_study_holds_no_more_than_a_limit(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_parts, "MOST_IN_STUDY", 20_000)
    rng = np.random.default_rng(0)
    data = [rng.bytes(6_000) for _ in range(9)]
    calls: list[int] = []

    def compute(number: int) -> bytes:
        calls.append(number)
        return data[number]

    for _ in range(2):
        parts = StudyParts(study)
        for number in range(9):
            found = parts.get(f"n{number}", lambda n=number: compute(n), nbytes=6_000)  # type: ignore[misc]
            assert found == data[number]
    # As strings they take a third more.
    assert stored_bytes(_optuna.study_system_attrs(study), "part:") < 27_000
    assert sorted(calls) == sorted([*range(9), *range(2, 9)])


def test_in_memory_nothing_is_shared(computed: list[str]) -> None:
    study = optuna.create_study()
    fingerprint(study, "hqq")
    fingerprint(study, "hqq")
    assert len(computed) == 2 * len(OPS)
