"""What an earlier study saves: evaluations' worth cold, warm, and warm after fine-tuning.

For each case the search is run without an earlier study; with it on the unchanged model; and on
the model with its weights moved by 1% and by 3% (normally distributed, relative to each), without
an earlier study and with that of the original model. Beside each figure are the ops in fallback of
the answer. ``CASES`` chooses some, separated by commas; ``SEED`` is that of the moved weights.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.cases import load_case
import optuna_quant
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult


CASES = ("digits_dscnn_uneq", "digits_vit_out", "fashion_mobilenet")
# Whose weights are quantized per tensor, since per channel nothing is lost.
PER_TENSOR = ("fashion_mobilenet",)
MOVED = (0.01, 0.03)


def run(cases: Path | None) -> None:
    """Print the table."""
    if cases is None:
        print("left out, it needs --cases")
        return
    seed = int(os.environ.get("SEED", "0"))
    heads = ["cold", "unchanged"]
    heads += [f"{how}, {100 * by:g}%" for by in MOVED for how in ("cold", "warm")]
    print("evaluations' worth, with the ops in fallback in brackets (! where nothing is met)")
    print(f"{'case':20} {'with':9}" + "".join(f"{head:>13}" for head in heads))
    for name in os.environ.get("CASES", ",".join(CASES)).split(","):
        case = load_case(cases / name)
        for given in ("data", "evaluate"):
            cold = search(case, case.model, given)
            found = [cold, search(case, case.model, given, from_study=cold)]
            for by in MOVED:
                model = moved(case.model, by, seed=seed)
                found += [search(case, model, given), search(case, model, given, from_study=cold)]
            print(f"{name:20} {given:9}" + "".join(f"{_shown(each):>13}" for each in found))


def search(case: Case, model: Any, given: str, **kwargs: Any) -> TuningResult:
    """Search for the fewest ops in fallback, until the first answer."""
    of_data = {case.input_name: case.x, "labels": case.y}
    evaluation: dict[str, Any] = (
        {"data": of_data} if given == "data" else {"evaluate": case.accuracy()}
    )
    per_tensor = {".*": {"weight": {"granularity": ["per_tensor"]}}}
    return optuna_quant.tune(
        model,
        calibration_data={case.input_name: case.calibration},
        op_type_dict=per_tensor if case.name in PER_TENSOR else None,
        tuning_criterion=TuningCriterion(objective="ops"),
        recipes="none",
        measure_gain=False,
        verify=False,
        **evaluation,
        **kwargs,
    )


def moved(path: Path, by: float, *, seed: int) -> bytes:
    """The model with its weights moved, as fine-tuning moves them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype == np.float32 and weights.size > 1:
            changed = weights * (1 + by * rng.standard_normal(weights.shape))
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), tensor.name))
    serialized: bytes = model.SerializeToString()
    return serialized


def _shown(result: TuningResult) -> str:
    missed = "" if result.met else "!"
    return f"{result.full_evaluations:.2f} ({len(result.fallback_ops)}){missed}"
