"""Building one trial's model from cached calibration, against the stock tool in every trial."""

from __future__ import annotations

from collections.abc import Iterator
import itertools
import logging
from pathlib import Path
import tempfile

import numpy as np
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization import quantize_static

from benchmarks.cases import load_case
from benchmarks.timing import alternating
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


class Reader(CalibrationDataReader):
    def __init__(self, name: str, samples: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(samples, len(samples) // 32))
        self._name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def run(cases: Path | None) -> None:
    logging.disable(logging.WARNING)
    case = load_case((cases or Path()) / "fashion_vit")
    backend = OnnxRuntimeBackend(case.model, calibration_data={case.input_name: case.calibration})
    space = backend.tuning_space()
    backend.calibrate()
    # Another configuration each time, so that nothing is taken from a cache of whole models.
    ops = [tunable.name for tunable in space.tunables]
    subsets = itertools.chain.from_iterable(
        itertools.combinations(ops, count) for count in range(1, 4)
    )
    configs = (space.default().with_fallback(*subset) for subset in subsets)
    with tempfile.TemporaryDirectory() as folder:

        def stock() -> None:
            quantize_static(
                case.model,
                Path(folder) / "stock.onnx",
                Reader(case.input_name, case.calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            )

        ours, theirs = alternating(lambda: backend.quantize(next(configs)), stock, repeat=5)
    print(f"{case.name}, {len(case.calibration)} calibration samples, {len(ops)} ops")
    print(f"from cached calibration: {1e3 * ours:8.1f} ms")
    print(f"quantize_static:         {1e3 * theirs:8.1f} ms   {theirs / ours:.0f} times")
