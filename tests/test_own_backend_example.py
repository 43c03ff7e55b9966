"""The backend of the examples is one, by the tests that any backend can run, and is searched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sys

import numpy as np
import optuna
import pytest

from optuna_quant import QuantConfig
from optuna_quant.testing import BackendTestCase
from optuna_quant.testing import CalibrationTestCase
from optuna_quant.testing import CompilingTestCase
from optuna_quant.testing import CostsTestCase
from optuna_quant.testing import ModelTestCase
from optuna_quant.testing import SensitivityTestCase
from optuna_quant.testing import SimulationTestCase
from optuna_quant.testing import TrainingTestCase
from optuna_quant.testing import TuningTestCase


EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import own_backend  # noqa: E402 (it is no package)


MOST_LINES = 270  # It is there to be read.


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the network."""
    path = tmp_path_factory.mktemp("network") / "fp32.npz"
    own_backend.network().save(path)
    return path


class TestOwnBackend(
    BackendTestCase,
    ModelTestCase,
    CalibrationTestCase,
    SensitivityTestCase,
    CompilingTestCase,
    CostsTestCase,
    SimulationTestCase,
    TrainingTestCase,
    TuningTestCase,
):
    @pytest.fixture
    def make_backend(self, path: Path) -> Callable[[], own_backend.DenseBackend]:
        images, _ = own_backend.images_and_digits("calib.npz")
        return lambda: own_backend.DenseBackend(path, images)

    @pytest.fixture
    def make_other_backend(self, path: Path) -> Callable[[], own_backend.DenseBackend]:
        images, _ = own_backend.images_and_digits("calib.npz")
        return lambda: own_backend.DenseBackend(path, images[:100] / 2)


def test_the_search_mixes_bits(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    result = own_backend.main()
    optuna.logging.set_verbosity(before)
    assert result.met and result.objective == "size"
    assert result.config is not None
    assert set(result.config.ops.values()) == {own_backend.INT8, own_backend.INT4}
    assert result.model().nbytes < own_backend.network().nbytes / 5
    assert "uint8" in capsys.readouterr().out


@pytest.mark.parametrize("option", [own_backend.INT8, own_backend.INT4], ids=["int8", "int4"])
def test_integers_give_what_rounded_floats_give(path: Path, option: own_backend.OpConfig) -> None:
    images, _ = own_backend.images_and_digits("calib.npz")
    backend = own_backend.DenseBackend(path, images)
    found = backend.quantize(QuantConfig({"first": option})).values(images)["second"]
    weight = own_backend.network().layers["first"]["weight"]
    scale = np.abs(weight).max() / (2 ** (option.weight.bits - 1) - 1)
    step = images.max() / 255
    rounded = (np.round(images / step) * step) @ (np.round(weight / scale) * scale)
    np.testing.assert_allclose(found, np.maximum(rounded, 0), atol=1e-3)


def test_it_is_short() -> None:
    assert len((EXAMPLES / "own_backend.py").read_text().splitlines()) <= MOST_LINES
