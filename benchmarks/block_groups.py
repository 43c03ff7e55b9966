"""Whether blocks help the default strategy where nothing is known of single ops.

Generated losses of models of repeated blocks, whose ops cost the same; the search minimizes the
number of ops in fallback. ``scored``: the search by single ops, with sensitivities that are off by
a factor of about three; the others have none. ``ops``: the search by single ops, without blocks;
``shared``: the same with blocks, which share factors in the model of the loss; ``blocks``: it
searches first with the ops of each block tied, then by single ops, with all that was seen;
``places``: the same with the ops tied that have the same place in their blocks. Shown are the
evaluations and the ops in fallback of the answers, each the mean over ``SEEDS`` (default: 0 to 4).
What is hard to quantize: ``blocks``, all ops of one block in eight; ``places``, one op of each
block; ``ends``, the first and the last block; ``scattered``, one op in twelve anywhere. ``SIZES``
are the numbers of blocks (default: 8,30), of eight ops each.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
from statistics import mean

import numpy as np
import optuna

from benchmarks.spaces import OPTIONS
from optuna_quant import AccuracyCriterion
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.space.blocks import Block
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


_PER_BLOCK = 8
_TOLERANCE = 0.01
_CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=_TOLERANCE)
_MOST = 100
PATTERNS = ("blocks", "places", "ends", "scattered")
WAYS = ("scored", "ops", "shared", "blocks", "places")
_SCORE_NOISE = 1.0


def run(cases: Path | None) -> None:
    seeds = [int(seed) for seed in os.environ.get("SEEDS", "0,1,2,3,4").split(",")]
    sizes = [int(size) for size in os.environ.get("SIZES", "8,30").split(",")]
    print(f"{'ops':>4} {'hard':10} " + " ".join(f"{way:>8} {'FP32':>6}" for way in WAYS))
    for blocks in sizes:
        for pattern in PATTERNS:
            shown = []
            for way in WAYS:
                found = [_searched(blocks, pattern, way, seed) for seed in seeds]
                evaluations, fallback = (mean(each) for each in zip(*found, strict=True))
                shown.append(f"{evaluations:8.1f} {fallback:6.1f}")
            print(f"{blocks * _PER_BLOCK:4} {pattern:10} {' '.join(shown)}", flush=True)


def _losses(blocks: int, pattern: str, rng: np.random.Generator) -> np.ndarray:
    """What each op loses, of shape (blocks, ops of a block)."""
    lost = np.exp(rng.normal(0, 1, (blocks, _PER_BLOCK)))
    lost *= 0.4 * _TOLERANCE / lost.sum()
    hard = np.zeros(lost.shape, bool)
    if pattern == "blocks":
        hard[rng.choice(blocks, max(1, blocks // 8), replace=False)] = True
    elif pattern == "places":
        hard[:, rng.integers(_PER_BLOCK)] = True
    elif pattern == "ends":
        hard[[0, -1]] = True
    else:
        hard.flat[rng.choice(hard.size, hard.size // 12, replace=False)] = True
    lost[hard] = _TOLERANCE * np.exp(rng.normal(0, 0.5, int(hard.sum())))
    return lost


def _searched(blocks: int, pattern: str, way: str, seed: int) -> tuple[float, float]:
    """The evaluations of a search, and the ops in fallback of its answer."""
    losses = _losses(blocks, pattern, np.random.default_rng(seed))
    names = [f"block{i}/op{k}" for i in range(blocks) for k in range(_PER_BLOCK)]
    of_ops = dict(zip(names, losses.ravel().tolist(), strict=True))
    options = (OPTIONS[0], OPTIONS[-1])
    space = TuningSpace(tuple(Tunable(name, "Gemm", (name,), options) for name in names))
    seen: dict[QuantConfig, float] = {space.fp32(): 0.0}
    groups = {
        "blocks": {f"g{i}": names[i * _PER_BLOCK :][:_PER_BLOCK] for i in range(blocks)},
        "places": {f"g{k}": names[k::_PER_BLOCK] for k in range(_PER_BLOCK)},
    }
    if way in groups:
        _search(space.group(groups[way]), of_ops, seen, seed)
    scores = None
    if way == "scored":
        off = np.exp(np.random.default_rng([seed, 1]).normal(0, _SCORE_NOISE, len(names)))
        scores = {
            name: of_ops[name] * float(factor) for name, factor in zip(names, off, strict=True)
        }
    known = [Block(name, "block", tuple(ops)) for name, ops in groups["blocks"].items()]
    _search(space, of_ops, seen, seed, scores, known if way == "shared" else ())
    met = [len(config.fallback_ops) for config, loss in seen.items() if loss <= _TOLERANCE]
    return len(seen), min(met)


def _search(
    space: TuningSpace,
    losses: Mapping[str, float],
    seen: dict[QuantConfig, float],
    seed: int,
    scores: Mapping[str, float] | None = None,
    blocks: Sequence[Block] = (),
) -> None:
    """Search in a study that knows what was seen, and add to that what it evaluates."""
    sensitivity = None
    if scores is not None:
        sensitivity = lambda config, ops: {op: scores[op] for op in ops}  # noqa: E731
    sampler = SurrogateQuantSampler(
        space, criterion=_CRITERION, sensitivity=sensitivity, seed=seed, blocks=blocks
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for config in seen:
        study.enqueue_trial(space.params_of(config))

    def metric(trial: optuna.Trial) -> float:
        config = QuantConfig(space.suggest(trial).ops)
        seen.setdefault(config, sum(losses[op] for op in config.quantized_ops))
        return -seen[config]

    study.optimize(metric, n_trials=len(seen))
    if len(study.trials) < _MOST:
        study.optimize(
            metric, n_trials=_MOST, callbacks=[ExitPolicy(_CRITERION, max_trials=_MOST)]
        )
