"""Tune a PyTorch module with Intel Neural Compressor 2.6 (FX), and write down what was found.

Run with the Python that has it: ``python tune_module_inc.py CASE TOLERANCE SECONDS``, with this
repository in ``PYTHONPATH``. Prints one line of JSON.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import json
import logging
from pathlib import Path
import sys
import tempfile
import time
from typing import Any
import warnings

import numpy as np
import torch

from benchmarks.cases import load_case
from benchmarks.torch_modules import module_of


BATCH = 64
_ROUNDS = 60
_EVALUATED = 250
_LAYERS = ("Conv2d", "ConvReLU2d", "Linear", "LinearReLU")


def main(folder: Path, tolerance: float, seconds: float) -> dict[str, Any]:
    """Tune, and time what was found beside FP32."""
    from neural_compressor import quantization
    from neural_compressor.config import AccuracyCriterion
    from neural_compressor.config import PostTrainingQuantConfig
    from neural_compressor.config import TuningCriterion
    from neural_compressor.config import options

    torch.set_num_threads(1)
    case, module = load_case(folder), module_of(folder)
    x, labels = torch.from_numpy(case.x), case.y
    evaluations = 0

    def accuracy(model: Callable[[torch.Tensor], torch.Tensor]) -> float:
        nonlocal evaluations
        evaluations += 1
        with torch.no_grad():
            classes = [model(part).argmax(1).numpy() for part in x.split(_EVALUATED)]
        return float((np.concatenate(classes) == labels).mean())

    samples = torch.utils.data.TensorDataset(
        torch.from_numpy(case.calibration), torch.zeros(len(case.calibration))
    )
    config = PostTrainingQuantConfig(
        accuracy_criterion=AccuracyCriterion(tolerable_loss=tolerance),
        tuning_criterion=TuningCriterion(timeout=int(seconds), max_trials=1000),
    )
    options.workspace = tempfile.mkdtemp()
    start = time.process_time()
    found = quantization.fit(
        module,
        config,
        calib_dataloader=torch.utils.data.DataLoader(samples, batch_size=32),
        eval_func=accuracy,
    )
    searched, used = time.process_time() - start, evaluations
    fp32 = accuracy(module)
    answer = None if found is None else found.model
    compiled = torch.compile(module_of(folder))
    models = {"eager": module, "compiled": compiled}
    if answer is not None:
        models["answer"] = answer
    return {
        "met": answer is not None,
        "loss": None if answer is None else (fp32 - accuracy(answer)) / fp32,
        "evaluations": used,
        "cpu_seconds": searched,
        "quantized": 0 if answer is None else _quantized(answer),
        "seconds": _times(models, x[:BATCH]),
    }


def _quantized(model: torch.nn.Module) -> int:
    """How many convolutions and linear layers run on integers."""
    kinds = [type(each) for each in model.modules()]
    return sum("quantized" in kind.__module__ and kind.__name__ in _LAYERS for kind in kinds)


def _times(models: dict[str, Any], x: torch.Tensor) -> dict[str, float]:
    """The quickest of many runs of each, in turns."""
    quickest = dict.fromkeys(models, float("inf"))
    with torch.no_grad():
        for model in models.values():
            for _ in range(3):
                model(x)
        for _ in range(_ROUNDS):
            for name, model in models.items():
                start = time.perf_counter()
                model(x)
                quickest[name] = min(quickest[name], time.perf_counter() - start)
    return quickest


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(sys.stderr):
        result = main(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
    print(json.dumps(result))
