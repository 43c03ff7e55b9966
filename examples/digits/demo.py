"""Tune the bundled digits model: what `make demo` runs.

Plain INT8 misses the criterion of 1% relative loss; the search finds the few convolutions that
must stay in FP32. Then the three models are compared: accuracy, time and size. The data and the
model are in this folder; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from evaluate import accuracy
import numpy as np
import onnx
import onnxruntime
import optuna

from optuna_quant import AccuracyCriterion
from optuna_quant import tune
from optuna_quant.costs.timing import measure_interleaved


HERE = Path(__file__).parent
OUTPUT = Path("demo_output")
BATCH_SIZES = (1, 64)
ROUNDS = 100


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    OUTPUT.mkdir(exist_ok=True)
    criterion = AccuracyCriterion(criterion="relative", tolerable_loss=0.01)
    print(
        "Model:     examples/digits/model.onnx, a convolutional network for 8x8 images of digits"
    )
    print(f"Criterion: {criterion}")

    result = tune(
        HERE / "model.onnx",
        calibration_data=HERE / "calib.npz",
        data=HERE / "eval.npz",
        metric="accuracy",
        accuracy_criterion=criterion,
    )

    print("\nWhat each op was asked to do, and what the runtime executes:\n")
    report = result.report()
    report = report[report["runs"] != ""]  # Without the ops that were left out of the search.
    print(report[["op", "op_type", "mode", "runs", "as_asked"]].to_string(index=False))
    print(f"\n{result.summary()}")
    if result.met:
        path = OUTPUT / "digits.int8.onnx"
        result.save(path)
        print(f"saved: {path}")

    plain = result.backend.quantize(result.space.default())
    compare(
        {
            "FP32": onnx.load(HERE / "model.onnx"),
            "plain INT8": plain.proto,
            "found" if result.met else "closest": result.model().proto,
        }
    )


def compare(models: Mapping[str, onnx.ModelProto]) -> None:
    """Print the accuracy, the time of a run and the size of some models, the first for reference.

    Args:
        models:
            The models under their names. Their runs are measured in turn, with one thread.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for name, model in models.items()
    }
    with np.load(HERE / "calib.npz") as data:
        images = data["x"]
    columns = []
    for size in BATCH_SIZES:
        feed = {"x": images[:size]}
        runs = [partial(session.run, None, feed) for session in sessions.values()]
        seconds = measure_interleaved(runs, rounds=ROUNDS, warmup=10)
        columns.append([f"{1e3 * s:.3g} ms ({s / seconds[0]:.2f})" for s in seconds])

    heads = "".join(f"{f'batch {size}':>18}" for size in BATCH_SIZES)
    print(f"\nOne thread; in brackets, over {next(iter(models))}:\n")
    print(f"{'':12}{'accuracy':>10}{heads}{'size':>10}")
    for number, (name, session) in enumerate(sessions.items()):
        times = "".join(f"{column[number]:>18}" for column in columns)
        kilobytes = f"{models[name].ByteSize() / 1e3:.0f} kB"
        print(f"{name:12}{accuracy(session):>10.4f}{times}{kilobytes:>10}")


if __name__ == "__main__":
    main()
