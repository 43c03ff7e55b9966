"""Stages that put whole blocks into fallback, before ops are looked at one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.cheaper_fallback import suffix_of
from optuna_quant.samplers._plans.fallback import batched
from optuna_quant.samplers._plans.fallback import prefixes
from optuna_quant.samplers._plans.fallback import rank
from optuna_quant.samplers._plans.grow import grow
from optuna_quant.space.config import OpConfig
from optuna_quant.space.tunable import Tunable


if TYPE_CHECKING:
    from optuna_quant.samplers._plans.best import Best
    from optuna_quant.samplers._plans.comparisons import Comparisons
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


@dataclass(frozen=True)
class BlockFallback:
    """Block-wise fallback, then accumulated blocks, on top of the best so far.

    Neither changes what the stages after them begin from: a model of which most is in fallback
    scores best, and single ops would then be looked for in what little is left.

    Args:
        blocks:
            The blocks, in model order.
        comparisons:
            Evaluates configurations.
        patience:
            How many configurations of accumulated blocks are asked for at a time.
        knows_criterion:
            Whether the sampler knows when a metric is good enough. Then blocks are put together
            until it is met, what they hold is quantized again as far as it stays met, and that is
            the answer; otherwise all blocks are put together, one after the other.
        is_inc2:
            Whether the order is that of neural-compressor 2, which only accumulates, from the last
            block to the first.
    """

    blocks: Sequence[Block]
    comparisons: Comparisons
    patience: int
    knows_criterion: bool
    is_inc2: bool

    def stages(self, space: TuningSpace, best: Best, mode: str) -> Plan:
        """The stages in a floating-point mode.

        What is in fallback already, or has no fallback in this mode, stays as it is; groups of
        tied ops change as a whole.
        """
        base = best.config
        parts = self._parts(space, base, mode)
        if not parts:
            return
        suffix = suffix_of(mode)
        accumulated = f"accumulated blocks{suffix}"
        if self.is_inc2:
            yield Stage(accumulated, prefixes(base, parts, mode))
            return
        singles = [base.with_fallback(*part.ops, mode=mode) for part in parts]
        results = yield from self.comparisons.rank(
            f"block-wise fallback{suffix}", singles, provisional=self.knows_criterion
        )
        ranked = rank(parts, [result.score for result in results])
        for number, batch in enumerate(batched(prefixes(base, ranked, mode), self.patience)):
            found: list[Evaluation] = yield Stage(
                accumulated, batch, provisional=self.knows_criterion
            )
            met = next((i for i, result in enumerate(found) if result.met), None)
            if met is not None:
                needed = ranked[: number * self.patience + met + 1]
                yield from self._quantized_again(space, base, batch[met], needed)
                return

    def _parts(self, space: TuningSpace, base: QuantConfig, mode: str) -> list[Tunable]:
        """What falls back with each block, from the last block to the first."""
        parts = []
        for block in reversed(self.blocks):
            meant = [
                tunable
                for tunable in space.tunables
                if not set(tunable.ops).isdisjoint(block.ops)
                and OpConfig(mode) in tunable.fallbacks
                and base.ops[tunable.ops[0]].is_quantized
            ]
            ops = tuple(op for tunable in meant for op in tunable.ops)
            if ops:
                parts.append(Tunable(block.name, "block", ops, (OpConfig(mode),)))
        return parts

    def _quantized_again(
        self, space: TuningSpace, base: QuantConfig, met: QuantConfig, needed: Sequence[Tunable]
    ) -> Plan:
        """Quantize what does not have to stay in fallback of blocks that are enough together."""
        # The last one made the difference, so the others come first.
        order = [*reversed(needed[:-1]), needed[-1]]
        tunables = {op: tunable for tunable in space.tunables for op in tunable.ops}
        back = dict.fromkeys(tunables[op] for part in order for op in part.ops)
        changes = [(tunable, base.ops[tunable.ops[0]]) for tunable in back]
        config = yield from grow("quantized again", met, changes)
        if config.quantized_ops:
            yield Stage("answer", [config])
