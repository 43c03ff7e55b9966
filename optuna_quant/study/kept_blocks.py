"""Keep the parts of the model that repeat in a study, for strategies that learn from them.

For strategies to which :func:`~optuna_quant.tune` gives blocks by default, as ``surrogate``: the
user has not asked for them, so they may not bind what goes on with the study. One that gets them
only from a user who asks refuses others: see ``block_signature``.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import TYPE_CHECKING

from optuna_quant.space.blocks import Block
from optuna_quant.study import record
from optuna_quant.study.blobs import read_text
from optuna_quant.study.blobs import write_text


if TYPE_CHECKING:
    import optuna


def keep_blocks(study: optuna.Study, prefix: str, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks that the study keeps; if it keeps none, it is given these.

    So all workers of a study learn from the same blocks, and what they have learned can be
    computed again without the model.

    Args:
        study:
            The study.
        prefix:
            The prefix of the tuning space.
        blocks:
            The blocks of the model; of no matter if the study keeps some.
    """
    if blocks and not kept_blocks(study, prefix):
        found = [[block.name, block.family, list(block.ops)] for block in blocks]
        write_text(study, _name(prefix), json.dumps(found))
    return kept_blocks(study, prefix)


def kept_blocks(study: optuna.Study, prefix: str) -> tuple[Block, ...]:
    """The blocks that the study keeps; empty if there are none.

    Args:
        study:
            The study. It is only read.
        prefix:
            The prefix of the tuning space.
    """
    stored = read_text(study, _name(prefix))
    if stored is None:
        return ()
    return tuple(Block(name, family, tuple(ops)) for name, family, ops in json.loads(stored))


def _name(prefix: str) -> str:
    return f"{record.REPEATED_PARTS}:{prefix}"
