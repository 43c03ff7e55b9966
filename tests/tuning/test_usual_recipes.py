"""Recipes in searches of which the user leaves open which recipes are tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


pytest.importorskip("onnxruntime")

import numpy as np
import onnx
import onnx_models
import optuna

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli.parser import main
from optuna_quant.tuning.strategies import strategies
from optuna_quant.tuning.strategies import tunes_recipes
from optuna_quant.tuning.usual_recipes import started_with
from optuna_quant.tuning.usual_recipes import with_usual


SAMPLES = onnx_models.samples(300, 2, 8, 8)
CALIBRATION = SAMPLES[:64]
MAY_EQUALIZE = {"equalization": ("off", "on")}


def uneven_net() -> onnx.ModelProto:
    """Three convolutions, the one in the middle depthwise, with channels of unequal size."""
    m = onnx_models.Maker(seed=7)
    h = m.input("x", ["N", 2, 8, 8])
    unequal = np.array([30.0, 1.0, 0.03, 5.0], np.float32)
    for group, inputs in ((1, 2), (4, 1)):
        weight = m.rng.standard_normal((4, inputs, 3, 3)).astype(np.float32)
        weight *= unequal.reshape(-1, 1, 1, 1)
        names = [h, m.const(weight), m.const(unequal)]
        h = m.node("Relu", [m.node("Conv", names, group=group)])
        unequal = 1 / unequal
    h = m.node("GlobalAveragePool", [m.conv(h, 4, 5, kernel=(1, 1))])
    return m.model([m.node("Flatten", [h])])


MODEL = uneven_net()


def closeness(session: Any) -> float:
    """How near a model comes to the FP32 one, from 1 down."""
    (found,) = session.run(None, {"x": SAMPLES})
    return 1 - float(np.abs(found - _EXACT).mean() / np.abs(_EXACT).mean())


_EXACT = (
    OnnxRuntimeBackend(MODEL, approach="dynamic")
    .quantize(optuna_quant.QuantConfig({}))
    .run({"x": SAMPLES})[0]
)


def tune(
    strategy: str = "auto",
    *,
    tolerance: float = 0.02,
    max_trials: int = 100,
    strategy_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> TuningResult:
    with onnx_models.exact_products():
        return optuna_quant.tune(
            MODEL,
            calibration_data=CALIBRATION,
            evaluate=closeness,
            accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=tolerance),
            tuning_criterion=TuningCriterion(
                strategy=strategy,
                objective="ops",
                max_trials=max_trials,
                strategy_kwargs=strategy_kwargs,
            ),
            measure_gain=False,
            verify=False,
            **kwargs,
        )


def test_what_equalization_cures_takes_three_trials() -> None:
    result = tune()
    assert result.met
    assert result.config is not None
    assert dict(result.config.recipes) == {"equalization": "on"}
    assert not result.config.fallback_ops
    assert len(result.study.trials) == 3
    assert "recipes: equalization=on" in result.summary()


def test_where_the_first_configuration_will_do_no_recipe_is_tried() -> None:
    result = tune(tolerance=0.9)
    assert result.met
    assert dict(result.space.recipes) == MAY_EQUALIZE
    assert len(result.study.trials) == 2
    assert "recipes" not in result.summary()


def test_a_strategy_without_a_place_for_recipes_names_the_one_that_would_help() -> None:
    result = tune("random", max_trials=1)
    assert not result.met
    assert not result.space.recipes
    assert "not searched: recipes equalization, " in result.summary()
    assert "equalization" not in tune(max_trials=1).other_recipes


def test_the_help_names_the_strategies_that_tune_recipes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tune", "--help-all"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    named = said.partition("(default: auto for the strategies ")[2].partition(", otherwise")[0]
    ours = {n for n, cls in strategies().items() if cls.__module__.startswith("optuna_quant.")}
    assert set(named.replace(" and ", ", ").split(", ")) == {
        n for n in ours if tunes_recipes(n, {})
    }


def test_none_are_tuned_if_the_user_says_so() -> None:
    result = tune(recipes="none")
    assert not result.space.recipes
    assert len(result.study.trials) > 3


@pytest.mark.parametrize(
    ("recipes", "found"),
    [
        ({"weight_correction": True}, {**MAY_EQUALIZE, "weight_correction": ("on",)}),
        ({"equalization": False}, {"equalization": ("off",)}),
        ({"equalization": None}, MAY_EQUALIZE),
        ({"all": False, "weight_correction": True}, {"weight_correction": ("on",)}),
        (["weight_correction"], {"weight_correction": ("off", "on")}),
        ("auto", MAY_EQUALIZE),
    ],
)
def test_what_a_user_fixes_is_not_tuned_and_the_others_are(
    recipes: Any, found: dict[str, tuple[str, ...]]
) -> None:
    assert dict(tune(recipes=recipes, tolerance=0.9).space.recipes) == found


def test_strategies_without_a_place_for_recipes_tune_those_that_are_asked_for() -> None:
    assert not tune("conservative", max_trials=1).space.recipes
    assert dict(tune("basic", max_trials=1).space.recipes) == MAY_EQUALIZE
    inc2 = {"compat": "inc2"}
    assert not tune("basic", max_trials=1, strategy_kwargs=inc2).space.recipes
    fixed = {"weight_correction": True}
    assert dict(tune("random", max_trials=1, recipes=fixed).space.recipes) == {
        "weight_correction": ("on",)
    }
    assert dict(tune("random", max_trials=1, recipes="auto").space.recipes) == MAY_EQUALIZE


@pytest.mark.parametrize(
    ("first", "then", "recipes"),
    [
        ({}, {"strategy": "conservative"}, MAY_EQUALIZE),
        ({"strategy": "conservative"}, {}, {}),
        ({"recipes": "none"}, {}, {}),
    ],
)
def test_a_study_that_was_started_keeps_its_recipes(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any], recipes: dict[str, Any]
) -> None:
    journal = tmp_path / "study.journal"
    started = tune(storage=journal, max_trials=2, **first)
    tried = len(started.study.trials)
    further = tune(storage=journal, max_trials=4, **then)
    assert dict(further.space.recipes) == dict(started.space.recipes) == recipes
    assert len(further.study.trials) > tried


def test_what_a_user_says_of_recipes_must_fit_a_study_that_is_continued(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    tune(storage=journal, max_trials=2)
    with pytest.raises(ValueError, match="recipe"):
        tune(storage=journal, max_trials=2, recipes="none")


def test_the_study_of_another_space_changes_nothing() -> None:
    space = OnnxRuntimeBackend(MODEL, calibration_data=CALIBRATION, recipes="auto").tuning_space()
    assert started_with(optuna.create_study(), (space, space.group(all=["Conv.*"]))) is space


def test_given_sensitivities_say_nothing_of_recipes(tmp_path: Path) -> None:
    table = optuna_quant.sensitivity(MODEL, calibration_data=CALIBRATION)
    assert not tune(sensitivities=table, max_trials=2).space.recipes


def test_a_backend_that_is_given_has_its_own() -> None:
    backend = OnnxRuntimeBackend(MODEL, calibration_data=CALIBRATION)
    result = optuna_quant.tune(
        backend=backend,
        evaluate=closeness,
        tuning_criterion=TuningCriterion(max_trials=1, objective="ops"),
        measure_gain=False,
    )
    assert not result.space.recipes


def test_what_was_found_is_built_again(tmp_path: Path) -> None:
    journal, report, json = (tmp_path / name for name in ("s.journal", "r.csv", "c.json"))
    result = tune(storage=journal)
    assert result.config is not None
    result.report().to_csv(report, index=False)
    json.write_text(result.config.to_json())
    given: dict[str, Any] = {"calibration_data": CALIBRATION}
    expected = result.model().fingerprint
    for config in (result.config, json, report):
        built = optuna_quant.quantize(MODEL, config=config, **given)
        assert built.model().fingerprint == expected
    exported = optuna_quant.export(MODEL, storage=journal, **given)
    assert exported.model().fingerprint == expected


def test_the_report_of_a_search_without_recipes_has_no_column_for_them(tmp_path: Path) -> None:
    report = tune(tolerance=0.9).report()
    assert "recipes" not in report.columns
    frame = tune().report()
    assert set(frame["recipes"]) == {'{"equalization": "on"}'}
    frame.loc[0, "recipes"] = '{"equalization": "off"}'
    frame.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(ValueError, match="line 3: other recipes than before"):
        optuna_quant.quantize(MODEL, config=tmp_path / "r.csv", calibration_data=CALIBRATION)
    frame["recipes"] = "on"
    frame.to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(ValueError, match="line 2: recipes cannot be read"):
        optuna_quant.quantize(MODEL, config=tmp_path / "r.csv", calibration_data=CALIBRATION)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (None, "auto"),
        ("none", "none"),
        ([], []),
        ({"equalization": True}, {"auto": True, "equalization": True}),
        ({"all": True}, {"all": True}),
    ],
)
def test_what_the_backend_is_asked_for(given: Any, asked: Any) -> None:
    assert with_usual(given) == asked
