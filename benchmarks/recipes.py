"""What each recipe does to plain 8-bit models: accuracy, size and time, as a table of Markdown.

Every op is in its default option (weights per channel), and once with weights per tensor. The time
is the processor's for 64 samples on one thread, over FP32's: the median of interleaved runs.
"""

from __future__ import annotations

from collections.abc import Iterator
import logging
from pathlib import Path
import time

import onnxruntime

from benchmarks.cases import DEMO
from benchmarks.cases import Case
from benchmarks.cases import load_case
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


CASES = ("digits_dscnn_uneq", "digits_vit_out", "fashion_mobilenet", "fashion_vit")
BATCH = 64
CORRECTIONS = ["weight_correction", "fast_bias_correction"]
RECIPES = ["equalization", "smooth_quant", *CORRECTIONS]


def run(cases: Path | None) -> None:
    logging.disable(logging.WARNING)
    print("| case | recipes | accuracy | weights per tensor | size | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    folders = [DEMO] if cases is None else [DEMO, *(cases / name for name in CASES)]
    for folder in folders:
        _measure(load_case(folder))


def _measure(case: Case) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    backend = OnnxRuntimeBackend(
        case.model,
        calibration_data={case.input_name: case.calibration},
        session_options=options,
        recipes=RECIPES,
    )
    space = backend.tuning_space()
    rows = [("FP32", space.fp32()), *_rows(space)]
    models = [backend.quantize(config) for _, config in rows]
    feed = {case.input_name: case.x[:BATCH]}
    times = time_interleaved(
        [lambda model=model: model.session.run(None, feed) for model in models],
        rounds=40,
        seconds=4.0,
        clock=time.thread_time,
    )
    evaluate = case.accuracy()
    for (name, config), model, timing in zip(rows, models, times, strict=True):
        per_tensor = ""
        if config.quantized_ops:
            found = backend.quantize(_with_weights_per_tensor(space, config))
            per_tensor = f"{evaluate(found.session):.4f}"
        print(
            f"| {case.name} | {name} | {evaluate(model.session):.4f} | {per_tensor} | "
            f"{model.nbytes / models[0].nbytes:.2f} | {timing.seconds / times[0].seconds:.2f} |"
        )


def _rows(space: TuningSpace) -> Iterator[tuple[str, QuantConfig]]:
    yield "none", space.default()
    for name, values in space.recipes.items():
        for value in values[1:]:
            yield f"`{name}={value}`", space.default().with_recipe(name, value)
    both = [name for name in CORRECTIONS if name in space.recipes]
    if len(both) > 1:
        config = space.default()
        for name in both:
            config = config.with_recipe(name, "on")
        yield "both corrections", config
    if len(space.recipes) > 1:
        config = space.default()
        for name, values in space.recipes.items():
            config = config.with_recipe(name, values[-1])
        yield "the last value of each", config


def _with_weights_per_tensor(space: TuningSpace, config: QuantConfig) -> QuantConfig:
    changes = {}
    for tunable in space.tunables:
        for option in tunable.quantized:
            if option.weight is not None and option.weight.granularity == "per_tensor":
                changes.update(dict.fromkeys(tunable.ops, option))
                break
    return config.with_ops(changes)
