"""What a user asks for: which recipes, which of them fixed, and which values to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna_quant._common.nearest import did_you_mean
from optuna_quant.backends.onnxruntime.recipes.labels import OFF
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.recipes.recipe import Recipe


RecipesLike: TypeAlias = "str | Sequence[str] | Mapping[str, object]"
"""Which recipes a user asks for: ``"auto"``, ``"all"``, names, or values for each name."""

AUTO = "auto"
"""Asks for the recipes that the model's structure suggests."""
NONE = "none"
"""Asks for no recipe."""

_ALL = "all"

_ARGS = "_args"


@dataclass(frozen=True)
class RequestedRecipes:
    """What a user asks for.

    Args:
        values:
            The values of each recipe, in the order of the table, the default first if it is among
            them. One that has a single value is fixed.
        named:
            The recipes that the user has named, and not only asked for all.
        is_auto:
            Whether those are offered as well, of which there is nothing in ``values``, that the
            model's structure suggests.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    named: frozenset[str] = frozenset()
    is_auto: bool = False


def requested_recipes(recipes: object) -> RequestedRecipes:
    """Read which recipes a user asks for.

    Args:
        recipes:
            None or ``"none"`` for no recipes; ``"auto"`` for those that the model's structure
            suggests; ``"all"`` for all that serve the accuracy, each with the values that it
            offers; a name or a list of names for those, ``"auto"`` or ``"all"`` among them or
            not; or a mapping of names to what each may be: True or False (on or off), a value as
            a label, or a list of these, of which one is chosen in each trial. Beside a name,
            ``NAME_args`` holds the settings of that recipe's True. ``{"all": True, ...}`` asks for
            all, ``{"auto": True, ...}`` for those of ``"auto"``, and says what some of them may
            be.

    Raises:
        TypeError:
            If ``recipes`` or a value is something else.
        ValueError:
            If there is no recipe of a name, or it has no such value or setting; or if there are
            settings that no value would use.
    """
    if recipes is None:
        return RequestedRecipes()
    if isinstance(recipes, Mapping):
        given = dict(recipes)
        is_all, is_auto = (_is_asked(given, name) for name in (_ALL, AUTO))
        return replace(_of_mapping(given, is_all=is_all), is_auto=is_auto)
    if isinstance(recipes, str):
        names = [recipes]
    elif isinstance(recipes, Sequence) and all(isinstance(name, str) for name in recipes):
        names = list(recipes)
    else:
        raise TypeError(
            "recipes must be 'auto', 'all', 'none', a list of names, or a dict of names and "
            f"values, but got {recipes!r}."
        )
    if names == [NONE]:
        return RequestedRecipes()
    for name in names:
        if name == NONE:
            raise ValueError(f"recipes: {NONE!r} stands alone, but got {names!r}.")
        _check_name(name, [*RECIPES, AUTO, _ALL, NONE])
    found = {
        name: recipe.offered({})
        for name, recipe in RECIPES.items()
        if name in names or (_ALL in names and recipe.in_all)
    }
    return RequestedRecipes(found, frozenset(names) - {_ALL, AUTO}, AUTO in names)


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
            raise ValueError("its values are strings")
        recipe.check(value)
    except ValueError as error:
        raise ValueError(f"Recipe {name!r} has no value {value!r}: {error}.") from None


def _is_asked(given: dict[object, object], name: str) -> bool:
    """Take out of a mapping whether it asks for several recipes by one name."""
    value = given.pop(name, False)
    if value not in (True, False):
        raise TypeError(
            f"recipes: the value of {name!r} must be True or False, but got {value!r}."
        )
    return bool(value)


def _of_mapping(recipes: Mapping[object, object], *, is_all: bool) -> RequestedRecipes:
    known = [*RECIPES, *(f"{name}{_ARGS}" for name, r in RECIPES.items() if r.arguments)]
    known += [AUTO, _ALL]
    for key in recipes:
        _check_name(key, known)
    found, named = {}, set()
    for name, recipe in RECIPES.items():
        given, args = recipes.get(name), _arguments(recipe, recipes.get(f"{name}{_ARGS}"))
        if given is not None:
            found[name] = _values(recipe, given, args)
        elif is_all and recipe.in_all:
            found[name] = _offered(recipe, args)
        elif args:
            raise ValueError(
                f"recipes: {name}{_ARGS} says nothing without the recipe: add {name!r}: True."
            )
        if given is not None or args:
            named.add(name)
    return RequestedRecipes(found, frozenset(named))


def _arguments(recipe: Recipe, args: object) -> Mapping[str, object]:
    name = f"{recipe.name}{_ARGS}"
    if args is None:
        return {}
    if not isinstance(args, Mapping):
        raise TypeError(f"recipes: {name} must be a dict, but got {args!r}.")
    for argument in args:
        if argument not in recipe.arguments:
            raise ValueError(
                f"recipes: {name} has no setting {argument!r}; it has: "
                f"{', '.join(recipe.arguments)}.{did_you_mean(str(argument), recipe.arguments)}"
            )
    return args


def _offered(recipe: Recipe, args: Mapping[str, object]) -> tuple[str, ...]:
    try:
        return recipe.offered(args)
    except ValueError as error:
        raise ValueError(f"recipes: {recipe.name}: {error}.") from None


def _values(recipe: Recipe, given: object, args: Mapping[str, object]) -> tuple[str, ...]:
    try:
        choices = recipe.choices(given)
        if not choices:
            raise ValueError("the list of its values is empty")
        if args:
            _check_used(recipe, choices)
        found = [value for each in choices for value in _meant(recipe, each, args)]
    except ValueError as error:
        raise ValueError(f"recipes: {recipe.name}: {error}.") from None
    return tuple(sorted(dict.fromkeys(found), key=lambda value: value != recipe.default))


def _check_used(recipe: Recipe, choices: Sequence[object]) -> None:
    """Refuse settings beside values that would not have them."""
    name = f"{recipe.name}{_ARGS}"
    labels = [each for each in choices if isinstance(each, str) and each != OFF]
    if labels:
        raise ValueError(
            f"{name} is for the value True, and {labels[0]!r} has its settings in the label, as "
            "'name=value, name=value': write them there, or give True"
        )
    if all(each is False or each == OFF for each in choices):
        raise ValueError(f"{name} says nothing where the recipe is off: leave it out, or add True")


def _meant(recipe: Recipe, given: object, args: Mapping[str, object]) -> tuple[str, ...]:
    """The values that one of a user's stands for."""
    if given is True:
        return recipe.switched_on(args)
    if given is False:
        return (OFF,)
    if not isinstance(given, str):
        raise TypeError(
            f"recipes: the value of {recipe.name!r} must be True, False, a string, or a list of "
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
