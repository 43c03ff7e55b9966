"""What a tuning space must be so that a study can keep it and tell its choices apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence

from optuna_quant.space.config import check_calibration_size
from optuna_quant.space.config import check_recipe
from optuna_quant.space.keys import RecipeValue
from optuna_quant.space.tunable import Tunable


def check_space(
    tunables: Sequence[Tunable],
    recipes: Mapping[str, Sequence[RecipeValue]],
    calibration_sizes: Sequence[int],
) -> None:
    """Check the parts of a tuning space.

    Args:
        tunables:
            The ops.
        recipes:
            The values of each recipe.
        calibration_sizes:
            The calibration sampling sizes.

    Raises:
        ValueError:
            If there is no op, a name comes twice, or the values of a recipe cannot be kept in a
            study or told apart there.
    """
    if not tunables:
        raise ValueError("The tuning space has no op: nothing in this model can be quantized.")
    for kind, names in (
        ("op", [op for tunable in tunables for op in tunable.ops]),
        ("tunable", [tunable.name for tunable in tunables]),
    ):
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"The {kind} name {name!r} is used more than once.")
    for name, values in recipes.items():
        if not values:
            raise ValueError(f"Recipe {name!r} has no value.")
        for value in values:
            check_recipe(name, value)
        _require_different(f"Recipe {name!r}", values)
    for size in calibration_sizes:
        check_calibration_size(size)
    _require_different("calibration_sizes", calibration_sizes)


def _require_different(what: str, values: Sequence[RecipeValue]) -> None:
    seen: dict[RecipeValue, RecipeValue] = {}
    for value in values:
        if value in seen:
            raise ValueError(
                f"{what} has the values {seen[value]!r} and {value!r}, which are equal: "
                "a study cannot tell them apart."
            )
        seen[value] = value
