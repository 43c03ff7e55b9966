"""The ops of a space with the options among which the cheapest are looked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.tunable import Tunable


@dataclass(frozen=True)
class PartOption:
    """An option of a tunable with what it costs and weighs."""

    config: OpConfig
    cost: float
    weight: float


@dataclass(frozen=True)
class Part:
    """A tunable with the options that are left, and where its variables begin."""

    tunable: Tunable
    options: tuple[PartOption, ...]
    first: int = 0

    def quantized(self) -> dict[int, float]:
        """The variables whose sum says whether it is quantized."""
        return {self.first + i: 1.0 for i, o in enumerate(self.options) if o.config.is_quantized}


def undominated(options: Iterable[PartOption]) -> tuple[PartOption, ...]:
    """Without options that another one of the same kind beats in both cost and weight.

    Boundaries only see whether an op is quantized, so such an option is never needed.
    """
    kept: list[PartOption] = []
    given = list(options)
    for i, option in enumerate(given):
        others = [
            (o.cost, o.weight, j)
            for j, o in enumerate(given)
            if j != i and o.config.is_quantized == option.config.is_quantized
        ]
        if not any(
            cost <= option.cost
            and weight <= option.weight
            and ((cost, weight) != (option.cost, option.weight) or j < i)
            for cost, weight, j in others
        ):
            kept.append(option)
    return tuple(kept)
