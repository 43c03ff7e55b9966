"""Which options of an op the search chooses from: one for each that may be worth its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
import re
from typing import TYPE_CHECKING
from typing import TypeAlias


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.tunable import Tunable


# More are of little use, and each costs a pass.
_MOST_OPTIONS = 6
# Costs that differ by less, as a part of them, are the same.
_SAME_COST = 1e-9

_FINENESS = {"per_tensor": 0, "per_channel": 1, "per_group": 2}

_Numbers: TypeAlias = "tuple[str, int, int] | None"


@dataclass(frozen=True)
class Precision:
    """What decides what an option costs and what it loses, whatever the op.

    Args:
        mode:
            The mode.
        weight:
            The kind of the weight's numbers, their bits, and how many share a scale if that was
            chosen; :obj:`None` for floats.
        activation:
            The same of the activations.
    """

    mode: str
    weight: _Numbers
    activation: _Numbers

    @classmethod
    def of(cls, option: OpConfig) -> Precision:
        """The precision of an option."""
        return cls(option.mode, _numbers(option.weight), _numbers(option.activation))

    @property
    def bits(self) -> frozenset[int]:
        """The bits of all that is quantized."""
        return frozenset(side[1] for side in (self.weight, self.activation) if side is not None)


def scored_options(tunable: Tunable, table: CostTable) -> tuple[OpConfig, ...]:
    """The quantized options of an op that are worth a look.

    One for each precision and each way to find the range of activations, or to quantize weights
    alone. Options that differ otherwise, as in the granularity of the weight, cost about the same:
    of those it is the one with the finest granularity. An option that is no cheaper than another
    one is left out if that one is sure to lose less: the same with more bits, or with activations
    in floats. What stands for the default is not left out.

    Args:
        tunable:
            The op, or the ops that are tied together.
        table:
            What configurations cost.

    Returns:
        The options in the order of the tunable.
    """
    groups: dict[object, OpConfig] = {}
    for option in tunable.quantized:
        key = Precision.of(option), algorithm_of(option)
        if _fineness(option) > _fineness(groups.setdefault(key, option)):
            groups[key] = option
    default = next(iter(groups.values()), None)
    costs = {
        option: sum(table.option_cost(op, option.label) for op in tunable.ops)
        for option in groups.values()
    }

    def is_needless(option: OpConfig) -> bool:
        most = costs[option] + _SAME_COST * abs(costs[option])
        return option != default and any(
            cost <= most and _loses_less(other, option) for other, cost in costs.items()
        )

    chosen = set(_most_different([option for option in costs if not is_needless(option)]))
    return tuple(option for option in tunable.quantized if option in chosen)


def stand_in(option: OpConfig, scored: Sequence[OpConfig]) -> OpConfig:
    """The scored option that stands for an option, itself if it is one.

    Args:
        option:
            The option.
        scored:
            Those that are scored.
    """
    wanted = Precision.of(option), algorithm_of(option)
    same = [each for each in scored if (Precision.of(each), algorithm_of(each)) == wanted]
    return option if option in scored or not same else same[0]


def _most_different(options: list[OpConfig]) -> list[OpConfig]:
    """As many options as are scored: each precision once, then the other algorithms."""
    firsts = {Precision.of(option): option for option in reversed(options)}
    once = [option for option in options if firsts[Precision.of(option)] == option]
    rest = [option for option in options if option not in once]
    return [*once, *rest][:_MOST_OPTIONS]


def _loses_less(one: OpConfig, other: OpConfig) -> bool:
    """Whether an option is sure to lose less than another one, whatever the op."""
    a, b = Precision.of(one), Precision.of(other)
    if one == other or not _is_finer(a.weight, b.weight):
        return False
    if a.activation is None:
        return a != b
    return (
        a.mode == b.mode
        and algorithm_of(one) == algorithm_of(other)
        and (a != b and _is_finer(a.activation, b.activation))
    )


def _is_finer(one: _Numbers, other: _Numbers) -> bool:
    """Whether numbers are at least as exact as others."""
    if one is None or other is None:
        return one is None
    if one[0] != other[0] or one[1] != other[1]:
        return one[0] == other[0] and one[1] > other[1]
    # A channel is taken to be larger than any group.
    return one[2] == other[2] or 0 < one[2] < (other[2] or math.inf)


def _numbers(tensor: TensorConfig | None) -> _Numbers:
    if tensor is None:
        return None
    # Signed and unsigned numbers are as exact; other kinds of the same bits are not.
    kind = re.sub(r"\d.*", "", tensor.dtype).removeprefix("u")
    return kind, tensor.bits, tensor.group_size or 0


def algorithm_of(option: OpConfig) -> str | None:
    """How the range of the activations is found; where weights alone are quantized, how those."""
    side = option.weight if option.mode == "weight_only" else option.activation
    return None if side is None else side.algorithm


def _fineness(option: OpConfig) -> int:
    sides = (option.weight, option.activation)
    return sum(_FINENESS[side.granularity] for side in sides if side is not None)
