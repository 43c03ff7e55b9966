"""What an op loses in float16 and bfloat16, as a part of what it loses in INT8.

One op at a time, simulated for a target that has both types: the squared move of the model's
outputs on 64 samples, over that by the op in its default option. Least, median and most of the
ops that have the type.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from benchmarks.cases import DEMO
from benchmarks.cases import load_case
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import QuantConfig


CASES = ("digits_dscnn_uneq", "digits_vit_out", "fashion_vit")
TARGET = "tensorrt"
MODES = {"fp16": "float16", "bf16": "bfloat16"}
SAMPLES = 64


def run(cases: Path | None) -> None:
    logging.disable(logging.WARNING)
    print("| case | type | ops | least | median | most |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for folder in [DEMO] if cases is None else [DEMO, *(cases / name for name in CASES)]:
        _measure(folder)


def _measure(folder: Path) -> None:
    case = load_case(folder)
    backend = OnnxRuntimeBackend(
        case.model, calibration_data={case.input_name: case.calibration}, target=TARGET
    )
    space = backend.tuning_space()
    feed = {case.input_name: case.x[:SAMPLES]}
    (exact,) = backend.quantize(space.fp32()).run(feed)

    def moved(config: QuantConfig) -> float:
        (found,) = backend.quantize(config).run(feed)
        return float(np.mean((found - exact) ** 2))

    parts: dict[str, list[float]] = {mode: [] for mode in MODES}
    for tunable in space.tunables:
        default = moved(tunable.set(space.fp32(), tunable.default))
        for option in tunable.fallbacks:
            if option.mode in parts and default:
                parts[option.mode].append(moved(tunable.set(space.fp32(), option)) / default)
    for mode, found in parts.items():
        if found:
            shown = " | ".join(f"{part:.1e}" for part in np.quantile(found, [0, 0.5, 1]))
            print(f"| {case.name} | {MODES[mode]} | {len(found)} | {shown} |", flush=True)
