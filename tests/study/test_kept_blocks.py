"""The blocks of a model in the record of a study."""

from __future__ import annotations

import optuna

from optuna_quant.space.blocks import Block
from optuna_quant.study.kept_blocks import keep_blocks
from optuna_quant.study.kept_blocks import kept_blocks


BLOCKS = (Block("b0", "f", ("a", "b")), Block("b1", "f", ("c", "d")))


def test_the_first_blocks_stay() -> None:
    study = optuna.create_study()
    assert keep_blocks(study, "quant", ()) == ()
    assert keep_blocks(study, "quant", BLOCKS) == BLOCKS
    assert keep_blocks(study, "quant", BLOCKS[:1]) == BLOCKS
    assert keep_blocks(study, "quant", ()) == kept_blocks(study, "quant") == BLOCKS
    assert kept_blocks(study, "other") == ()
