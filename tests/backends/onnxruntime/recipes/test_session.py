"""How far the graphs of candidates are optimized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx_models import convnet
from onnx_models import samples
import onnxruntime as ort
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.backends.onnxruntime.recipes.session import LEVELS
from optuna_quant.space.config import QuantConfig


NAME = "graph_optimization_level"
DATA = samples(16, 2, 8, 8)


def config_of(backend: OnnxRuntimeBackend, level: str) -> QuantConfig:
    return QuantConfig(backend.tuning_space().default().ops, {NAME: level})


@pytest.mark.parametrize("own_options", [False, True])
def test_sessions_of_candidates_have_the_level(own_options: bool) -> None:
    options = ort.SessionOptions() if own_options else None
    backend = OnnxRuntimeBackend(convnet(), calibration_data=DATA, session_options=options)
    fingerprints = set()
    for level, expected in LEVELS.items():
        model = backend.quantize(config_of(backend, level))
        assert model.session.get_session_options().graph_optimization_level == expected
        fingerprints.add(model.fingerprint)
        # From the extended level on, the runtime makes integer kernels of Q/DQ pairs.
        executed = backend.executed(config_of(backend, level))
        is_integer = level in ("enable_extended", "enable_all")
        assert {op.integer for op in executed.values()} == {is_integer}
    default = backend.quantize(config_of(backend, "default"))
    assert len({default.fingerprint, *fingerprints}) == 5
    usual = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert default.session.get_session_options().graph_optimization_level == usual
    if options is not None:
        assert options.graph_optimization_level == usual


def test_the_fp32_model_has_no_level() -> None:
    backend = OnnxRuntimeBackend(convnet(), calibration_data=DATA)
    fp32 = backend.quantize(QuantConfig({}, {NAME: "disable_all"}))
    assert fp32.fingerprint == backend.fingerprint(QuantConfig({}))


def test_the_file_names_the_level_where_the_runtime_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OnnxRuntimeBackend(convnet(), calibration_data=DATA)
    outputs = {}
    for level in ("default", "disable_all"):
        model = backend.quantize(config_of(backend, level))
        model.save(tmp_path / f"{level}.onnx")
        outputs[level] = model.run({"x": DATA})[0]
    # In floats and in integers the roundings differ.
    assert not np.array_equal(outputs["default"], outputs["disable_all"])
    for asked, expected in (("0", "default"), ("1", "disable_all")):
        monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", asked)
        session = ort.InferenceSession(tmp_path / "disable_all.onnx")
        np.testing.assert_array_equal(session.run(None, {"x": DATA})[0], outputs[expected])


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("ENABLE_BASIC", ("enable_basic",)),
        (ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, ("enable_extended",)),
        (["disable_all", "default"], ("default", "disable_all")),
    ],
)
def test_levels_as_users_write_them(given: object, values: tuple[str, ...]) -> None:
    assert requested_recipes({NAME: given}).values == {NAME: values}


@pytest.mark.parametrize("given", [True, False, "most"])
def test_what_is_no_level_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=f"recipes: {NAME}: there is no value .*'enable_basic'"):
        requested_recipes({NAME: given})
