"""Stages that put whole blocks into fallback, before ops are looked at one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.fallback import prefixes
from optuna_quant.samplers._plans.fallback import rank
from optuna_quant.space.config import OpConfig
from optuna_quant.space.tunable import Tunable


if TYPE_CHECKING:
    from optuna_quant.samplers._plans.best import Best
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.space import TuningSpace


def block_fallback(space: TuningSpace, best: Best, blocks: Sequence[Block], mode: str) -> Plan:
    """One block at a time on top of the best so far, the last first; then blocks together.

    They are put together in the order of what each gained, as neural-compressor 2 does; the best
    of all these configurations is what the next stages begin from.

    Args:
        space:
            The tuning space.
        best:
            The best so far.
        blocks:
            The blocks, in model order. What is in fallback already, or has no fallback in this
            mode, stays as it is; groups of tied ops change as a whole.
        mode:
            The floating-point mode.
    """
    base = best.config
    parts = []
    for block in reversed(blocks):
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
    if not parts:
        return
    suffix = "" if mode == "fp32" else f" ({mode})"
    singles = [base.with_fallback(*part.ops, mode=mode) for part in parts]
    results: list[Evaluation] = yield Stage(f"block-wise fallback{suffix}", singles)
    best.see(results)
    ranked = rank(parts, [result.score for result in results])
    together = prefixes(base, ranked, mode)[1:]
    if together:
        results = yield Stage(f"accumulated blocks{suffix}", together)
        best.see(results)
