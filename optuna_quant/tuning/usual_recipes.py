"""The recipes that are tuned where the user leaves that open, and which of them a study has."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
import json
from typing import TYPE_CHECKING

from optuna_quant.study import record
from optuna_quant.study.blobs import read_text


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.default import RecipesLike
    from optuna_quant.space.space import TuningSpace


_AUTO = "auto"
_SEVERAL = (_AUTO, "all")


def with_usual(recipes: RecipesLike | None) -> RecipesLike:
    """What a search asks the backend for: what the user says, and the usual of what is left open.

    Args:
        recipes:
            What the user asks for. None leaves all open; a dict leaves those open that it does not
            name, unless it says of ``"all"`` or ``"auto"`` whether it asks for them. Anything else
            leaves nothing open.
    """
    if recipes is None:
        return _AUTO
    if isinstance(recipes, Mapping) and not any(name in recipes for name in _SEVERAL):
        return {_AUTO: True, **recipes}
    return recipes


def left_open(space: TuningSpace, recipes: RecipesLike | None) -> frozenset[str]:
    """The recipes of a space that a user has left open.

    Args:
        space:
            The tuning space, with what :func:`with_usual` asks for.
        recipes:
            What the user asks for.
    """
    if recipes is None:
        return frozenset(space.recipes)
    if isinstance(recipes, Mapping) and not any(name in recipes for name in _SEVERAL):
        said = {name for name, value in recipes.items() if value is not None}
        return frozenset(space.recipes).difference(name.removesuffix("_args") for name in said)
    return frozenset()


def without(space: TuningSpace, names: Collection[str]) -> TuningSpace:
    """A space without some of its recipes."""
    kept = {name: values for name, values in space.recipes.items() if name not in names}
    return replace(space, recipes=kept)


def started_with(study: optuna.Study, spaces: Sequence[TuningSpace]) -> TuningSpace:
    """The space of those that has the recipes with which a study was started.

    Args:
        study:
            The study.
        spaces:
            The spaces; the first one is for a study that has not started, or with others.
    """
    text = read_text(study, f"{record.SPACE}:{spaces[0].prefix}")
    if text is None:
        return spaces[0]
    found = _recipes(json.loads(text))
    return next((s for s in spaces if _recipes(s.describe()) == found), spaces[0])


def _recipes(described: Mapping[str, object]) -> dict[str, object]:
    return {name: values for name, values in described.items() if name.startswith("recipe:")}
