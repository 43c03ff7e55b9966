"""Tune the bundled digits model: what `make demo` runs.

Plain INT8 misses the criterion of 1 % relative loss; the search finds the few convolutions that
must stay in FP32. The data and the model are in this folder; nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import optuna

from optuna_quant import AccuracyCriterion
from optuna_quant import tune


HERE = Path(__file__).parent
OUTPUT = Path("demo_output")


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    OUTPUT.mkdir(exist_ok=True)
    criterion = AccuracyCriterion(criterion="relative", tolerable_loss=0.01)
    print("Model:     examples/digits/model.onnx, a small CNN for 8x8 images of digits")
    print(f"Criterion: {criterion}\n")

    result = tune(
        HERE / "model.onnx",
        calibration_data=HERE / "calib.npz",
        data=HERE / "eval.npz",
        metric="accuracy",
        accuracy_criterion=criterion,
        show_progress=True,
    )

    default = result.study.trials[1].value  # An estimate: it was given up after a few samples.
    print("\nWhat each op was asked to do, and what the runtime executes:\n")
    report = result.report()
    print(report[["op", "op_type", "mode", "runs", "as_asked"]].to_string(index=False))
    print(f"\nFP32 {result.baseline:.4f}   plain INT8 about {default:.2f}   ", end="")
    print(f"found {result.metric:.4f}\n")
    print(result.summary())
    if result.met:
        path = OUTPUT / "digits.int8.onnx"
        result.save(path)
        size, fp32 = path.stat().st_size, (HERE / "model.onnx").stat().st_size
        print(f"saved: {path} ({size / 1e3:.0f} kB, the FP32 model has {fp32 / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
