"""The parts of a tuning space: ops with their options, and the parameters they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.keys import RecipeValue


@dataclass(frozen=True)
class Tunable:
    """One op of a tuning space, or several tied together, and its options.

    Args:
        name:
            The op's name, or the group's.
        op_type:
            The op's type; the types joined by ``+`` for a group of different ones.
        ops:
            The names of the ops.
        options:
            The ways to run them: quantized ones first, the first is the default.

    Raises:
        ValueError:
            If there is no op or no option, an option comes twice, or a floating-point option
            stands before a quantized one.
    """

    name: str
    op_type: str
    ops: tuple[str, ...]
    options: tuple[OpConfig, ...]

    def __post_init__(self) -> None:
        if not self.ops:
            raise ValueError(f"{self.name!r} has no op.")
        if not self.options:
            raise ValueError(f"Op {self.name!r} has no option.")
        if len(set(self.options)) < len(self.options):
            raise ValueError(f"Op {self.name!r} has the same option twice.")
        if self.options[: len(self.quantized)] != self.quantized:
            raise ValueError(
                f"The options of op {self.name!r} must start with the quantized ones."
            )

    @property
    def default(self) -> OpConfig:
        """The first option: the first quantized one, if there is any."""
        return self.options[0]

    @cached_property
    def quantized(self) -> tuple[OpConfig, ...]:
        """The quantized options."""
        return tuple(option for option in self.options if option.is_quantized)

    @cached_property
    def fallbacks(self) -> tuple[OpConfig, ...]:
        """The floating-point options."""
        return tuple(option for option in self.options if not option.is_quantized)

    def choices(self, *, fallback: bool) -> tuple[OpConfig, ...]:
        """The options, without the floating-point ones unless ``fallback`` or none other."""
        return self.options if fallback or not self.quantized else self.quantized

    def set(self, config: QuantConfig, option: OpConfig) -> QuantConfig:
        """``config`` with this option for all ops of this tunable."""
        return config.with_ops({op: option for op in self.ops})


@dataclass(frozen=True)
class Parameter:
    """One categorical parameter of the study: a choice of values for part of the configuration."""

    name: str
    values: tuple[Any, ...]
    choices: tuple[RecipeValue, ...]
    digests: tuple[int, ...]
    quantized: tuple[int, ...]
    """The positions of the choices that are no fallback (all, if the others are none)."""

    @cached_property
    def position(self) -> Mapping[RecipeValue, int]:
        """The position of each choice, found by equality as Optuna does: 1.0 finds 1."""
        return {choice: i for i, choice in enumerate(self.choices)}
