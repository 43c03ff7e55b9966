"""What the command line does, on top of the library."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
import importlib
import importlib.util
import json
import math
import os
from pathlib import Path
import socket
import sys
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.printable import printable
from optuna_quant.backends.default import make_backend
from optuna_quant.backends.default import session_options
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.exit_policy import every_evaluation_failed
from optuna_quant.callbacks.tuning_criterion import TuningCriterion
from optuna_quant.cli import exit_codes
from optuna_quant.cli.compare import run_compare
from optuna_quant.costs.given import as_costs
from optuna_quant.costs.space_costs import SpaceCosts
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.data.constant_inputs import files_of_inputs
from optuna_quant.data.constant_inputs import parse_inputs
from optuna_quant.evaluation.holdout_split import as_fraction
from optuna_quant.evaluation.metrics.criterion import default_criterion
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.objects import is_metric_object
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import Metric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.evaluation.user_code import shown
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.storages.address import shown_address
from optuna_quant.storages.errors import storage_errors
from optuna_quant.storages.open import open_storage
from optuna_quant.study.names import default_name
from optuna_quant.study.names import find_name
from optuna_quant.study.others import running_now
from optuna_quant.study.start import start_study
from optuna_quant.tuning.earlier_study import parse_from_study
from optuna_quant.tuning.errors import OutputError
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import storage_file
from optuna_quant.tuning.search import prepare
from optuna_quant.tuning.strategies import choose_strategy
from optuna_quant.workers.launch import RANKS
from optuna_quant.workers.launch import Rank


if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from collections.abc import Sequence

    import optuna
    import pandas as pd

    from optuna_quant.backends.default import DefaultBackend
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.result import TuningResult


@storage_errors()
def tune(args: argparse.Namespace, rank: Rank) -> int:
    """``optuna-quant tune``: search, and write what was found.

    Args:
        args:
            The arguments.
        rank:
            Which of the processes this is that were started together. The first one reports and
            writes what was found; all search.

    Returns:
        The exit code. Of a process that only searches, "not met" is none: a launcher would take it
        for a failure and end the others.
    """
    metric = _metric(args.metric)
    accuracy = _accuracy_criterion(args, metric)
    tuning = TuningCriterion(
        timeout=args.timeout,
        max_trials=args.max_trials,
        strategy=args.strategy,
        strategy_kwargs=_json("--strategy-kwargs", args.strategy_kwargs),
        objective=args.objective,
        stop_at_first=args.stop_at_first,
    )
    quant_level = int(args.quant_level) if args.quant_level in ("0", "1") else args.quant_level
    # First, since the file may define a strategy of the user's.
    evaluate = None if args.evaluate is None else load_function(args.evaluate)
    strategy = choose_strategy(quant_level, args.strategy)
    if args.calibration is None and args.approach != "dynamic":
        raise ValueError(
            f"--calibration is needed for --approach {args.approach or 'static'}: an .npz file "
            "with samples such as the model sees when it is used. Without any, --approach dynamic "
            "is possible."
        )
    model, output = _check_files(args, rank)
    _check_machines(args, rank)
    search = prepare(
        model,
        calibration_data=args.calibration,
        calibration_sizes=args.calibration_samples and [args.calibration_samples],
        evaluate=evaluate,
        data=args.data,
        metric=metric,
        metric_bounds=args.metric_bounds and tuple(args.metric_bounds),
        output_names=args.output_name,
        inputs=parse_inputs(args.input),
        transform=args.transform and _load("--transform", args.transform, "transform", ()),
        batch_size=args.batch_size,
        evaluation_threads=args.evaluation_threads,
        evaluation_timeout=args.evaluation_timeout,
        evidence=args.evidence,
        error_probability=args.error_probability,
        holdout=_holdout(args, rank),
        verify=args.verify,
        accuracy_criterion=accuracy,
        tuning_criterion=tuning,
        quant_level=quant_level,
        output=output if rank.is_leader else None,
        seed=args.seed,
        session_options=session_options(threads=args.threads),
        cache_dir=args.cache_dir,
        costs=args.costs,
        measure_gain=args.measure_gain,
        from_study=None if args.from_study is None else parse_from_study(args.from_study),
        **_model_options(args),
    )
    if not rank.is_leader:
        search = replace(search, holdout=None)  # What is kept aside is; the first evaluates it.
    # The samplers write heartbeats of their own.
    storage = open_storage(_address(args, output), heartbeat=False)
    names = [args.study_name] if args.study_name else [default_name(model.stem, search.model)]
    if not args.study_name:
        # What an earlier version gave it. Only one process may look for it while it is deleted.
        names = (
            [*names, model.stem] if args.fresh else [find_name(storage, model.stem, search.model)]
        )
    study_name = names[0]
    study = start_study(
        storage,
        names,
        accuracy.direction,
        model=search.model,
        fresh=args.fresh,
        rank=rank,
        say=_say if rank.is_leader and not args.quiet else None,
    )
    before = len(study.get_trials(deepcopy=False))
    shown = rank.is_leader and not args.quiet
    if shown:
        _say(f"Tuning {model} with the strategy {strategy!r}: {accuracy}.")
        if not rank.is_alone:
            _say(f"{rank.size} processes share the work; this one shows its own trials.")
        _say(_beginning(study, before))
    problem = None
    try:
        result = search.run(
            storage=storage,
            study_name=study_name,
            show_progress=shown,
            n_jobs=args.jobs,
            on_stuck=partial(_end_stuck, rank),
        )
    except OutputError as error:
        result, problem = error.result, error
    if shown and result.met and len(result.study.get_trials(deepcopy=False)) == before:
        _say(
            f"The answer is from the record of that study; the strategy {strategy!r} had nothing "
            "to do (--fresh begins anew)."
        )
    if rank.is_leader:
        return _finish(result, args, output, problem)
    interrupted = result.stopped_because == StopReason.INTERRUPTED
    return exit_codes.INTERRUPTED if interrupted else exit_codes.MET


def _end_stuck(rank: Rank, reason: str) -> None:
    """End this process, of which a thread is lost; called in another one."""
    _say("error: This process ends here; the same command goes on, without that candidate.")
    # Another code than 0 would make a launcher end the others as well.
    os._exit(exit_codes.FAILED if rank.is_leader else exit_codes.MET)


def _beginning(study: optuna.Study, trials: int) -> str:
    if not trials:
        return "The FP32 model is evaluated first."
    count = f"{trials} trial{'' if trials == 1 else 's'}"
    if running_now(study):
        return f"The study {study.study_name!r} has {count}; other processes are at work on it."
    return (
        f"Going on with the study {study.study_name!r}, which has {count} (--fresh begins anew)."
    )


def _check_files(args: argparse.Namespace, rank: Rank) -> tuple[Path, Path]:
    """The model and the output; no file that is written may be one of those that are read."""
    model = _existing_file("the model", args.model)
    read = {"model": model}
    if args.calibration is not None:
        read["calibration file"] = _data_path("--calibration", args.calibration)
    if args.transform is not None:
        read["file of --transform"] = _function_file(args.transform, "--transform", "transform")[0]
    read |= files_of_inputs(args.input)
    if args.costs is not None:
        read["file of --costs"] = _existing_file("--costs", args.costs)
    if args.data is not None:
        read["data file"] = _data_path("--data", args.data)
    if args.evaluate is not None:
        read["evaluation file"] = _function_file(args.evaluate)[0]
    if args.holdout is not None and _fraction(args.holdout) is None:
        read["hold-out file"] = (
            _data_path("--holdout", args.holdout)
            if args.evaluate is None
            else _function_file(args.holdout, "--holdout")[0]
        )
    for option in ("strategy_kwargs", "op_type_dict", "op_name_dict"):
        text = getattr(args, option) or ""
        if text.startswith("@"):
            read[f"file of --{option.replace('_', '-')}"] = Path(text[1:])
    output = Path(args.output or f"{model.stem}.quantized.onnx")
    if not rank.is_leader:
        return model, output
    journal = storage_file(_address(args, output))
    kept = {} if journal is None else {"storage": journal}
    check_output(output, inputs=read | kept)
    if args.report is not None:
        check_output(args.report, "report", inputs={**read, **kept, "output": output})
    return model, output


def _address(args: argparse.Namespace, output: Path) -> str | Path:
    return args.storage or output.with_suffix(".optuna_quant.journal")


def _check_machines(args: argparse.Namespace, rank: Rank) -> None:
    """A file is for one machine; that several use it may work, but not with one each."""
    if not rank.on_several_machines:
        return
    if args.storage is None:
        raise ValueError(
            f"The {rank.size} processes run on several machines, and the journal file beside the "
            "output is for one: give --storage postgresql://USER:PASSWORD@HOST/NAME, or another "
            f"server that all of them reach. (If each is to search on its own, set {RANKS}=1.)"
        )
    if rank.is_leader and storage_file(args.storage) is not None:
        _say(
            f"warning: The {rank.size} processes run on several machines, but a file is for one. "
            "If they do not all see the same file, or locks do not reach beyond a machine, work "
            "is done twice or the record is damaged. Use a server, such as postgresql://..."
        )


def _finish(
    result: TuningResult, args: argparse.Namespace, output: Path, problem: OSError | None
) -> int:
    """Write the files, show the result, and say with the exit code what it was."""
    said, problems = [str(result)], [] if problem is None else [str(problem)]
    # Before anything is printed: whoever reads that may go away.
    if result.met:
        if problem is None:
            said.append(f"written: {output}")
    elif result.is_fp32:
        best = "FP32 itself is the best model here"
        said.append(f"{best}; nothing was written to {output}.{_stale(output)}")
    elif args.closest and result.config is not None:
        try:
            result.save(output, closest=True)
            said.append(f"written, though it does not meet the criterion: {output}")
        except OSError as error:
            problems.append(f"The output {str(output)!r} could not be written: {error}")
    elif result.config is not None:
        how = " (--closest writes the closest model)"
        said.append(f"not written: {output}{how}.{_stale(output)}")
    if args.report is not None and result.config is not None:
        try:
            result.report().to_csv(args.report, index=False)
            said.append(f"report: {args.report}")
        except OSError as error:
            problems.append(f"The report {args.report!r} could not be written: {error}")
    interrupted = result.stopped_because == StopReason.INTERRUPTED
    if interrupted:
        said.append("The same command goes on from here.")
    print("\n".join(said))
    for text in problems:
        _say(f"error: {text}")
    if interrupted:
        return exit_codes.INTERRUPTED
    # Where nothing could be evaluated, nothing is known of the criterion.
    failed = every_evaluation_failed(result.study.get_trials(deepcopy=False))
    if problems or (failed and not result.is_fp32):
        return exit_codes.FAILED
    if result.pays is False:
        return exit_codes.NO_GAIN
    return exit_codes.MET if result.met else exit_codes.NOT_MET


def _stale(output: Path) -> str:
    return " What is there is from an earlier search." if output.exists() else ""


def space(args: argparse.Namespace) -> int:
    """``optuna-quant space``: show the tuning space of a model."""
    options = _model_options(args)
    model = _existing_file("the model", args.model)
    read = {"model": model}
    given = (
        {"inspect_only": True}
        if args.calibration is None
        else {"calibration_data": _data_path("--calibration", args.calibration)}
    )
    if args.save_costs is not None:
        check_output(args.save_costs, "file of --save-costs", inputs=read)
    backend = make_backend(
        model,
        approach=options.pop("approach"),
        inputs=parse_inputs(args.input),
        session_options=session_options(threads=args.threads),
        **given,
    )
    if args.why:
        return _why(args, backend, options)
    found = backend.tuning_space(**options)
    frame = found.to_frame()
    costs = _space_costs(args, backend, found)
    columns = ["op", "op_type", "options", "default", "fallback"]
    if costs is not None:
        frame = costs.add_to(frame, shown=not (args.json or args.csv))
        columns += ["fp32", "quantized", "gain"]
    if args.json:
        print(frame.to_json(orient="records", indent=2))
    elif args.csv:
        print(frame.to_csv(index=False), end="")
    else:
        print(_table(frame[columns]))
        print(f"\n{_shown_size(found)}")
        weights = backend.float_weights(found.default())
        if weights.is_worth_saying:
            print(f"{weights.shown_part} are weights of other ops, which stay in floats (--why).")
        for line in [] if costs is None else costs.summary():
            print(line)
    return exit_codes.MET


def _space_costs(
    args: argparse.Namespace, backend: DefaultBackend, found: TuningSpace
) -> SpaceCosts | None:
    """What the ops cost: as given, or measured if there are samples to do so."""
    if args.costs is not None:
        costs = as_costs(args.costs, found)
    elif args.calibration is not None:
        costs = backend.costs(found)
    elif args.save_costs is not None:
        raise ValueError(
            "--save-costs needs --calibration: what ops cost is measured on samples such as the "
            "model sees when it is used."
        )
    else:
        return None
    if args.save_costs is not None:
        costs.save(args.save_costs)
        _say(f"The costs are in {args.save_costs}.")
    return SpaceCosts(found, costs)


def compare(args: argparse.Namespace) -> int:
    """``optuna-quant compare``: measure two models."""
    for option, name in (("the first model", args.first), ("the second model", args.second)):
        _existing_file(option, name)
    for option, name in (("--data", args.data), ("--calibration", args.calibration)):
        if name is not None:
            _data_path(option, name)
    return run_compare(
        args,
        metric=_metric(args.metric),
        inputs=parse_inputs(args.input),
        transform=args.transform and _load("--transform", args.transform, "transform", ()),
    )


def _why(args: argparse.Namespace, backend: DefaultBackend, options: dict[str, Any]) -> int:
    """Show what the tuning space leaves out; all of it if there is no space."""
    try:
        chosen = backend.tuning_space(**options)
    except ValueError as error:
        chosen = None
        _say(f"{error}")
    frame = backend.left_out(chosen)
    costs = None if chosen is None else _space_costs(args, backend, chosen)
    if costs is not None:
        frame = costs.with_left_out(frame)
    if args.json:
        print(frame.to_json(orient="records", indent=2))
    elif args.csv:
        print(frame.to_csv(index=False), end="")
    elif frame.empty:
        print("No op that could be quantized is left out.")
    else:
        frame["weights"] = [shown_bytes(size) if size else "" for size in frame["weight_bytes"]]
        print(_table(frame[["op", "op_type", "weights", "reason", "remedy"]]))
    return exit_codes.MET


def _metric(spec: str | None) -> Metric | None:
    """The metric that ``--metric`` names: one of ours, or one of a file."""
    if spec is None or ".py" not in spec:
        return spec
    found: Metric = _load("--metric", spec, "metric", (SampleMetric, CorpusMetric))
    return found


def _fraction(text: str) -> float | None:
    """The part of the data that ``--holdout`` says; :obj:`None` if it names a file."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if Path(text).exists() else as_fraction(number)


def _holdout(args: argparse.Namespace, rank: Rank) -> Any:
    """The hold-out set: a part of the data, or data or a function, as the search is given."""
    fraction = None if args.holdout is None else _fraction(args.holdout)
    if fraction is not None:
        return fraction  # All must leave out the same samples.
    if not rank.is_leader:
        return None
    if args.holdout is None or args.evaluate is None:
        return args.holdout
    file, name = _function_file(args.holdout, "--holdout")
    searched, its_name = _function_file(args.evaluate)
    if name == its_name and file.samefile(searched):
        raise ValueError(
            f"--holdout and --evaluate are the same function ({args.evaluate}): that of --holdout "
            "must evaluate other samples, which the search does not see."
        )
    return _load("--holdout", args.holdout, "evaluate", ())


def load_function(spec: str) -> Callable[[Any], Any]:
    """The function that ``FILE.py:FUNC`` names.

    Args:
        spec:
            The file and the function's name; without a name, ``evaluate``.

    Raises:
        ValueError:
            If there is no such file, it cannot be run, or it has no such function.
    """
    loaded: Callable[[Any], Any] = _load("--evaluate", spec, "evaluate", ())
    return loaded


def _load(option: str, spec: str, default: str, kinds: tuple[type, ...]) -> Any:
    """A function, or an object of one of these kinds, from a file."""
    path, function = _function_file(spec, option, default)
    description = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if description is None or description.loader is None:
        raise ValueError(f"{option}: {str(path)!r} is no Python file.")
    module = importlib.util.module_from_spec(description)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # So that it can import what is beside it.
    sys.modules.setdefault(path.stem, module)
    try:
        description.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # A file that calls sys.exit does not end the command.
        raise ValueError(f"{option}: {str(path)!r} cannot be run: {shown(error)}") from error
    found = getattr(module, function, None)
    is_metric = bool(kinds) and is_metric_object(found)
    if not callable(found) and not isinstance(found, kinds) and not is_metric:
        have = [
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        ]
        raise ValueError(
            f"{option}: {str(path)!r} has no function {function!r}; it has: "
            f"{', '.join(have) or 'none'}."
        )
    return found


def _function_file(
    spec: str, option: str = "--evaluate", default: str = "evaluate"
) -> tuple[Path, str]:
    """The file and the name in ``FILE.py:FUNC``."""
    name, colon, function = spec.rpartition(":")
    if not colon or not function.isidentifier():
        name, function = spec, default
    return _existing_file(option, name), function


def _accuracy_criterion(args: argparse.Namespace, metric: Metric | None) -> AccuracyCriterion:
    if (args.evaluate is None) == (args.data is None):
        raise ValueError(
            "Give either --evaluate FILE.py:FUNC (a function of your own) or --data X.npz "
            "(labelled data)."
        )
    for option in ("metric", "output_name", "evaluation_threads"):
        if getattr(args, option) is not None and args.data is None:
            raise ValueError(
                f"--{option.replace('_', '-')} goes with --data; a function of --evaluate looks "
                "at the model's outputs itself."
            )
    higher_is_better, kind = not args.lower_is_better, args.criterion or "relative"
    if args.data is not None:
        # A criterion of the command line always says it: without the option, higher is better.
        found = as_metric_of(metric or "accuracy", higher_is_better=higher_is_better)
        if found.higher_is_better and args.lower_is_better:
            raise ValueError(f"--lower-is-better does not go with --metric {found.name}.")
        higher_is_better = found.higher_is_better
        kind = args.criterion or default_criterion(found)
    return AccuracyCriterion(
        higher_is_better=higher_is_better,
        criterion=kind,
        tolerable_loss=args.tolerable_loss,
    )


def _model_options(args: argparse.Namespace) -> dict[str, Any]:
    types: str | Sequence[str] = args.op_types
    if types not in ("default", "all"):
        types = [part.strip() for part in args.op_types.split(",") if part.strip()]
    return {
        "approach": args.approach,
        "op_types": types,
        "op_type_dict": _json("--op-type-dict", args.op_type_dict),
        "op_name_dict": _json("--op-name-dict", args.op_name_dict),
    }


def _json(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if text.startswith("@"):
        text = _existing_file(option, text[1:]).read_text()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{option} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{option} must be a JSON object, but got {text!r}.")
    return value


def _data_path(option: str, name: str) -> Path:
    """A file or a folder of labelled data."""
    path = Path(name)
    return path if path.is_dir() else _existing_file(option, name)


def _existing_file(what: str, name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"{what[0].upper()}{what[1:]}: there is no file {name!r}.")
    return path


def _say(text: str) -> None:
    print(f"optuna-quant: {printable(text)}", file=sys.stderr, flush=True)


def _table(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), *frame.astype(str).to_numpy().tolist()]
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _shown_size(found: TuningSpace) -> str:
    ops = sum(len(tunable.ops) for tunable in found.tunables)
    size = f"{found.size:,}" if found.size < 10**9 else f"about 10^{math.log10(found.size):.0f}"
    return f"{ops} ops, {len(found.parameters)} parameters, {size} configurations"


def serve(args: argparse.Namespace) -> int:
    """``optuna-quant serve``: a storage for many workers, through one process."""
    try:
        # Optuna would say so only when it is used.
        importlib.import_module("grpc")
    except ImportError as error:
        raise ValueError("serve needs gRPC. Run: pip install grpcio protobuf") from error
    from optuna.storages import run_grpc_proxy_server

    address = args.storage
    if "://" not in address or address.split("://")[0] in ("redis", "rediss", "unix", "grpc"):
        raise ValueError(
            f"--storage {shown_address(address)!r} cannot be served: behind Optuna's gRPC proxy "
            "there must be a database (postgresql://..., mysql://..., sqlite:///FILE)."
        )
    storage = open_storage(address)
    # A second server on the same port would be no error to gRPC.
    with socket.create_server((args.host, args.port)):
        pass
    _say(
        f"Serving on {args.host}, port {args.port}: workers use --storage "
        f"grpc://HOST:{args.port}. Ctrl-C ends it."
    )
    with contextlib.suppress(KeyboardInterrupt):
        run_grpc_proxy_server(storage, host=args.host, port=args.port)
    return exit_codes.MET
