"""Op-type-wise settings: one option for all ops of a type."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import heapq
import itertools
import math
from typing import TYPE_CHECKING
from typing import TypeAlias


if TYPE_CHECKING:
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


TypeChoice: TypeAlias = tuple[str, "OpConfig"]
"""An op type, and the option that all its ops take."""


def type_options(space: TuningSpace, mode: str | None = None) -> dict[str, list[OpConfig]]:
    """The quantized options of each op type, in the order in which the model has them.

    The first one leaves every op of the type at its default, also if they have different ones
    (unless their options come in orders that contradict each other).

    Args:
        space:
            The tuning space.
        mode:
            Only options of this mode; :obj:`None` for the mode of each op's default.
    """
    found: dict[str, dict[OpConfig, None]] = {}
    changing: dict[str, set[OpConfig]] = {}
    for tunable in space.tunables:
        wanted = mode or tunable.default.mode
        fitting = [option for option in tunable.quantized if option.mode == wanted]
        if fitting:
            found.setdefault(tunable.op_type, {}).update(dict.fromkeys(fitting))
            changing.setdefault(tunable.op_type, set()).update(fitting[1:])
    options = {}
    for op_type, all_options in found.items():
        neutral = [option for option in all_options if option not in changing[op_type]]
        rest = [option for option in all_options if option in changing[op_type]]
        options[op_type] = neutral[:1] + rest
    return options


def apply(space: TuningSpace, config: QuantConfig, choices: Sequence[TypeChoice]) -> QuantConfig:
    """``config`` with these choices; an op that lacks the option of its type stays as it is."""
    chosen = dict(choices)
    changes = {
        op: chosen[tunable.op_type]
        for tunable in space.tunables
        if tunable.op_type in chosen and chosen[tunable.op_type] in tunable.options
        for op in tunable.ops
    }
    return config.with_ops(changes)


def single_changes(options: Mapping[str, Sequence[OpConfig]]) -> list[TypeChoice]:
    """Each option but the first of each type: first the second option of every type, and so on."""
    rows = [[(op_type, option) for option in rest[1:]] for op_type, rest in options.items()]
    columns = itertools.zip_longest(*rows)
    return [choice for column in columns for choice in column if choice is not None]


def combinations(
    gains: Mapping[TypeChoice, float], *, only_gains: bool
) -> Iterator[tuple[TypeChoice, ...]]:
    """Combinations of changes of at least two op types, the most promising first.

    What a combination promises is the sum of what its changes gained one by one.

    Args:
        gains:
            By how much each single change was better.
        only_gains:
            Whether to leave out changes that gained nothing.
    """
    rows: dict[str, list[tuple[float, TypeChoice | None]]] = {}
    for choice, gain in gains.items():
        if math.isfinite(gain) and (gain > 0 or not only_gains):
            rows.setdefault(choice[0], [(0.0, None)]).append((gain, choice))
    # The sort is stable: of equal gains, what the space has first comes first.
    ranked = [sorted(row, key=lambda item: -item[0]) for row in rows.values()]
    start = (0,) * len(ranked)
    heap = [(-_promise(ranked, start), start)]
    seen = {start}
    while heap:
        _, places = heapq.heappop(heap)
        picked = [row[place][1] for row, place in zip(ranked, places, strict=True)]
        changes = tuple(choice for choice in picked if choice is not None)
        if len(changes) > 1:
            yield changes
        for i, place in enumerate(places):
            further = (*places[:i], place + 1, *places[i + 1 :])
            if place + 1 < len(ranked[i]) and further not in seen:
                seen.add(further)
                heapq.heappush(heap, (-_promise(ranked, further), further))


def _promise(
    ranked: Sequence[Sequence[tuple[float, TypeChoice | None]]], places: Sequence[int]
) -> float:
    return sum(row[place][0] for row, place in zip(ranked, places, strict=True))


def inc2_order(options: Mapping[str, Sequence[OpConfig]]) -> dict[str, list[OpConfig]]:
    """The options in neural-compressor 2's order: by algorithm, then by weight granularity."""
    algorithms = ("minmax", "kl", "percentile")

    def place(option: OpConfig) -> tuple[int, bool]:
        algorithm = option.activation.algorithm if option.activation else "minmax"
        rank = algorithms.index(algorithm) if algorithm in algorithms else len(algorithms)
        return rank, option.weight is not None and option.weight.granularity == "per_tensor"

    # The default stays the first.
    return {kind: [row[0], *sorted(row[1:], key=place)] for kind, row in options.items()}


def product(options: Mapping[str, Sequence[OpConfig]]) -> Iterator[tuple[TypeChoice, ...]]:
    """All combinations, in the order of neural-compressor 2: the last type runs fastest."""
    rows = [[(op_type, option) for option in row] for op_type, row in options.items()]
    return itertools.product(*rows)
