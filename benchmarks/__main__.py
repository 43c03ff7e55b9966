"""Run the benchmarks: ``python -m benchmarks [NAME ...] [--cases DIRECTORY]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
import importlib
from pathlib import Path
import warnings

import optuna


NAMES = (
    "import_time",
    "ask",
    "replay",
    "storage_cost",
    "parallel",
    "claims",
    "build",
    "calibration_memory",
    "weight_only_memory",
    "weight_only_peer",
    "trial_overhead",
    "bayesian",
    "model_based",
    "strategies",
    "answers",
    "other_samples",
    "anytime",
    "block_groups",
    "coverage",
    "selection",
    "early_stopping",
    "decision_overhead",
    "evaluation_threads",
    "costs",
    "peers",
    "pareto",
    "recipes",
    "ranges",
    "float_types",
    "acceptance",
    "warm_start",
    "ways",
    "torch_switch",
    "torch_cases",
    "torch_peer",
    "torch_inc",
    "torch_qat",
    "smollm2_search",
    "smollm2_blocks",
    "dashboard",
)
NEED_CASES = ("acceptance", "build", "peers", "torch_cases", "torch_inc")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--cases", type=Path, help="a directory with a folder per case: model.onnx, calib.npz"
    )
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for name in args.names or NAMES:
        if name in NEED_CASES and args.cases is None:
            print(f"\n== {name}: left out, it needs --cases")
            continue
        print(f"\n== {name}")
        run: Callable[[Path | None], None] = importlib.import_module(f"benchmarks.{name}").run
        run(args.cases)


if __name__ == "__main__":
    main()
