"""The command ``optuna-quant compare``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from collections.abc import Callable


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands:
            The parser's commands.
    """
    parser = commands.add_parser(
        "compare",
        help="measure two models: time, size, agreement of outputs, accuracy",
        description="Measure two models in turn on the same inputs: the time of a run, the size "
        "of the file, how far the outputs agree, and the metric if data are given. B is compared "
        "with A.",
    )
    parser.add_argument("first", metavar="A.onnx", help="the first model, often FP32")
    parser.add_argument("second", metavar="B.onnx", help="the second one")
    parser.add_argument(
        "--data", metavar="X.npz", help="labelled data for the metric, as for tune"
    )
    parser.add_argument("--metric", help="the metric on --data, as for tune (default: accuracy)")
    parser.add_argument(
        "--calibration",
        metavar="X.npz",
        help="samples without labels to run the models on, as for tune (default: those of --data, "
        "else random inputs)",
    )
    parser.add_argument(
        "--output-name",
        metavar="NAME",
        action="append",
        help="the output of the model that the metric is of (default: the first output)",
    )
    parser.add_argument(
        "--input",
        metavar="NAME=VALUE",
        action="append",
        help="an input that is the same for all samples, as for tune",
    )
    parser.add_argument(
        "--transform",
        metavar="FILE.py:NAME",
        help="function that makes the input of what the data hold of one sample, as for tune",
    )
    for option, default, told in (
        ("--threads", None, "the threads of a run (default: all cores)"),
        ("--batch", 1, "how many samples a run has, unless the model says it (default: 1)"),
        ("--rounds", 50, "how often each model is measured (default: 50)"),
        ("--samples", 64, "on how many samples outputs are compared, at most (default: 64)"),
    ):
        parser.add_argument(option, metavar="N", type=_positive, default=default, help=told)
    parser.add_argument("--seed", type=int, default=0, help="seed of random inputs")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--verbose", action="store_true", help="show where an error comes from")


def run_compare(
    args: argparse.Namespace,
    *,
    metric: Any = None,
    inputs: dict[str, Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
) -> int:
    """Run the command.

    Args:
        args:
            The arguments.
        metric:
            What ``--metric`` names.
        inputs:
            What ``--input`` says.
        transform:
            What ``--transform`` names.
    """
    from optuna_quant.tuning.compare import compare

    found = compare(
        args.first,
        args.second,
        data=args.data,
        metric=metric,
        calibration_data=args.calibration,
        output_names=args.output_name,
        inputs=inputs,
        transform=transform,
        batch=args.batch,
        threads=args.threads,
        rounds=args.rounds,
        samples=args.samples,
        seed=args.seed,
    )
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, but is {value}")
    return value
