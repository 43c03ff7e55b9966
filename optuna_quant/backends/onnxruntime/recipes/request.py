"""What a user asks for: which recipes, which of them fixed, and which values to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.backends.onnxruntime.recipes.labels import OFF
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.recipes.recipe import Recipe


RecipesLike: TypeAlias = "str | Sequence[str] | Mapping[str, object]"
"""Which recipes a user asks for: ``"all"``, names, or a value or several for each name."""

ALL = "all"

_ARGS = "_args"


def requested_recipes(recipes: object) -> Mapping[str, tuple[str, ...]]:
    """The values of each recipe that a user asks for, in the order of the table.

    Args:
        recipes:
            None for no recipes; ``"all"`` for all that serve the accuracy, each with the values
            that it offers; a name or a list of names for those; or a mapping of names to what
            each may be: True or False (on or off), a value as a label, or a list of these, of
            which one is chosen in each trial. Beside a name, ``NAME_args`` holds the settings of
            that recipe.

    Returns:
        The values by the recipe's name, the default first if it is among them. One that has a
        single value is fixed.

    Raises:
        TypeError:
            If ``recipes`` or a value is something else.
        ValueError:
            If there is no recipe of a name, or it has no such value or setting.
    """
    if recipes is None:
        return MappingProxyType({})
    if isinstance(recipes, Mapping):
        return _of_mapping(recipes)
    if isinstance(recipes, str):
        usual = [name for name, recipe in RECIPES.items() if recipe.in_all]
        names = usual if recipes == ALL else [recipes]
    elif isinstance(recipes, Sequence) and all(isinstance(name, str) for name in recipes):
        names = list(recipes)
    else:
        raise TypeError(
            f"recipes must be 'all', a list of names, or a dict of names and values, but got "
            f"{recipes!r}."
        )
    for name in names:
        _check_name(name, [*RECIPES])
    return {n: recipe.offered({}) for n, recipe in RECIPES.items() if n in names}


def recipe_named(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ValueError:
            If there is none.
    """
    if name not in RECIPES:
        raise ValueError(
            f"There is no recipe {name!r}.{did_you_mean(name, RECIPES)} The recipes are: "
            f"{', '.join(RECIPES)}."
        )
    return RECIPES[name]


def check_value(name: str, value: object) -> None:
    """Check that a recipe exists and has a value.

    Raises:
        ValueError:
            If not.
    """
    recipe = recipe_named(name)
    try:
        if not isinstance(value, str):
            raise ValueError("its values are texts")
        recipe.check(value)
    except ValueError as error:
        raise ValueError(f"Recipe {name!r} has no value {value!r}: {error}.") from None


def _of_mapping(recipes: Mapping[object, object]) -> dict[str, tuple[str, ...]]:
    known = [*RECIPES, *(f"{name}{_ARGS}" for name, r in RECIPES.items() if r.arguments)]
    for key in recipes:
        _check_name(key, known)
    found = {}
    for name, recipe in RECIPES.items():
        args = recipes.get(f"{name}{_ARGS}")
        if args is None:
            args = {}
        if not isinstance(args, Mapping):
            raise TypeError(f"recipes: {name}{_ARGS} must be a dict, but got {args!r}.")
        for argument in args:
            if argument not in recipe.arguments:
                raise ValueError(
                    f"recipes: {name}{_ARGS} has no setting {argument!r}; it has: "
                    f"{', '.join(recipe.arguments)}."
                    f"{did_you_mean(str(argument), recipe.arguments)}"
                )
        if args and recipes.get(name) is None:
            raise ValueError(
                f"recipes: {name}{_ARGS} says nothing without the recipe: add {name!r}: True."
            )
        if recipes.get(name) is not None:
            found[name] = _values(recipe, recipes[name], args)
    return found


def _values(recipe: Recipe, given: object, args: Mapping[str, object]) -> tuple[str, ...]:
    try:
        choices = recipe.choices(given)
        if not choices:
            raise ValueError("the list of its values is empty")
        found = [value for each in choices for value in _meant(recipe, each, args)]
    except ValueError as error:
        raise ValueError(f"recipes: {recipe.name}: {error}.") from None
    return tuple(sorted(dict.fromkeys(found), key=lambda value: value != recipe.default))


def _meant(recipe: Recipe, given: object, args: Mapping[str, object]) -> tuple[str, ...]:
    """The values that one of a user's stands for."""
    if given is True:
        return recipe.switched_on(args)
    if given is False:
        return (OFF,)
    if not isinstance(given, str):
        raise TypeError(
            f"recipes: the value of {recipe.name!r} must be True, False, a text, or a list of "
            f"these, but got {given!r}."
            + (f" Numbers belong in '{recipe.name}{_ARGS}'." if recipe.arguments else "")
        )
    try:
        recipe.check(given)
    except ValueError as error:
        raise ValueError(f"there is no value {given!r}: {error}") from None
    return (given,)


def _check_name(name: object, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(
            f"recipes: there is no recipe {name!r}.{did_you_mean(str(name), known)} The recipes "
            f"are: {', '.join(RECIPES)}."
        )
