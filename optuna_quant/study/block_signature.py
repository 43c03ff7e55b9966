"""Keep in a study which blocks its search looks at, and refuse others.

For strategies that get blocks only from a user who asks for them, as ``basic``. Those to which
:func:`~optuna_quant.tune` gives blocks by default go on with the ones that a study keeps: see
``kept_blocks``.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import TYPE_CHECKING

from optuna_quant.study import record
from optuna_quant.study.blobs import read_text
from optuna_quant.study.blobs import write_text


if TYPE_CHECKING:
    import optuna

    from optuna_quant.space.blocks import Block


def check_blocks(study: optuna.Study, prefix: str, blocks: Sequence[Block]) -> None:
    """Keep the blocks in the study, or compare them with those that are kept there.

    A study that was started without blocks keeps nothing, and can go on with some.

    Args:
        study:
            The study.
        prefix:
            The prefix of the tuning space.
        blocks:
            The blocks, in the order in which the search looks at them; names play no part.

    Raises:
        ValueError:
            If they differ; the message says in what.
    """
    name = f"{record.BLOCKS}:{prefix}"
    stored = read_text(study, name)
    own = [list(block.ops) for block in blocks]
    if stored is None:
        if own:
            write_text(study, name, json.dumps(own))
        return
    known = json.loads(stored)
    if known != own:
        raise ValueError(
            f"The study {study.study_name!r} was started with other blocks: "
            f"{_difference(known, own)}. Give this search the same blocks, or use another study "
            "name."
        )


def _difference(known: list[list[str]], own: list[list[str]]) -> str:
    if len(known) != len(own):
        return f"it has {len(known)}, and there are {len(own) or 'none'} here"
    place = next(i for i, (one, other) in enumerate(zip(known, own, strict=True)) if one != other)
    return f"number {place} has the ops {known[place]} there and {own[place]} here"
