"""Samples as a transform of the user's gives them."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from optuna_quant.data.forms import SampleLike
    from optuna_quant.data.forms import Transform


from optuna_quant.data.sample_checks import LABELS


def transformed(
    transform: Transform, sample: SampleLike, names: Sequence[str], where: str
) -> SampleLike:
    """A sample with its input as a transform gives it; labels stay as they are.

    Args:
        transform:
            The function.
        sample:
            A dict, a pair of an input and a label, or an input alone.
        names:
            The names of the model's inputs.
        where:
            What the sample is, for error messages.

    Raises:
        ValueError:
            If the transform fails.
    """
    label: tuple[Any, ...] = ()
    given, others = sample, {}
    if isinstance(given, tuple | list) and len(given) == 2:
        given, label = given[0], (given[1],)
    if isinstance(given, Mapping):
        others = {name: value for name, value in given.items() if name in LABELS}
        rest = {name: value for name, value in given.items() if name not in others}
        if len(names) == 1 and (names[0] in rest or len(rest) == 1):
            given = rest[names[0]] if names[0] in rest else next(iter(rest.values()))
        else:
            given = rest
    try:
        found = transform(given)
    except Exception as error:
        raise ValueError(
            f"The transform fails on {where}: {type(error).__name__}: {error}"
        ) from error
    if others:
        found = found if isinstance(found, Mapping) else {names[0]: found}
        return {**found, **others}
    return (found, *label) if label else found
