"""``import optuna_quant`` against ``import optuna``, each in a new process."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from benchmarks.timing import alternating


def run(cases: Path | None) -> None:
    def importing(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    nothing, optuna, ours, used = alternating(
        lambda: importing("pass"),
        lambda: importing("import optuna"),
        lambda: importing("import optuna_quant, optuna"),
        lambda: importing("from optuna_quant import AccuracyCriterion, ExitPolicy, TuningSpace"),
        repeat=7,
    )
    print(f"import optuna:                    {optuna - nothing:.3f} s")
    print(f"import optuna, optuna_quant:      {(ours - nothing) / (optuna - nothing):.2f} times")
    print(f"and three of its names:           {(used - nothing) / (optuna - nothing):.2f} times")
