"""The graphs that recipes make are calibrated by one worker of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import samples
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.shared_calibration import take_calibration
from optuna_quant.space.config import QuantConfig


DATA = samples(48, 12) * np.geomspace(1, 50, 12, dtype=np.float32)
RECIPES = ["equalization", "smooth_quant"]


def products() -> onnx.ModelProto:
    """A normalization, which takes factors in, before one product; GELU before the other."""
    m = Maker(seed=3)
    scale, shift = m.const(np.ones(12, np.float32)), m.const(np.zeros(12, np.float32))
    h = m.node("LayerNormalization", [m.input("x", ["N", 12]), scale, shift])
    h = m.node("Add", [m.node("MatMul", [h, m.weight(12, 16)]), m.weight(16)])
    h = m.node("Relu", [m.node("MatMul", [m.node("Sigmoid", [h]), m.weight(16, 8)])])
    return m.model([m.node("Gemm", [h, m.weight(8, 4), m.weight(4)])])


def backend_of(**options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        products(),
        calibration_data=[{"x": DATA[:20]}, {"x": DATA[20:]}],
        session_options=exact_options(),
        **{"recipes": RECIPES, **options},
    )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each pass over the data, but those that only tell data apart."""
    found: list[int] = []
    pieces, fingerprints = CalibrationData.pieces, CalibrationData.fingerprints

    def counted(self: CalibrationData, sizes: Any) -> Any:
        found.append(1)
        return pieces(self, sizes)

    def uncounted(self: CalibrationData, sizes: Any) -> Any:
        with monkeypatch.context() as m:
            m.setattr(CalibrationData, "pieces", pieces)
            return fingerprints(self, sizes)

    monkeypatch.setattr(CalibrationData, "pieces", counted)
    monkeypatch.setattr(CalibrationData, "fingerprints", uncounted)
    return found


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")


def config_of(backend: OnnxRuntimeBackend, **recipes: str) -> QuantConfig:
    config = backend.tuning_space().default()
    for name, value in recipes.items():
        config = config.with_recipe(name, value)
    return config


@pytest.mark.parametrize(
    "recipes",
    [
        {"equalization": "on"},
        {"smooth_quant": "alpha=0.5"},
        {"smooth_quant": "alpha=auto"},
        {"equalization": "on", "smooth_quant": "alpha=0.75, folding=false"},
    ],
)
def test_the_second_worker_takes_no_pass(
    recipes: dict[str, str], study: optuna.Study, passes: list[int]
) -> None:
    found = set()
    for number in range(3):
        backend = backend_of()
        config = config_of(backend, **recipes)
        before = len(passes)
        if number < 2:
            share_calibration(study, backend, config=config)
        else:
            take_calibration(study, backend, config)
        found.add(backend.fingerprint(config))
        assert (len(passes) > before) == (number == 0)
    alone = backend_of()
    assert found == {alone.fingerprint(config_of(alone, **recipes))}


def test_values_and_sizes_of_recipes_are_told_apart(study: optuna.Study) -> None:
    backend = backend_of(calibration_sizes=[48, 8])
    configs = [
        config_of(backend, smooth_quant=value).with_calibration_size(size)
        for value in ("alpha=0.5", "alpha=0.75")
        for size in (48, 8)
    ]
    keys = {part.calibration_key() for c in configs for part in backend.calibrations_for(c)}
    assert len(keys | {backend.calibration_key()}) == 5


def test_a_recipe_that_is_fixed_is_shared_with_the_ranges(
    study: optuna.Study, passes: list[int]
) -> None:
    found = set()
    for _ in range(2):
        backend = backend_of(recipes={"smooth_quant": "alpha=0.5"})
        share_calibration(study, backend)
        config = config_of(backend)
        assert not list(backend.calibrations_for(config))
        found.add(backend.fingerprint(config))
    assert len(found) == 1
    assert len(passes) == 2  # For the factors, and for the ranges.


def test_what_was_calibrated_meanwhile_is_put_into_the_study(
    study: optuna.Study, passes: list[int]
) -> None:
    first, second = backend_of(), backend_of()
    config = config_of(first, smooth_quant="alpha=0.5")
    first.quantize(config)  # As sensitivities do.
    before, kept = len(passes), set[str]()
    for _ in range(2):
        share_calibration(study, first, config=config, kept=kept)
    assert len(kept) == 1
    share_calibration(study, second, config=config)
    assert second.fingerprint(config) == first.fingerprint(config)
    # That of the user's graph, by one of them.
    assert len(passes) == before + 1


@pytest.mark.parametrize("damage", [slice(0, 0), slice(0, -5), slice(5, None)])
def test_damaged_bytes_are_refused(damage: slice, passes: list[int]) -> None:
    backend, other = backend_of(), backend_of()
    config = config_of(backend, smooth_quant="alpha=0.5")
    (part,), (taken,) = backend.calibrations_for(config), other.calibrations_for(config)
    data = part.export_calibration()
    with pytest.raises(ValueError, match=r"damaged|not calibration statistics"):
        taken.import_calibration(data[damage])
    assert not taken.is_calibrated()
    (another,) = other.calibrations_for(config.with_recipe("smooth_quant", "alpha=0.75"))
    with pytest.raises(ValueError, match="another model, data or recipes"):
        another.import_calibration(data)
    before = len(passes)
    taken.import_calibration(data)
    assert taken.is_calibrated()
    assert taken.export_calibration() == data
    assert len(passes) == before


def test_a_search_that_is_continued_takes_no_pass(
    tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is only looked at runs through no model.
    monkeypatch.setattr(OnnxRuntimeBackend, "calibration_preview", lambda *_: None)
    exact = backend_of().quantize(QuantConfig({})).run({"x": DATA})[0]

    def score(session: Any) -> float:
        return -float(np.square(session.run(None, {"x": DATA})[0] - exact).mean())

    def search(**options: Any) -> Any:
        return tune(
            products(),
            evaluate=score,
            calibration_data=[{"x": DATA[:20]}, {"x": DATA[20:]}],
            session_options=exact_options(),
            accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.0),
            storage=f"sqlite:///{tmp_path / 'study.db'}",
            recipes={"smooth_quant": [False, True]},
            objective="ops",
            strategy="random",
            seed=1,
            measure_gain=False,
            verify=False,
            **options,
        )

    first = search(max_trials=7)
    assert {t.params.get("quant.recipe:smooth_quant") for t in first.study.trials} >= {
        "off",
        "alpha=0.5",
    }
    trials, before = len(first.study.trials), len(passes)
    assert before
    assert len(search(max_trials=12).study.trials) > trials
    assert len(passes) == before
