"""The ops of a model of repeated blocks that share a factor of their errors."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.space.blocks import Block
    from optuna_quant.space.tunable import Tunable


def shared_factors(
    tunables: Sequence[Tunable], blocks: Sequence[Block]
) -> NDArray[np.int64] | None:
    """The numbers of the factors that tunables share: of their block, and of their place in it.

    Args:
        tunables:
            The tunables. One of several ops shares with others what all its ops have in common.
        blocks:
            The parts of the model that repeat, no op in two of them.

    Returns:
        An array of shape ``(2, tunables)``: numbers from 0, and -1 where nothing is shared;
        :obj:`None` if nothing is shared at all.
    """
    block_of = {op: i for i, block in enumerate(blocks) for op in block.ops}
    place_of = {op: (block.family, k) for block in blocks for k, op in enumerate(block.ops)}
    found = np.full((2, len(tunables)), -1, dtype=np.int64)
    count = 0
    groupings: tuple[Mapping[str, Hashable], ...] = (block_of, place_of)
    for row, part_of in enumerate(groupings):
        parts: dict[Hashable, list[int]] = {}
        for i, tunable in enumerate(tunables):
            part = _common_part(tunable, part_of)
            if part is not None:
                parts.setdefault(part, []).append(i)
        for members in parts.values():
            if len(members) > 1:
                found[row, members] = count
                count += 1
    return found if count else None


def _common_part(tunable: Tunable, part_of: Mapping[str, Hashable]) -> Hashable | None:
    """The part that all ops of a tunable belong to; :obj:`None` if there is none."""
    parts = {part_of.get(op) for op in tunable.ops}
    return parts.pop() if len(parts) == 1 else None
