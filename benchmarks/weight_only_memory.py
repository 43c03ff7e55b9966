"""Peak memory of a weight-only search over a decoder of a billion parameters (Linux).

It writes 4 GB beside the temporary files, and takes some minutes.
"""

from __future__ import annotations

from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.language.decoder import DecoderShape
from benchmarks.language.decoder import write_decoder


SHAPE = DecoderShape(layers=16, width=2048, hidden=8192, heads=32, kv_heads=8, vocabulary=16_000)
TRIALS = 3
LENGTHS = (5, 17, 32)


def write_random_decoder(folder: Path, shape: DecoderShape) -> Path:
    """Write a decoder with random weights, of which one at a time is in memory."""
    rng = np.random.default_rng(0)

    def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        found = rng.standard_normal(shape, np.float32)
        found *= shape[-1] ** -0.5
        return found

    return write_decoder(folder, shape, weights)


def search(path: Path) -> None:
    """Search a few trials, and print the size of the answer."""
    import optuna

    from benchmarks.language.perplexity import perplexity
    import optuna_quant

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, SHAPE.vocabulary, (1, length)) for length in LENGTHS]
    result = optuna_quant.tune(
        path,
        approach="weight_only",
        op_type_dict={".*": {"weight": {"bits": [4], "algorithm": ["rtn"]}}},
        evaluate=lambda session: perplexity(session, texts),
        higher_is_better=False,
        # Each trial computes other ops on int8 activations, so that none is a repetition.
        strategy="random",
        max_trials=TRIALS,
        timeout=None,
        measure_gain=False,
        show_progress=False,
    )
    print(result)


def run(cases: Path | None, shape: DecoderShape = SHAPE) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_random_decoder(Path(folder), shape)
        size = 4 * shape.parameters
        print(f"{shape.parameters / 1e9:.2f} billion parameters, {size / 1e9:.2f} GB")
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "benchmarks.weight_only_memory", str(path)])
        peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(
            f"peak {peak / 1e9:.2f} GB, {peak / size:.2f} times the model, "
            f"{time.perf_counter() - started:.0f} s, exit code {done.returncode}"
        )


if __name__ == "__main__":
    search(Path(sys.argv[1]))
