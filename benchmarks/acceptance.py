"""What recipes save: how many ops the default strategy leaves in FP32 with them and without.

The cases with unequal channels and with outliers, at the tolerances that plain INT8 misses by far;
every search with ``data=`` and the fewest ops in FP32 as its objective.
"""

from __future__ import annotations

import logging
from pathlib import Path
import warnings

from benchmarks.cases import load_case
from optuna_quant import tune


TASKS = (
    ("digits_dscnn_uneq", 0.02, "equalization"),
    ("digits_vit_out", 0.004, "smooth_quant"),
)


def run(cases: Path | None) -> None:
    assert cases is not None
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print("| case | absolute tolerance | recipe | met | ops in FP32 | loss | trials |")
    print("| --- | ---: | --- | --- | ---: | ---: | ---: |")
    for name, tolerance, recipe in TASKS:
        case = load_case(cases / name)
        for recipes in (None, [recipe]):
            result = tune(
                case.model,
                calibration_data={case.input_name: case.calibration},
                data={case.input_name: case.x, "labels": case.y},
                metric="accuracy",
                criterion="absolute",
                tolerable_loss=tolerance,
                objective="ops",
                recipes=recipes,
                show_progress=False,
                measure_gain=False,
            )
            value = "none" if recipes is None else result.config.recipes[recipe]
            offered = "none" if recipes is None else f"`{recipe}={value}`"
            print(
                f"| {name} | {tolerance} | {offered} | {'yes' if result.met else 'no'} | "
                f"{len(result.fallback_ops)} | {result.loss:.4f} | {len(result.study.trials)} |",
                flush=True,
            )
