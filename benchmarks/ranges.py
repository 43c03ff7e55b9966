"""Plain static INT8 with the ranges of activations by each algorithm: accuracy, as a table.

Every op that is quantized by default, weights per channel, calibrated on all samples of a case.
"""

from __future__ import annotations

import logging
from pathlib import Path

from benchmarks.cases import DEMO
from benchmarks.cases import load_case
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


CASES = ("digits_dscnn_uneq", "digits_vit_out", "fashion_mobilenet", "fashion_vit")
ALGORITHMS = ("minmax", "percentile", "kl", "mse", "mean_minmax")


def run(cases: Path | None) -> None:
    logging.disable(logging.WARNING)
    print(f"| case | FP32 | {' | '.join(ALGORITHMS)} |")
    print(f"| --- | {' | '.join(['---:'] * (1 + len(ALGORITHMS)))} |")
    for folder in [DEMO] if cases is None else [DEMO, *(cases / name for name in CASES)]:
        case = load_case(folder)
        backend = OnnxRuntimeBackend(
            case.model, calibration_data={case.input_name: case.calibration}
        )
        evaluate = case.accuracy()
        configs = [backend.tuning_space().fp32()]
        for algorithm in ALGORITHMS:
            wish = {".*": {"activation": {"algorithm": [algorithm]}}}
            configs.append(backend.tuning_space(op_type_dict=wish).default())
        found = [f"{evaluate(backend.quantize(config).session):.4f}" for config in configs]
        print(f"| {case.name} | {' | '.join(found)} |", flush=True)
