"""Put ops into fallback one after the other, in the order of a ranking that can be revised."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Request
from optuna_quant.samplers._engine.requests import Scoring
from optuna_quant.samplers._engine.requests import Stage


if TYPE_CHECKING:
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.tunable import Tunable


Ranking: TypeAlias = "Generator[Request, Any, list[Tunable]]"
Rerank: TypeAlias = "Callable[[QuantConfig, Sequence[Tunable]], Ranking]"


def prefixes(config: QuantConfig, tunables: Sequence[Tunable], mode: str) -> list[QuantConfig]:
    """``config`` with the first op in fallback, with the first two, and so on."""
    found = []
    for tunable in tunables:
        config = config.with_fallback(*tunable.ops, mode=mode)
        found.append(config)
    return found


def walk(
    stage: str,
    config: QuantConfig,
    score: float,
    ranked: Sequence[Tunable],
    *,
    mode: str = "fp32",
    patience: int,
    rerank: Rerank | None = None,
    keep: bool = False,
) -> Generator[Request, Any, QuantConfig | None]:
    """Accumulate fallback until the criterion is met, or no op is left.

    As long as there is progress the ranking is followed. When ``patience`` further ops have
    brought none the ops are ranked again, given what is in fallback. Ops that gave nothing are
    taken back before (they cost speed) unless ``keep``; if the new ranking brings nothing either
    it is walked to its end.

    Args:
        stage:
            The name of the stages.
        config:
            The configuration to start from.
        score:
            Its score.
        ranked:
            The ops, the one whose fallback helps most first.
        mode:
            The floating-point mode.
        patience:
            After how many ops without progress the ops are ranked again.
        rerank:
            Ranks the ops that are left, given the current configuration; :obj:`None` to keep the
            first ranking.
        keep:
            Whether ops that gave nothing stay in fallback.

    Returns:
        The first configuration that meets the criterion; :obj:`None` if there is none.
    """
    left = list(ranked)
    is_fresh = False  # Whether the ranking was made for this very configuration.
    while left:
        is_last = rerank is None or is_fresh
        steps = prefixes(config, left if is_last else left[:patience], mode)
        for batch in batched(steps, patience):
            results: list[Evaluation] = yield Stage(stage, batch)
            met = next((result.config for result in results if result.met), None)
            if met is not None:
                return met
            gains = [result.score for result in results]
            if rerank is not None and max(gains) > score:
                break
        if rerank is None:
            return None
        if max(gains) > score:
            config, score = batch[gains.index(max(gains))], max(gains)
            left = [tunable for tunable in left if config.ops[tunable.ops[0]].is_quantized]
            is_fresh = False
        elif keep:
            config = batch[-1]
            left = [tunable for tunable in left if config.ops[tunable.ops[0]].is_quantized]
            left = (yield from rerank(config, left)) if left else []
        elif is_last:
            return None
        else:
            left = yield from rerank(config, left)
            is_fresh = True
    return None


def bracket(
    stage: str, config: QuantConfig, ranked: Sequence[Tunable], *, mode: str = "fp32"
) -> Generator[Request, Any, tuple[QuantConfig, Sequence[Tunable]] | None]:
    """Find the smallest prefix of the ranking whose fallback meets the criterion.

    Prefixes of 1, 2, 4, 8, ... ops are tried until one meets the criterion, then the gap to the
    last that did not is halved: about ``2 log2(k)`` evaluations for a prefix of ``k`` ops, at most
    ``log2(n)`` more than a search by halves (Bentley and Yao, "An almost optimal algorithm for
    unbounded searching", 1976). It rests on the metric being nearly monotone in the prefix: where
    it is not, a prefix that meets the criterion is found, but a shorter one may be missed.

    Args:
        stage:
            The name of the stages.
        config:
            The configuration to start from; it does not meet the criterion.
        ranked:
            The ops, the one whose fallback helps most first.
        mode:
            The floating-point mode.

    Returns:
        The configuration, which meets the criterion as far as was evaluated, and its ops in
        fallback; :obj:`None` if no prefix that was tried does.
    """
    steps = prefixes(config, ranked, mode)
    if not steps:
        return None
    low, high = 0, 0  # The prefix of low ops does not meet the criterion.
    size = 1
    result: Evaluation
    while not high:
        size = min(size, len(steps))
        (result,) = yield Stage(stage, [steps[size - 1]], provisional=True)
        if result.met:
            high = size
        elif size == len(steps):
            return None
        else:
            low, size = size, 2 * size
    while high - low > 1:
        middle = (low + high) // 2
        (result,) = yield Stage(stage, [steps[middle - 1]], provisional=True)
        low, high = (low, middle) if result.met else (middle, high)
    return steps[high - 1], ranked[:high]


def batched(configs: Sequence[QuantConfig], size: int) -> list[Sequence[QuantConfig]]:
    """The configurations in batches of at most ``size``."""
    return [configs[i : i + size] for i in range(0, len(configs), size)]


def one_by_one(stage: str, mode: str) -> Callable[[QuantConfig, Sequence[Tunable]], Ranking]:
    """A ranking by what the fallback of each op alone gives, on top of a configuration."""

    def ranking(config: QuantConfig, tunables: Sequence[Tunable]) -> Ranking:
        singles = [config.with_fallback(*tunable.ops, mode=mode) for tunable in tunables]
        results: list[Evaluation] = yield Stage(stage, singles)
        return rank(tunables, [result.score for result in results])

    return ranking


def by_score(config: QuantConfig, tunables: Sequence[Tunable]) -> Ranking:
    """A ranking by sensitivity, given a configuration; a group has that of its worst op."""
    scores: dict[str, float] = yield Scoring(
        config, tuple(op for tunable in tunables for op in tunable.ops)
    )
    return rank(tunables, [max(scores[op] for op in tunable.ops) for tunable in tunables])


def rank(tunables: Sequence[Tunable], values: Sequence[float]) -> list[Tunable]:
    """The ops by a value, highest first; equal ones stay in their order."""
    order = sorted(range(len(tunables)), key=lambda i: -values[i])
    return [tunables[i] for i in order]
