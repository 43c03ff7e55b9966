"""Stages that find the ops that must not be quantized, by evaluating each in fallback."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.cheaper_fallback import cheaper_fallback
from optuna_quant.samplers._plans.cheaper_fallback import suffix_of
from optuna_quant.samplers._plans.fallback import Ranking
from optuna_quant.samplers._plans.fallback import bracket
from optuna_quant.samplers._plans.fallback import one_by_one
from optuna_quant.samplers._plans.fallback import prefixes
from optuna_quant.samplers._plans.fallback import rank
from optuna_quant.samplers._plans.fallback import walk
from optuna_quant.samplers._plans.grow import grow
from optuna_quant.samplers._plans.grow import grow_to_the_end
from optuna_quant.space.config import OpConfig


if TYPE_CHECKING:
    from optuna_quant.samplers._plans.best import Best
    from optuna_quant.samplers._plans.comparisons import Comparisons
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


# Single fallbacks that close less than this part of the gap to FP32 do not rank the ops.
_FAR_OFF = 0.25


@dataclass(frozen=True)
class OpFallback:
    """Instance-wise fallback, then accumulated fallback, on top of the best so far.

    Args:
        comparisons:
            Evaluates configurations.
        patience:
            After how many ops in fallback without progress the ops are ranked again.
        accumulate:
            How the ops that are needed are found, ``"walk"`` or ``"bracket"``; :obj:`None` for
            what fits the evaluation.
        knows_criterion:
            Whether the sampler knows when a metric is good enough.
        by_harm:
            Whether the FP32 model may be evaluated, to rank the ops by the harm that each does.
        is_inc2:
            Whether the order is that of neural-compressor 2.
    """

    comparisons: Comparisons
    patience: int
    accumulate: str | None
    knows_criterion: bool
    by_harm: bool
    is_inc2: bool

    def stages(self, space: TuningSpace, best: Best, mode: str) -> Plan:
        """One op at a time in a floating-point mode, then the ops together."""
        base = best.config
        tunables = [
            tunable
            for tunable in reversed(space.tunables)
            if OpConfig(mode) in tunable.fallbacks
            and (self.is_inc2 or base.ops[tunable.ops[0]].is_quantized)
        ]
        if not tunables:
            return
        suffix = suffix_of(mode)
        singles = [base.with_fallback(*tunable.ops, mode=mode) for tunable in tunables]
        results = yield from self.comparisons.rank(f"instance-wise fallback{suffix}", singles)
        gains = [result.score for result in results]
        ranked = rank(tunables, gains)
        accumulated = f"accumulated fallback{suffix}"
        if self.is_inc2:
            # The first prefix is one of the single fallbacks.
            yield Stage(accumulated, prefixes(base, ranked, mode)[1:])
            return
        if self.by_harm and mode == "fp32":
            ranked = yield from self._other_view(space, best, tunables, gains, ranked)
        if (yield from self._brackets()) and (
            yield from self._bracket(accumulated, space, base, ranked, mode)
        ):
            return
        found = yield from walk(
            accumulated,
            base,
            best.score,
            ranked,
            mode=mode,
            patience=self.patience,
            rerank=one_by_one(f"instance-wise fallback{suffix}", mode),
        )
        if found is not None:
            # For a search that goes on: what of it has to stay?
            back = [
                (tunable, base.ops[tunable.ops[0]])
                for tunable in ranked
                if found.ops[tunable.ops[0]] != base.ops[tunable.ops[0]]
            ]
            config = yield from grow_to_the_end("quantized again", found, back)
            config = yield from cheaper_fallback(space, config, base)
            yield Stage("answer", [config])

    def _brackets(self) -> Generator[Request, Any, bool]:
        """Whether accumulated fallback is searched by halves."""
        if self.accumulate is not None:
            return self.accumulate == "bracket"
        sees_samples: bool = yield HasPerSampleScores()
        return sees_samples and self.knows_criterion

    def _bracket(
        self,
        stage: str,
        space: TuningSpace,
        base: QuantConfig,
        ranked: Sequence[Tunable],
        mode: str,
    ) -> Generator[Request, Any, bool]:
        """Search accumulated fallback by halves; whether something was found.

        If not, not even all ops together meet the criterion, and what may do so is walked for.
        """
        found = yield from bracket(stage, base, ranked, mode=mode)
        if found is None:
            return False
        config, ops = found
        # The last one made the difference; the others may not have to stay.
        back = [(tunable, base.ops[tunable.ops[0]]) for tunable in reversed(ops[:-1])]
        config = yield from grow("quantized again", config, back)
        config = yield from cheaper_fallback(space, config, base)
        if not config.quantized_ops:
            return False
        yield Stage("answer", [config])
        return True

    def _other_view(
        self,
        space: TuningSpace,
        best: Best,
        tunables: Sequence[Tunable],
        gains: Sequence[float],
        ranked: list[Tunable],
    ) -> Ranking:
        """Rank by the harm of each op alone, where taking one back hardly moves the metric."""
        baseline: Evaluation
        (baseline,) = yield Stage("baseline", [space.fp32()], provisional=True)
        gap = baseline.score - best.score
        if not max(gains) - best.score < _FAR_OFF * gap:
            return ranked
        alone = [
            space.fp32().with_ops({op: best.config.ops[op] for op in tunable.ops})
            for tunable in tunables
        ]
        results = yield from self.comparisons.rank(
            "instance-wise quantization", alone, provisional=True
        )
        harm = [-result.score for result in results]
        # Of ops that do equal harm, the one whose fallback helped more comes first.
        return rank(rank(tunables, gains), [harm[tunables.index(t)] for t in ranked])
