"""Searches in which recipes of the backend are tried."""

from __future__ import annotations

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
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.trial_view import TrialView


DATA = {"x": samples(64, 2, 8, 8)}


def depthwise_net() -> onnx.ModelProto:
    """Three convolutions, the one in the middle depthwise, with channels of unequal size."""
    m = Maker(seed=7)
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


def make_backend(**options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        depthwise_net(), calibration_data=DATA, session_options=exact_options(), **options
    )


def searched(backend: OnnxRuntimeBackend, **options: Any) -> optuna.Study:
    """A search by the basic strategy for the least error, until nothing is left."""
    space = backend.tuning_space()
    exact = backend.quantize(space.fp32()).run(DATA)[0]

    def error(config: QuantConfig) -> float:
        return float(np.square(backend.quantize(config).run(DATA)[0] - exact).mean())

    sampler = BasicQuantSampler(space, **options)
    study = optuna.create_study(sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(lambda trial: error(space.suggest(trial)), n_trials=1)
    return study


def by_stage(study: optuna.Study, stage: str) -> list[tuple[str, ...]]:
    """The values of the recipes of the trials of a stage."""
    return [
        tuple(str(v) for name, v in trial.params.items() if ".recipe:" in name)
        for trial in study.trials
        if TrialView(trial).stage == stage
    ]


def test_basic_tries_all_recipes_together_and_one_by_one() -> None:
    study = searched(make_backend(recipes=["equalization", "smooth_quant"]))
    assert by_stage(study, "all recipes") == [("on", "alpha=auto")]
    (best,) = by_stage(study, "all recipes")
    singles = by_stage(study, "recipes one by one")
    # Those that differ from the best so far in one recipe, or from the default.
    assert ("off", "alpha=auto") in singles or ("on", "off") in singles
    assert len(set(singles)) == len(singles)
    fallback = by_stage(study, "instance-wise fallback")
    assert fallback
    assert set(fallback) != {("off", "off")}, best


def test_a_list_of_alphas_that_is_used_up_does_not_end_the_search() -> None:
    recipes = {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.4, 0.6]}}
    study = searched(make_backend(recipes=recipes))
    tried = {trial.params["quant.recipe:smooth_quant"] for trial in study.trials}
    assert tried == {"alpha=0.4", "alpha=0.6"}
    assert by_stage(study, "instance-wise fallback")


@pytest.mark.slow
def test_the_default_strategy_takes_the_recipe_that_the_model_needs() -> None:
    backend = make_backend(recipes="all")
    exact = backend.quantize(QuantConfig({})).run(DATA)[0]

    def agreement(model: Any) -> float:
        found = model.run(None, DATA)[0]
        return 1 - float(np.abs(found - exact).mean() / np.abs(exact).mean())

    result = tune(
        evaluate=agreement,
        backend=backend,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.02),
        objective="ops",
        measure_gain=False,
    )
    assert result.met
    assert result.config is not None
    assert result.config.recipes["equalization"] == "on"
    assert not result.config.fallback_ops
    assert len(result.study.trials) == 3
    assert "equalization=on" in result.summary()


def test_recipes_belong_to_the_backend_that_is_given() -> None:
    with pytest.raises(ValueError, match="recipes: this belongs to the backend"):
        tune(evaluate=lambda model: 1.0, backend=make_backend(), recipes="all")


def test_tune_takes_recipes_and_refuses_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no recipe 'smoothquant'. Did you mean 'smooth_quant'"):
        tune(
            depthwise_net(),
            calibration_data=DATA,
            evaluate=lambda model: 1.0,
            recipes=["smoothquant"],
        )


def test_exit_policy_is_not_disturbed_by_recipes() -> None:
    backend = make_backend(recipes={"equalization": True})
    space = backend.tuning_space()
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=1.0)
    sampler = BasicQuantSampler(space, criterion=criterion)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(
        lambda trial: 1.0 - 0.001 * len(space.suggest(trial).quantized_ops),
        n_trials=20,
        callbacks=[ExitPolicy(criterion)],
    )
    assert len(study.trials) == 2
