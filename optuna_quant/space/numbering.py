"""The configurations of a space in order: the last parameter runs fastest."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.space.tunable import Parameter


def radices(parameters: Sequence[Parameter], *, fallback: bool) -> list[int]:
    """How many choices each parameter has, those in fallback included or not."""
    return [len(p.choices) if fallback else len(p.quantized) for p in parameters]


def positions_at(parameters: Sequence[Parameter], index: int, *, fallback: bool) -> list[int]:
    """The position of each parameter's choice in the configuration number ``index``.

    Raises:
        IndexError:
            If there are not so many configurations.
    """
    radix_of = radices(parameters, fallback=fallback)
    if not 0 <= index < math.prod(radix_of):
        raise IndexError(f"There is no configuration {index} in this space.")
    digits = []
    for radix in reversed(radix_of):
        index, digit = divmod(index, radix)
        digits.append(digit)
    digits.reverse()
    if not fallback:
        digits = [p.quantized[d] for p, d in zip(parameters, digits, strict=True)]
    return digits
