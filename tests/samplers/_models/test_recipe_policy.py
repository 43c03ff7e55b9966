"""The surrogate strategy in spaces with recipes: which it tries, and with which it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import math
from typing import Any

import optuna
import pytest
from samplers.simulated import CRITERION
from samplers.simulated import SimulatedModel
from samplers.simulated import configs_of
from samplers.simulated import searched
from samplers.simulated import stages_of

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import study_prior
from optuna_quant.space.config import QuantConfig


RECIPES = {"level": ("off", "on"), "smooth": ("off", "a", "b"), "other": (False, True)}


class RecipeModel(SimulatedModel):
    """A model that loses less with recipes.

    Args:
        factors:
            What a value of a recipe makes of the losses; 1 if it is not there.
        promised:
            What sensitivities say of it, where that is something else.
        **kwargs:
            See :class:`SimulatedModel`.
    """

    def __init__(
        self,
        factors: Mapping[str, float],
        promised: Mapping[str, float] | None = None,
        *,
        recipes: Mapping[str, tuple[Any, ...]] = RECIPES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"ops": 10, "hard": 2, **kwargs})
        self.space = replace(self.space, recipes=recipes)
        self.factors = factors
        self.promised = {**factors, **(promised or {})}
        self.scored: list[QuantConfig] = []

    def loss(self, config: QuantConfig) -> float:
        total = sum(self.losses[op][option.label] for op, option in config.ops.items())
        return self.curve(total * _factor(config, self.factors)) if config.quantized_ops else 0.0

    def sensitivity(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        self.scored.append(config)
        factor = _factor(config, self.promised)
        return {op: factor * score for op, score in super().sensitivity(config, ops).items()}


def _factor(config: QuantConfig, factors: Mapping[str, float]) -> float:
    found = 1.0
    for name, value in config.recipes.items():
        found *= factors.get(f"{name}={value}", 1.0)
    return found


def recipes_of(study: optuna.Study, model: SimulatedModel) -> list[str]:
    """What is not the default in the recipes of each trial but that of FP32."""
    default = model.space.default().recipes
    return [
        " ".join(f"{n}={v}" for n, v in config.recipes.items() if v != default[n])
        for config in configs_of(study, model.space)
    ]


def test_the_cheapest_comes_first_and_where_it_will_do_no_recipe_is_looked_at() -> None:
    model = RecipeModel({"level=on": 0.1}, hard=0, easy=0.002)
    study = searched(model.sampler(), model.metric)
    assert stages_of(study) == ["baseline", "cheapest to start with"]
    assert not model.scored


def test_a_recipe_that_cures_all_takes_one_more_trial() -> None:
    model = RecipeModel({"level=on": 0.01})
    sampler = model.sampler()
    study = searched(sampler, model.metric)
    assert stages_of(study) == ["baseline", "cheapest to start with", "cheapest with recipes"]
    assert recipes_of(study, model) == ["", "level=on"]
    first, last = configs_of(study, model.space)
    assert first.ops == last.ops
    assert sampler.is_answer(study, study.trials[2])
    assert not sampler.is_answer(study, study.trials[1])


def test_the_search_goes_on_with_a_recipe_that_lost_less() -> None:
    model = RecipeModel({"level=on": 0.3}, easy=0.02)
    study = searched(model.sampler(), model.metric)
    found = recipes_of(study, model)
    assert found[0] == ""
    assert set(found[1:]) == {"level=on"}
    met = [c for c in configs_of(study, model.space) if model.loss(c) <= 0.01 and c.quantized_ops]
    plain = RecipeModel({}, easy=0.02)
    assert min(map(model.table.cost, met)) < plain.least_cost()
    eased = model.least_cost(tolerance=0.01 / 0.3)
    assert min(map(model.table.cost, met)) <= 1.1 * eased


def test_it_goes_on_without_a_recipe_that_does_not_keep_its_promise() -> None:
    model = RecipeModel({"level=on": 3.0}, {"level=on": 0.1})
    study = searched(model.sampler(), model.metric)
    assert recipes_of(study, model).count("level=on") == 1
    met = [c for c in configs_of(study, model.space) if model.loss(c) <= 0.01 and c.quantized_ops]
    assert min(map(model.table.cost, met)) <= 1.1 * model.least_cost()


def test_what_promises_little_is_not_tried() -> None:
    model = RecipeModel({"level=on": 0.85, "smooth=a": 1.5})
    study = searched(model.sampler(), model.metric)
    assert set(recipes_of(study, model)) == {""}


def test_without_sensitivities_recipes_keep_their_defaults() -> None:
    model = RecipeModel({"level=on": 0.01})
    study = searched(model.sampler(sensitivity=None), model.metric)
    assert set(recipes_of(study, model)) == {""}


@pytest.mark.parametrize(
    ("factors", "chosen"),
    [
        ({"smooth=a": 0.15, "smooth=b": 0.1}, "smooth=a"),  # About as good, and first.
        ({"smooth=a": 0.5, "smooth=b": 0.1}, "smooth=b"),
        ({"level=on": 0.3, "smooth=b": 0.7}, "level=on smooth=b"),
        ({"level=on": 0.3, "smooth=b": 0.95}, "level=on"),  # That may be noise.
        ({"level=on": 0.85, "smooth=b": 0.85}, "level=on smooth=b"),  # Together worth a trial.
        ({"other=True": 0.2}, "other=True"),
    ],
)
def test_which_recipes_that_cost_nothing_are_chosen(
    factors: Mapping[str, float], chosen: str
) -> None:
    model = RecipeModel(factors)
    study = searched(model.sampler(), model.metric)
    assert recipes_of(study, model)[1] == chosen


@pytest.mark.parametrize(
    ("factors", "chosen"),
    [
        ({"level=on": 0.75}, "level=on"),
        ({"level=on": 0.3, "smooth=b": 0.4}, "level=on smooth=b"),  # Another halves the rest.
        ({"level=on": 0.3, "smooth=b": 0.7}, "level=on"),
        ({"level=on": 0.85, "smooth=b": 0.85}, ""),
        ({"level=on": 0.3, "other=True": 0.7}, "level=on other=True"),  # That one is free.
    ],
)
def test_which_recipes_that_cost_something_are_chosen(
    factors: Mapping[str, float], chosen: str
) -> None:
    model = RecipeModel(factors)
    prices = {"level": {"on": 1.0}, "smooth": {"a": 1.0, "b": 1.0}}
    model.table = replace(model.table, recipes=prices)
    study = searched(model.sampler(), model.metric)
    assert recipes_of(study, model)[1] == chosen


def test_a_recipe_that_takes_more_than_quantization_gives_is_not_tried() -> None:
    model = RecipeModel({"level=on": 0.01, "other=True": 0.5})
    price = model.table.cost(model.space.fp32())
    model.table = replace(model.table, recipes={"level": {"on": price}})
    study = searched(model.sampler(), model.metric)
    assert set(recipes_of(study, model)) == {"", "other=True"}


def test_what_recipes_cost_counts_when_the_cheapest_is_looked_for() -> None:
    model = RecipeModel({"level=on": 0.3}, easy=0.02)
    price = 0.9 * (model.table.cost(model.space.fp32()) - model.least_cost(tolerance=math.inf))
    model.table = replace(model.table, recipes={"level": {"on": price}})
    study = searched(model.sampler(), model.metric)
    costs = [model.table.cost(config) for config in configs_of(study, model.space)]
    assert "level=on" in recipes_of(study, model)
    # With it hardly anything but what quantizes nearly all ops is cheaper than FP32.
    assert max(costs) <= model.table.cost(model.space.fp32())


def priced(share: float) -> RecipeModel:
    """A model that a recipe cures, at a share of what quantizing all ops saves."""
    model = RecipeModel({"level=on": 0.01}, easy=0.0002)
    price = share * (model.table.cost(model.space.fp32()) - model.least_cost(tolerance=math.inf))
    model.table = replace(model.table, recipes={"level": {"on": price}})
    return model


def test_after_a_recipe_with_a_price_what_is_cheaper_without_it_is_tried() -> None:
    model = priced(0.6)
    sampler = model.sampler()
    study = searched(sampler, model.metric)
    stages = stages_of(study)
    assert stages[:3] == ["baseline", "cheapest to start with", "cheapest with recipes"]
    assert stages[3] == "cheapest believed to meet"
    tried = configs_of(study, model.space)
    met = [config for config in tried if model.loss(config) <= 0.01]
    answers = {
        config.key
        for trial, config in zip(study.trials[1:], tried, strict=True)
        if config in met and sampler.is_answer(study, trial)
    }
    assert answers == {min(met, key=model.table.cost).key}
    assert tried[1].key not in answers  # The one with the recipe.
    assert set(recipes_of(study, model)[2:]) == {""}


def test_a_recipe_whose_price_is_less_than_any_fallback_ends_the_search() -> None:
    model = priced(0.02)
    sampler = model.sampler()
    study = searched(sampler, model.metric)
    stages = stages_of(study)
    assert stages == ["baseline", "cheapest to start with", "cheapest with recipes"]
    assert sampler.is_answer(study, study.trials[2])


def test_a_search_that_is_interrupted_goes_on_as_it_would_have() -> None:
    model = RecipeModel({"level=on": 0.3}, easy=0.02)
    whole = searched(model.sampler(), model.metric)
    study = optuna.create_study(direction="maximize")
    for _ in whole.trials:
        study.sampler = model.sampler()
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
    assert [t.params for t in study.trials] == [t.params for t in whole.trials]


def test_the_choice_is_made_once() -> None:
    model = RecipeModel({"level=on": 0.01})
    study = searched(model.sampler(), model.metric)
    scored = len(model.scored)
    searched(model.sampler(), model.metric, study=study)
    assert len(model.scored) == scored


def test_several_workers_try_nothing_twice() -> None:
    model = RecipeModel({"level=on": 0.3}, easy=0.02)
    study = optuna.create_study(direction="maximize", sampler=model.sampler())

    def objective(trial: optuna.Trial) -> float:
        return model.metric(model.space.suggest(trial))

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(study.optimize, objective, n_trials=5) for _ in range(3)]:
            each.result()
    keys = [config.key for config in configs_of(study, model.space)]
    over = next((i for i, s in enumerate(stages_of(study)) if s == "exhausted"), len(keys))
    assert len(set(keys[:over])) == over
    assert "level=on" in recipes_of(study, model)


def test_the_default_strategy_says_why() -> None:
    model = RecipeModel({"level=on": 0.3}, easy=0.02)
    sampler = AutoQuantSampler(
        model.space, criterion=CRITERION, costs=model.table, sensitivity=model.sensitivity
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(
        lambda trial: model.metric(model.space.suggest(trial)),
        n_trials=40,
        callbacks=[ExitPolicy(CRITERION)],
    )
    explanation = sampler.explain(study)
    assert explanation is not None
    assert explanation.text
    assert sampler.beliefs(study) is not None
    prior = study_prior(study, same_model=True, same_evaluation=True)
    assert QuantConfig.from_json(prior.answer).recipes["level"] == "on"


def test_a_fixed_recipe_changes_no_order() -> None:
    plain = SimulatedModel(10, 2)
    fixed = RecipeModel({}, recipes={"level": ("on",)})
    first, second = (searched(model.sampler(), model.metric) for model in (plain, fixed))
    assert [t.params for t in first.trials] == [t.params for t in second.trials]


def test_a_search_from_an_earlier_study_goes_on_with_its_recipes() -> None:
    model = RecipeModel({"level=on": 0.3}, easy=0.02)
    earlier = searched(model.sampler(), model.metric)
    prior = study_prior(earlier, same_model=True, same_evaluation=False)
    study = searched(model.sampler(prior=prior), model.metric)
    assert set(recipes_of(study, model)) == {"level=on"}
    assert len(study.trials) <= len(earlier.trials)
