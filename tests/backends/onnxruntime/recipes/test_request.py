from __future__ import annotations

from typing import Any

import pytest

from optuna_quant.backends.onnxruntime.recipes.request import check_value
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (None, {}),
        ({}, {}),
        ([], {}),
        ("equalization", {"equalization": ("off", "on")}),
        (["equalization"], {"equalization": ("off", "on")}),
        ({"equalization": True}, {"equalization": ("on",)}),
        ({"equalization": False}, {"equalization": ("off",)}),
        ({"equalization": None}, {}),
        ({"equalization": "on"}, {"equalization": ("on",)}),
        ({"equalization": ["on", False]}, {"equalization": ("off", "on")}),
    ],
)
def test_what_is_fixed_and_what_is_tuned(given: Any, values: dict[str, tuple[str, ...]]) -> None:
    assert requested_recipes(given).values == values


def test_all_are_those_of_the_table_with_their_defaults_first() -> None:
    found = requested_recipes("all").values
    assert list(found) == [name for name, recipe in RECIPES.items() if recipe.in_all]
    for name, values in requested_recipes(list(RECIPES)).values.items():
        assert values[0] == RECIPES[name].default
        assert len(set(values)) == len(values) > 1
        for value in values:
            check_value(name, value)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("equalisation", ValueError, "recipe 'equalisation'. Did you mean 'equalization'?"),
        (["nothing"], ValueError, "no recipe 'nothing'. The recipes are: equalization"),
        ({"equalise": True}, ValueError, "Did you mean 'equalization'?"),
        ({"equalization": "maybe"}, ValueError, "no value 'maybe': its values are 'off' and 'on'"),
        ({"equalization": []}, ValueError, "the list of its values is empty"),
        ({"equalization": 3}, TypeError, "True, False, a string, or a list of these, but got 3"),
        (3, TypeError, "must be 'auto', 'all', 'none', a list of names, or a dict"),
        ([3], TypeError, "must be 'auto', 'all', 'none', a list of names, or a dict"),
    ],
)
def test_errors_name_what_is_wrong(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        requested_recipes(given)
    assert words in str(caught.value)


def test_values_of_configurations() -> None:
    check_value("equalization", "on")
    with pytest.raises(ValueError, match="Recipe 'equalization' has no value True: its values"):
        check_value("equalization", True)
    with pytest.raises(ValueError, match="There is no recipe 'equalize'. Did you mean"):
        check_value("equalize", "on")


def test_settings_without_their_recipe_are_refused() -> None:
    with pytest.raises(ValueError, match="add 'smooth_quant': True"):
        requested_recipes({"smooth_quant_args": {"alpha": 0.5}})
    with pytest.raises(TypeError, match="Numbers belong in 'smooth_quant_args'"):
        requested_recipes({"smooth_quant": 0.5})
