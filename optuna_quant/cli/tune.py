"""The command ``optuna-quant tune``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import fields
from dataclasses import replace
from functools import partial
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.spent import every_evaluation_failed
from optuna_quant.cli import exit_codes
from optuna_quant.cli.artifact_dir import artifact_store
from optuna_quant.cli.building import check_calibration
from optuna_quant.cli.endings import MODELS
from optuna_quant.cli.endings import check_ending
from optuna_quant.cli.messages import say
from optuna_quant.cli.messages import with_flags
from optuna_quant.cli.messages import write_result
from optuna_quant.cli.options import given_options
from optuna_quant.cli.options import required_model
from optuna_quant.cli.options import storage_given
from optuna_quant.cli.values import files_read
from optuna_quant.cli.values import fraction_of
from optuna_quant.cli.values import read_holdout
from optuna_quant.cli.values import read_values
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.metrics.criterion import default_criterion
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.report import check_report
from optuna_quant.storages.errors import storage_errors
from optuna_quant.storages.open import open_storage
from optuna_quant.study.names import default_name
from optuna_quant.study.names import find_name
from optuna_quant.study.others import running_now
from optuna_quant.study.start import start_study
from optuna_quant.tuning.call import Call
from optuna_quant.tuning.call import shell_command
from optuna_quant.tuning.errors import OutputError
from optuna_quant.tuning.options.collect import collect
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import storage_file
from optuna_quant.tuning.prepare import prepare
from optuna_quant.tuning.run import run_search
from optuna_quant.tuning.status import MET
from optuna_quant.tuning.status import status_of
from optuna_quant.tuning.strategies import choose_strategy
from optuna_quant.tuning.summary import shown_best
from optuna_quant.workers.launch import RANKS
from optuna_quant.workers.launch import Rank


if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

    from optuna_quant._common.option_kinds import Plain
    from optuna_quant.dashboard import PublishToDashboard
    from optuna_quant.evaluation.metrics.sample_metrics import Metric
    from optuna_quant.storages.artifacts import ArtifactStore
    from optuna_quant.tuning.result import TuningResult
    from optuna_quant.tuning.setup import TuningSetup


@storage_errors()
def run(args: argparse.Namespace, rank: Rank) -> int:
    """Search, and write what was found.

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
    given = given_options(args, TuneOptions)
    if storage_given(given) is not None:
        given["storage"] = storage_given(given)
    model = required_model(args)
    values = _values(given, rank)
    accuracy = values["accuracy_criterion"]
    # The file of an evaluation may have defined a strategy of the user's.
    strategy = choose_strategy(values.get("quant_level"), values["tuning_criterion"].strategy)
    check_calibration(given)
    output = _check_files(args, model, given, rank)
    store = artifact_store(args)
    callbacks = _callbacks(store)
    _check_machines(given, rank)
    shown = rank.is_leader and not args.quiet
    values["output"] = output if rank.is_leader else None
    request = collect(TuneOptions, {**values, "model": model})
    call = Call("shell", shell_command(args.words), request.seed)
    search = replace(prepare(request), call=call)
    if not rank.is_leader:
        search = replace(search, holdout=None)  # What is kept aside is; the first evaluates it.
    # The samplers write heartbeats of their own.
    storage = open_storage(_address(given, output), heartbeat=False)
    if args.fresh:
        search.check_objective()
    study = _study(args, given, search, model, storage, rank, store)
    before = len(study.get_trials(deepcopy=False))
    if shown:
        say(f"Tuning {model} with the strategy {strategy!r}: {accuracy}.")
        if not rank.is_alone:
            say(f"{rank.size} processes share the work; this one shows its own trials.")
        say(_where_it_starts(study, before))
    problem = None
    try:
        result = run_search(
            search,
            storage=storage,
            study_name=study.study_name,
            options=replace(request.search, show_progress=shown, callbacks=callbacks),
            on_stuck=partial(_end_stuck, rank),
        )
    except OutputError as error:
        result, problem = error.result, error
    if shown and result.met and len(result.study.get_trials(deepcopy=False)) == before:
        say(
            f"The answer comes from the record of that study; the strategy {strategy!r} had "
            "nothing left to do (--fresh starts over)."
        )
    if rank.is_leader:
        return _finish(result, args, output, problem)
    interrupted = result.stopped_because == StopReason.INTERRUPTED
    return exit_codes.INTERRUPTED if interrupted else exit_codes.MET


def _callbacks(store: ArtifactStore | None) -> tuple[PublishToDashboard, ...]:
    """What publishes models for the dashboard, if that is asked for."""
    if store is None:
        return ()
    from optuna_quant.dashboard import PublishToDashboard

    return (PublishToDashboard(artifact_store=store),)


def _study(
    args: argparse.Namespace,
    given: Mapping[str, Any],
    search: TuningSetup,
    model: Path,
    storage: BaseStorage,
    rank: Rank,
    store: ArtifactStore | None,
) -> optuna.Study:
    """The study, started over if asked."""
    name = given.get("study_name")
    names = [name] if name else [default_name(model.stem, search.model)]
    if not name:
        # What an earlier version gave it. Only one process may look for it while it is deleted.
        names = (
            [*names, model.stem] if args.fresh else [find_name(storage, model.stem, search.model)]
        )
    return start_study(
        storage,
        names,
        search.criterion.direction,
        model=search.model,
        fresh=args.fresh,
        rank=rank,
        say=say if rank.is_leader and not args.quiet else None,
        before_deletion=None if store is None else partial(_remove_files, store),
    )


def _remove_files(store: ArtifactStore, study: optuna.Study) -> None:
    from optuna_quant.dashboard.forget import remove_files

    remove_files(study, store)


def _values(given: Mapping[str, Plain], rank: Rank) -> dict[str, Any]:
    """The options as Python takes them, with the criterion as the command understands it."""
    named = read_values(_some(given, ["metric"]), TuneOptions)
    criterion = [field.name for field in fields(AccuracyCriterion)]
    tuning = [field.name for field in fields(TuningCriterion)]
    values = {
        **named,
        "accuracy_criterion": _accuracy_criterion(given, named.get("metric")),
        "tuning_criterion": TuningCriterion(**read_values(_some(given, tuning), TuneOptions)),
    }
    done = {"metric", "holdout", *criterion, *tuning}
    values |= read_values(_some(given, given.keys() - done), TuneOptions)
    holdout = given.get("holdout")
    # All must leave out the same samples, but one alone evaluates a set of its own.
    if holdout is not None and (rank.is_leader or fraction_of(holdout) is not None):
        values["holdout"] = read_holdout(given)
    return values


def _some(given: Mapping[str, Plain], names: Iterable[str]) -> dict[str, Plain]:
    chosen = set(names)
    return {name: value for name, value in given.items() if name in chosen}


def _check_files(
    args: argparse.Namespace, model: Path, given: Mapping[str, Any], rank: Rank
) -> Path:
    """The output; no file that is written may be one of those that are read."""
    read = {"model": model, **files_read(given, TuneOptions)}
    if args.config is not None:
        read["file of --config"] = Path(args.config)
    output = Path(given.get("output") or f"{model.stem}.quantized.onnx")
    if not rank.is_leader:
        return output
    check_output(output, inputs=read)  # A folder has no journal beside it.
    journal = storage_file(_address(given, output))
    kept = {} if journal is None else {"storage": journal}
    check_output(output, inputs=read | kept)
    if args.report is not None:
        check_report(args.report, inputs={**read, **kept, "output": output})
    check_ending("--output", output, MODELS)
    return output


def _end_stuck(rank: Rank, reason: str) -> None:
    """End this process, of which a thread is lost; called in another one."""
    say("error: This process ends here; the same command continues, without that candidate.")
    # Another code than 0 would make a launcher end the others as well.
    os._exit(exit_codes.FAILED if rank.is_leader else exit_codes.MET)


def _where_it_starts(study: optuna.Study, trials: int) -> str:
    if not trials:
        return "The FP32 model is evaluated first."
    count = f"{trials} trial{'' if trials == 1 else 's'}"
    if running_now(study):
        return f"The study {study.study_name!r} has {count}; other processes are working on it."
    status = status_of(study)
    best = ""
    if status.best:
        best = f"; {'best' if status.outcome == MET else 'closest'} so far: {status.best}"
    return (
        f"Resuming the study {study.study_name!r}, which has {count}{best} (--fresh starts over)."
    )


def _address(given: Mapping[str, Any], output: Path) -> str | Path:
    return given.get("storage") or output.with_suffix(".optuna_quant.journal")


def _check_machines(given: Mapping[str, Any], rank: Rank) -> None:
    """A file is for one machine; that several use it may work, but not with one each."""
    if not rank.on_several_machines:
        return
    if given.get("storage") is None:
        raise ValueError(
            f"The {rank.size} processes run on several machines, but the journal file beside "
            "the output is for one machine: give --storage "
            "postgresql://USER:PASSWORD@HOST/NAME, or another server that all of them can "
            f"reach. (If each is to search on its own, set {RANKS}=1.)"
        )
    if rank.is_leader and storage_file(given["storage"]) is not None:
        say(
            f"warning: The {rank.size} processes run on several machines, but a file is for one "
            "machine. If they do not all see the same file, or its locks do not work across "
            "machines, work is done twice or the record is damaged. Use a server, such as "
            "postgresql://..."
        )


def _finish(
    result: TuningResult, args: argparse.Namespace, output: Path, problem: OSError | None
) -> int:
    """Write the files, show the result, and say with the exit code what it was."""
    said, problems = [str(result)], [] if problem is None else [str(problem)]
    # Before anything is printed: the reader of that may go away.
    if result.met:
        if problem is None:
            said.append(f"written: {output}")
    elif result.is_fp32:
        said.append(f"{shown_best(result)}; nothing was written to {output}.{_stale(output)}")
    elif args.closest and result.config is not None:
        try:
            result.save(output, closest=True)
            said.append(f"written, although it does not meet the criterion: {output}")
        except OSError as error:
            problems.append(f"The output {str(output)!r} could not be written: {error}")
    elif result.config is not None:
        how = " (--closest writes the closest model)"
        said.append(f"not written: {output}{how}.{_stale(output)}")
    if args.report is not None:
        try:
            result.save_report(args.report)
            said.append(f"report: {args.report}")
        except (OSError, ValueError) as error:
            problems.append(f"The report {args.report!r} could not be written: {error}")
    interrupted = result.stopped_because == StopReason.INTERRUPTED
    if interrupted:
        said.append("The same command continues from here.")
    write_result(
        with_flags("\n".join(said)), good=result.met and result.is_better_than_fp32 is not False
    )
    for text in problems:
        say(f"error: {text}")
    if interrupted:
        return exit_codes.INTERRUPTED
    # Where nothing could be evaluated, nothing is known of the criterion.
    failed = every_evaluation_failed(result.study.get_trials(deepcopy=False))
    if problems or (failed and not result.is_fp32):
        return exit_codes.FAILED
    if result.is_better_than_fp32 is False:
        return exit_codes.NO_GAIN
    return exit_codes.MET if result.met else exit_codes.NOT_MET


def _stale(output: Path) -> str:
    return " The file there is from an earlier search." if output.exists() else ""


def _accuracy_criterion(given: Mapping[str, Any], metric: Metric | None) -> AccuracyCriterion:
    if (given.get("evaluate") is None) == (given.get("data") is None):
        raise ValueError(
            "Give either --evaluate FILE.py:FUNC (a function of your own) or --data X.npz "
            "(labelled data)."
        )
    of_data = {"metric": "metric", "output_names": "output-name"}
    of_data["evaluation_threads"] = "evaluation-threads"
    for name, flag in of_data.items():
        if given.get(name) is not None and given.get("data") is None:
            raise ValueError(
                f"--{flag} goes with --data; a function of --evaluate reads the model's outputs "
                "itself."
            )
    # Where nothing says it, a name that is that of an error is refused later.
    higher_is_better = given.get("higher_is_better")
    kind = given.get("criterion", "relative")
    if given.get("data") is not None:
        found = as_metric_of(metric or "accuracy", higher_is_better=higher_is_better)
        if higher_is_better is not None and found.higher_is_better != higher_is_better:
            flag = "--higher-is-better" if higher_is_better else "--lower-is-better"
            raise ValueError(f"{flag} does not go with --metric {found.name}.")
        if not found.higher_is_better:
            higher_is_better = False
        kind = given.get("criterion") or default_criterion(found)
    return AccuracyCriterion(
        higher_is_better=higher_is_better,  # type: ignore[arg-type]  # None: nothing says it.
        criterion=kind,
        tolerable_loss=given.get("tolerable_loss", 0.01),
    )
