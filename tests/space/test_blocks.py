from __future__ import annotations

import pytest
from spaces import make_space

from optuna_quant.space.blocks import Block
from optuna_quant.space.blocks import block_groups


OPS = [(name, "Conv") for name in "abcd"]
BLOCKS = [Block("b0", "f", ("a", "b")), Block("b1", "f", ("c", "elsewhere"))]


def test_bad_blocks_are_refused() -> None:
    for ops in ((), ("a", "a")):
        with pytest.raises(ValueError, match="Block 'x' needs ops"):
            Block("x", "f", ops)
    with pytest.raises(ValueError, match="by must be 'block' or 'place', but got 'row'"):
        block_groups(make_space(OPS), BLOCKS, by="row")


def test_groups_by_block_and_by_place() -> None:
    """Ops that the space lacks are left out, and so are groups of one op."""
    space = make_space(OPS)
    assert block_groups(space, BLOCKS) == {"b0": ["a", "b"]}
    assert block_groups(space, BLOCKS, by="place") == {"f/op0": ["a", "c"]}
    tied = space.group(block_groups(space, BLOCKS, by="place"))
    assert [tunable.ops for tunable in tied.tunables] == [("a", "c"), ("b",), ("d",)]
