"""Draw the pictures of ``visualization.md``: each plot of a search of the digits example.

    python docs/draw_plots.py

The times in them, and with them the answer, are those of the machine.
"""

from __future__ import annotations

from pathlib import Path
import tempfile

import optuna

import optuna_quant
from optuna_quant.visualization.plots import PLOTS
from optuna_quant.visualization.plots import save_plot


DOCS = Path(__file__).resolve().parent
DIGITS = DOCS.parent / "examples" / "digits"
MODEL = DIGITS / "model.onnx"


def searched(storage: str) -> optuna.Study:
    """A study of the digits example by two workers, which runs until nothing is left to try."""
    result = optuna_quant.tune(
        MODEL,
        calibration_data=DIGITS / "calib.npz",
        data=DIGITS / "eval.npz",
        metric="accuracy",
        tolerable_loss=0.01,
        recipes="none",  # So that ops are in FP32.
        timeout=None,
        max_trials=40,
        n_jobs=2,
        threads=1,
        storage=storage,
    )
    return result.study


def main() -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as folder:
        study = searched(str(Path(folder) / "study.log"))
        for kind, plot in PLOTS.items():
            model = MODEL if plot.needs_model else None
            save_plot(study, kind, DOCS / "images" / f"plot_{kind}.png", model=model, dpi=80)


if __name__ == "__main__":
    main()
