"""The command ``optuna-quant space``."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.backends.default import make_backend
from optuna_quant.cli import exit_codes
from optuna_quant.cli.loading import data_path
from optuna_quant.cli.messages import say
from optuna_quant.cli.options import SPACE_OPTIONS
from optuna_quant.cli.options import given_options
from optuna_quant.cli.options import required_model
from optuna_quant.cli.tables import print_table
from optuna_quant.cli.values import read_values
from optuna_quant.costs.given import as_costs
from optuna_quant.costs.space_costs import SpaceCosts
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.tuning.options.runtime import RuntimeOptions
from optuna_quant.tuning.output import check_output


if TYPE_CHECKING:
    from optuna_quant.backends.default import DefaultBackend
    from optuna_quant.space.space import TuningSpace


def run(args: argparse.Namespace) -> int:
    """Show the tuning space of a model."""
    given = read_values(given_options(args, TuneOptions, only=SPACE_OPTIONS), TuneOptions)
    model = required_model(args)
    calibration = given.get("calibration_data")
    data: dict[str, Any] = (
        {"inspect_only": True}
        if calibration is None
        else {"calibration_data": data_path("--calibration", calibration)}
    )
    if args.save_costs is not None:
        check_output(args.save_costs, "file of --save-costs", inputs={"model": model})
    backend = make_backend(
        model,
        approach=given.get("approach"),
        target=given.get("target"),
        inputs=given.get("inputs"),
        recipes=given.get("recipes"),
        session_options=RuntimeOptions(threads=given.get("threads")).session(),
        **data,
    )
    options: dict[str, Any] = {
        name: given[name] for name in ("op_types", "op_type_dict", "op_name_dict") if name in given
    }
    if args.why:
        return _why(args, given, backend, options)
    found = backend.tuning_space(**options)
    frame = found.to_frame()
    costs = _space_costs(args, given, backend, found)
    columns = ["op", "op_type", "options", "default", "fallback"]
    if costs is not None:
        frame = costs.add_to(frame, shown=args.format == "table")
        columns += ["fp32", "quantized", "gain"]
    print_table(frame, args.format, columns)
    if args.format == "table":
        print(f"\n{_shown_size(found)}")
        weights = backend.float_weights(found.default())
        if weights.is_worth_saying:
            print(f"{weights.shown_part} are weights of other ops, which stay in floats (--why).")
        for line in [] if costs is None else costs.summary():
            print(line)
    return exit_codes.MET


def _space_costs(
    args: argparse.Namespace,
    given: dict[str, Any],
    backend: DefaultBackend,
    found: TuningSpace,
) -> SpaceCosts | None:
    """What the ops cost: as given, or measured if there are samples to do so."""
    if given.get("costs") is not None:
        costs = as_costs(given["costs"], found)
    elif given.get("calibration_data") is not None:
        costs = backend.costs(found)
    elif args.save_costs is not None:
        raise ValueError(
            "--save-costs needs --calibration: what ops cost is measured on samples like those "
            "the model will see in use."
        )
    else:
        return None
    if args.save_costs is not None:
        costs.save(args.save_costs)
        say(f"Costs written to {args.save_costs}.")
    return SpaceCosts(found, costs)


def _why(
    args: argparse.Namespace,
    given: dict[str, Any],
    backend: DefaultBackend,
    options: dict[str, Any],
) -> int:
    """Show what the tuning space leaves out; all of it if there is no space."""
    try:
        chosen = backend.tuning_space(**options)
    except ValueError as error:
        chosen = None
        say(f"{error}")
    frame = backend.left_out(chosen)
    costs = None if chosen is None else _space_costs(args, given, backend, chosen)
    if costs is not None:
        frame = costs.with_left_out(frame)
    if args.format != "table":
        print_table(frame, args.format)
    elif frame.empty:
        print("No op that could be quantized is left out.")
    else:
        frame["weights"] = [shown_bytes(size) if size else "" for size in frame["weight_bytes"]]
        print_table(frame, "table", ["op", "op_type", "weights", "reason", "remedy"])
    return exit_codes.MET


def _shown_size(found: TuningSpace) -> str:
    ops = sum(len(tunable.ops) for tunable in found.tunables)
    size = f"{found.size:,}" if found.size < 10**9 else f"about 10^{math.log10(found.size):.0f}"
    counts = ((ops, "op"), (len(found.parameters), "parameter"), (size, "configuration"))
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)
