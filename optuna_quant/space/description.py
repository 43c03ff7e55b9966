"""A tuning space in words, and as what identifies it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.keys import RecipeValue
    from optuna_quant.space.tunable import Tunable


_MOST_SHOWN = 4


def in_short(
    tunables: Sequence[Tunable],
    recipes: Mapping[str, Sequence[RecipeValue]],
    parameters: int,
    prefix: str,
) -> str:
    """A space in one line: how much there is of what.

    Args:
        tunables:
            The ops.
        recipes:
            The values of each recipe.
        parameters:
            The number of parameters.
        prefix:
            What their names begin with.
    """
    types = Counter(tunable.op_type for tunable in tunables)
    ops = sum(len(tunable.ops) for tunable in tunables)
    counts = ", ".join(f"{count} {kind}" for kind, count in types.most_common(_MOST_SHOWN))
    more = ", ..." if len(types) > _MOST_SHOWN else ""
    options = sum(len(tunable.options) for tunable in tunables)
    shown = f", {len(recipes)} recipes" if recipes else ""
    return (
        f"<TuningSpace: {ops} op{'' if ops == 1 else 's'} ({counts}{more}), {options} options"
        f"{shown}, {parameters} parameters {prefix + '.*'!r}; to_frame() shows them>"
    )


def described(
    tunables: Sequence[Tunable],
    recipes: Mapping[str, Sequence[RecipeValue]],
    calibration_sizes: Sequence[int],
) -> dict[str, list[RecipeValue]]:
    """The choices of each part of a space, and what is fixed, by the part's name.

    Args:
        tunables:
            The ops.
        recipes:
            The values of each recipe.
        calibration_sizes:
            The calibration sampling sizes.
    """
    found: dict[str, list[RecipeValue]] = {
        f"op:{op}": [option.label for option in tunable.options]
        for tunable in tunables
        for op in tunable.ops
    }
    found |= {f"recipe:{name}": list(values) for name, values in recipes.items()}
    found["calibration_size"] = list(calibration_sizes)
    for tunable in tunables:
        if tunable.ops != (tunable.name,):
            found[f"group:{tunable.name}"] = list(tunable.ops)
    return found


def why_outside(config: QuantConfig, tunables: Sequence[Tunable]) -> str:
    """The first part of a configuration that a space does not have.

    Args:
        config:
            The configuration.
        tunables:
            The ops of the space.
    """
    for tunable in tunables:
        chosen = {config.ops.get(op) for op in tunable.ops}
        unfit = [option for option in chosen if option not in tunable.options]
        if unfit or len(chosen) > 1:
            return f"op {tunable.name!r} has {', '.join(map(str, unfit or chosen))}"
    return "it has other ops or recipes"
