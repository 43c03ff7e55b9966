"""Blocks: parts of a model that repeat, such as the layers of a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class Block:
    """One repetition of a part of a model.

    Args:
        name:
            The block's name, unique in the model.
        family:
            What it repeats: the blocks of a family have equally many ops, and those at one place
            correspond.
        ops:
            The names of its ops, in model order.

    Raises:
        ValueError:
            If it has no op, or one twice.
    """

    name: str
    family: str
    ops: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", tuple(self.ops))
        if not self.ops or len(set(self.ops)) < len(self.ops):
            raise ValueError(f"Block {self.name!r} needs ops, each once, but has {self.ops!r}.")


def checked_blocks(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks that were given as an argument ``blocks``.

    Raises:
        ValueError:
            If one of them is something else.
    """
    given = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,)
    for block in given:
        if not isinstance(block, Block):
            raise ValueError(
                f"blocks must be a list of blocks, as backend.blocks() gives them, but got "
                f"{block!r}."
            )
    return given


def block_groups(
    space: TuningSpace, blocks: Sequence[Block], *, by: str = "block"
) -> dict[str, list[str]]:
    """Groups for :meth:`TuningSpace.group`, so that a block or a place in all has one parameter.

    Args:
        space:
            The tuning space; ops of blocks that it does not have are left out.
        blocks:
            The blocks.
        by:
            ``"block"``: all ops of a block have the same option. ``"place"``: the ops at one place
            in all blocks of a family have.

    Returns:
        The names of the ops by the name of the group; without groups of a single op. Ops that are
        tied already, as those are that share a weight, belong to the first of their groups.

    Raises:
        ValueError:
            If ``by`` is neither of these.
    """
    if by not in ("block", "place"):
        raise ValueError(f"by must be 'block' or 'place', but got {by!r}.")
    names = {op: tunable.name for tunable in space.tunables for op in tunable.ops}
    groups: dict[str, list[str]] = {}
    seen: set[str] = set()
    for block in blocks:
        for place, op in enumerate(block.ops):
            if op in names and names[op] not in seen:
                seen.add(names[op])
                group = block.name if by == "block" else f"{block.family}/op{place}"
                groups.setdefault(group, []).append(names[op])
    return {name: ops for name, ops in groups.items() if len(ops) > 1}
