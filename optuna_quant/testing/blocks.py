"""What a backend must do that knows which parts of the model repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from optuna_quant.backends.base import HasBlocks
from optuna_quant.testing.fixtures import BackendFixtures
from optuna_quant.testing.lacks import lacks


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from optuna_quant.backends.base import Backend
    from optuna_quant.space.blocks import Block


class BlocksTestCase(BackendFixtures):
    """Tests of :class:`~optuna_quant.backends.base.HasBlocks`, with a model that has blocks."""

    @pytest.fixture
    def blocks(self, backend: Backend) -> Sequence[Block]:
        """The blocks."""
        assert isinstance(backend, HasBlocks), lacks(backend, HasBlocks)
        found = backend.blocks()
        assert found, "The model has no blocks; use one that has some for this test."
        return found

    def test_no_name_and_no_op_comes_twice(self, blocks: Sequence[Block]) -> None:
        names = [block.name for block in blocks]
        ops = [op for block in blocks for op in block.ops]
        assert len(set(names)) == len(names)
        assert len(set(ops)) == len(ops)

    def test_blocks_of_a_family_have_equally_many_ops(self, blocks: Sequence[Block]) -> None:
        sizes: dict[str, set[int]] = {}
        for block in blocks:
            sizes.setdefault(block.family, set()).add(len(block.ops))
        assert all(len(found) == 1 for found in sizes.values()), sizes

    def test_ops_are_in_the_order_of_the_model(
        self, blocks: Sequence[Block], backend: Backend
    ) -> None:
        places = {op.name: place for place, op in enumerate(backend.capability().ops)}
        found = [places[op] for block in blocks for op in block.ops if op in places]
        assert found, "No op of a block can be quantized."
        assert found == sorted(found)

    def test_blocks_are_the_same_each_time(
        self, blocks: Sequence[Block], make_backend: Callable[[], Backend]
    ) -> None:
        other = make_backend()
        assert isinstance(other, HasBlocks)
        assert list(other.blocks()) == list(blocks)
