"""The command ``optuna-quant``.

What takes long to import is imported by the commands, in ``optuna_quant.cli.commands``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Any

from optuna_quant._common.printable import printable
from optuna_quant._common.version import __version__
from optuna_quant.cli.compare import add_compare
from optuna_quant.cli.exit_codes import BAD_INPUT
from optuna_quant.cli.exit_codes import EXPLAINED
from optuna_quant.cli.exit_codes import FAILED
from optuna_quant.cli.exit_codes import INTERRUPTED
from optuna_quant.cli.standard_streams import standard_streams
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.workers.launch import Rank
from optuna_quant.workers.launch import this_rank


# The threads in which batches are run; they end with the evaluation, unless a run hangs.
THREADS = "optuna_quant_data"

# A full disk, a quota, a broken disk.
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

_EPILOG = f"""\
{EXPLAINED}
lines of progress:
  "met, not yet the answer": the model is good enough, but the strategy sees a chance to quantize
  more of it. It goes on, and comes back to this one if nothing better is found.

example:
  optuna-quant tune model.onnx --calibration calib.npz --evaluate my_eval.py:evaluate

  where my_eval.py has a function that gets an onnxruntime.InferenceSession and returns the
  metric as one number:

    def evaluate(session):
        scores = session.run(None, {{"x": X}})[0]
        return (scores.argmax(axis=1) == Y).mean()
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv:
            The arguments. Default: those of the process.

    Returns:
        The exit code: 0 met, 1 not met, 2 bad input, 3 failed on the way, 4 no gain, 130
        interrupted.
    """
    with standard_streams() as streams:
        code, is_verdict = _main(argv)
        lost = streams.lost_output()
        if lost is not None:
            print(f"optuna-quant: the output could not be written: {lost}", file=sys.stderr)
            # A verdict holds whoever reads it; of another command the output is all there is.
            code = code if is_verdict else code or FAILED
    if argv is None and any(t.name.startswith(THREADS) for t in threading.enumerate()):
        os._exit(code)  # Python would wait for a run that was given up and does not come back.
    return code


def _main(argv: Sequence[str] | None) -> tuple[int, bool]:
    """Run the command; gives the exit code, and whether it is a verdict on what was searched."""
    try:
        rank = this_rank()
    except ValueError as error:
        print(f"optuna-quant: error: {error}", file=sys.stderr)
        return BAD_INPUT, False
    speaker = "optuna-quant" if rank.is_leader else f"optuna-quant: rank {rank.number}"
    try:
        args = _parse(argv, rank, speaker)
    except SystemExit as error:  # argparse has said what is wrong, or has shown the help.
        return error.code if isinstance(error.code, int) else BAD_INPUT, False
    return _run(args, rank, speaker), args.command == "tune"


def _run(args: argparse.Namespace, rank: Rank, speaker: str) -> int:
    with _noted_interrupts() as interrupts:
        try:
            from optuna_quant.cli import commands

            with (
                exits_are_errors("Something that this command has called"),
                _messages(speaker, verbose=args.verbose, quiet=getattr(args, "quiet", False)),
            ):
                if args.command == "tune":
                    return commands.tune(args, rank)
                command = getattr(commands, args.command)
                return int(command(args))
        except KeyboardInterrupt:
            print(f"{speaker}: interrupted", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            return _say_what_is_wrong(
                speaker, error, verbose=args.verbose, interrupted=bool(interrupts)
            )


def _parse(argv: Sequence[str] | None, rank: Rank, speaker: str) -> argparse.Namespace:
    """The arguments. Of processes that were started together one shows the help and the usage."""
    if rank.is_leader:
        return _parser().parse_args(argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            return _parser().parse_args(argv)
    except SystemExit:
        # The launcher may end the others before they have said anything.
        for line in said.getvalue().splitlines()[-1:]:
            print(f"{speaker}: {line}", file=sys.stderr)
        raise


def _say_what_is_wrong(speaker: str, error: Exception, *, verbose: bool, interrupted: bool) -> int:
    if verbose:
        traceback.print_exc()
    text = printable(" ".join(str(error).split())) or type(error).__name__
    expected = isinstance(error, ValueError | TypeError | OSError | ImportError)
    kind = "" if expected else f"{type(error).__name__}: "
    if interrupted:
        print(f"{speaker}: interrupted ({kind}{text})", file=sys.stderr)
        return INTERRUPTED
    hint = "" if verbose else " (--verbose shows where)"
    print(f"{speaker}: error: {kind}{text}{hint}", file=sys.stderr)
    return BAD_INPUT if expected and not _is_of_the_machine(error) else FAILED


def _is_of_the_machine(error: Exception) -> bool:
    """Whether it is no fault of what was given: a lost server, a full disk."""
    from optuna_quant.storages.errors import StorageError

    return isinstance(error, ConnectionError | TimeoutError | StorageError) or (
        isinstance(error, OSError) and error.errno in _MACHINE
    )


@contextlib.contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Note every Ctrl-C: compiled modules that are just imported raise ImportError for it.

    SIGTERM is taken for one: it is what launchers and clusters send first, and the trial that is
    cut short can be given back at once. So is SIGHUP, when the terminal is closed.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    if hasattr(signal, "SIGHUP"):  # With nohup it is ignored, and stays so.
        usual[signal.SIGHUP] = signal.SIG_DFL
    in_main = threading.current_thread() is threading.main_thread()
    taken = [number for number in usual if in_main and signal.getsignal(number) is usual[number]]
    for number in taken:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number in taken:
            signal.signal(number, usual[number])


class _Lines(logging.Formatter):
    """Each message in one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


@contextlib.contextmanager
def _messages(speaker: str, *, verbose: bool, quiet: bool) -> Iterator[None]:
    """Write what the libraries have to say to stderr, in lines of our own."""
    import warnings

    import optuna

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"{speaker}: warning: {printable(str(message))}", file=sys.stderr, flush=True)

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(f"{speaker}: %(message)s"))
    if not verbose and not quiet:
        # The progress line of a failed trial says the same.
        handler.addFilter(lambda entry: not getattr(entry, "in_progress_line", False))
    logger = logging.getLogger("optuna_quant")
    level, verbosity = logger.level, optuna.logging.get_verbosity()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            if not verbose:
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        optuna.logging.set_verbosity(verbosity)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optuna-quant",
        description="Find a quantized version of a model that keeps to an accuracy criterion.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"optuna-quant {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tune = commands.add_parser(
        "tune",
        help="search for a quantized model that meets the criterion",
        description="Search for a quantized model that meets an accuracy criterion.\n\nThe same "
        "command goes on where an earlier one ended; started several times on one\n--storage, or "
        "under mpirun or srun, it shares the work.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(tune)
    _add_evaluation(tune)
    _add_search(tune)
    _add_record(tune)
    space = commands.add_parser(
        "space",
        help="show which ops of a model can be quantized, and how",
        description="Show the tuning space of a model: a row for each op.",
    )
    _add_model(space)
    form = space.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON, with all columns")
    form.add_argument("--csv", action="store_true", help="as CSV, with all columns")
    space.add_argument(
        "--why",
        action="store_true",
        help="show instead which ops are left out, and why",
    )
    space.add_argument(
        "--calibration",
        metavar="X.npz",
        help="calibration samples, as for tune: what each op costs is measured on the first one",
    )
    space.add_argument(
        "--input",
        metavar="NAME=VALUE",
        action="append",
        help="an input that is the same for all samples, as for tune",
    )
    _add_threads(space)
    _add_costs(space)
    space.add_argument(
        "--save-costs", metavar="FILE", help="write what each op costs to a JSON file"
    )
    space.add_argument("--verbose", action="store_true", help="show where an error comes from")
    add_compare(commands)
    _add_serve(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser(
        "serve",
        help="put a gRPC proxy in front of a storage, for many workers",
        description="Serve a storage to many workers: they use --storage grpc://HOST:PORT, and "
        "only this process connects to the database. It asks for no password: let only your "
        "workers reach it.",
    )
    serve.add_argument(
        "--storage", metavar="URL", required=True, help="what is served, as for tune"
    )
    serve.add_argument(
        "--host",
        default="localhost",
        help="the address to listen on; 0.0.0.0 for all of this machine (default: localhost)",
    )
    serve.add_argument(
        "--port", type=_port, default=13000, help="the port to listen on (default: 13000)"
    )
    serve.add_argument("--verbose", action="store_true", help="show where an error comes from")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the ONNX model; it is not changed")
    parser.add_argument(
        "--approach",
        choices=("static", "dynamic", "auto"),
        help="static quantization (needs --calibration), dynamic, or auto: static first, dynamic "
        "for ops that allow it (default: static; auto for a model of which 5 percent or more are "
        "the weights of ops that only dynamic quantization takes: LSTM)",
    )
    parser.add_argument(
        "--op-types",
        metavar="TYPES",
        default="default",
        help="which ops to tune: 'default' (those whose quantization pays), 'all', or op types "
        "separated by commas (Conv,Gemm)",
    )
    parser.add_argument(
        "--op-type-dict",
        metavar="JSON",
        help="what to allow, by op type, as JSON or @FILE: "
        '{"Conv": {"weight": {"granularity": ["per_channel"]}}}',
    )
    parser.add_argument(
        "--op-name-dict",
        metavar="JSON",
        help="what to allow, by op name (a regular expression); goes over --op-type-dict",
    )


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data and evaluation")
    group.add_argument(
        "--calibration",
        metavar="X.npz",
        help="calibration samples: an array for each input of the model, under its name; or a "
        "folder with a file .npy for each, or a folder of images",
    )
    group.add_argument(
        "--calibration-samples",
        metavar="N",
        type=_positive,
        help="use only the first N of them",
    )
    group.add_argument(
        "--evaluate",
        metavar="FILE.py:FUNC",
        help="function that gets an onnxruntime.InferenceSession and returns the metric, or one "
        "score for each sample; with a parameter named indices it is asked for some of them "
        "(FUNC may be left out if it is named evaluate)",
    )
    group.add_argument(
        "--data",
        metavar="X.npz",
        help="instead of --evaluate: labelled data, the inputs under their names and 'labels'; or "
        "a folder with a file .npy for each, or a folder with images in a folder for each class; "
        "without labels for agreement, cosine and relative_error. A model is then evaluated on no "
        "more samples than it takes to decide about it",
    )
    group.add_argument(
        "--metric",
        help="the metric on --data: accuracy, top5 (or another number), exact_match, iou, mse or "
        "mae; with scikit-learn f1, f1_macro, roc_auc, r2, log_loss, ...; without labels, how far "
        "the output agrees with the FP32 model's: agreement (of classes), cosine or "
        "relative_error; or FILE.py:NAME, a function that gets the model's output and the labels "
        "and gives the score of each sample, an optuna_quant.SampleMetric, or an object of "
        "torchmetrics (default: accuracy)",
    )
    group.add_argument(
        "--metric-bounds",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="between what values the score of each sample is, if the metric does not say it",
    )
    group.add_argument(
        "--output-name",
        metavar="NAME",
        action="append",
        help="the output of the model that the metric is of; given several times, a function of "
        "--metric gets a tuple of them (default: the first output)",
    )
    group.add_argument(
        "--input",
        metavar="NAME=VALUE",
        action="append",
        help="an input of the model that is the same for all samples, such as a sampling rate or "
        "the first state: a number (which fills the whole input), true or false, a JSON list, "
        "@FILE.npy, or a text; once for each such input",
    )
    group.add_argument(
        "--transform",
        metavar="FILE.py:NAME",
        help="function that gets what the data hold of one sample, an array or an image, and "
        "returns the input as the model takes it, without an axis of samples; for --data, "
        "--holdout and --calibration",
    )
    group.add_argument(
        "--batch-size",
        metavar="N",
        type=_positive,
        help="how many samples of --data are run at once (default: 64, but 1 for models with "
        "dynamic quantization, in which what a sample gets depends on its batch)",
    )
    group.add_argument(
        "--evaluation-threads",
        metavar="N",
        type=_positive,
        help="how many batches of --data are run at the same time; without --threads they share "
        "the cores (default: 2, or 1 with --threads or on one core)",
    )
    group.add_argument(
        "--evaluation-timeout",
        metavar="SECONDS",
        type=float,
        help="end an evaluation that takes longer, so that one that hangs does not hold up all "
        "workers; a candidate fails then, and is not tried again (default: no limit)",
    )
    group.add_argument(
        "--evidence",
        choices=("paired", "unpaired", "exact", "off"),
        help="how a model is given up before it has seen all of --data: by bets on its scores and "
        "their differences to the FP32 model's, on its scores alone, only for certain, or not at "
        "all (default: paired)",
    )
    group.add_argument(
        "--error-probability",
        metavar="P",
        type=float,
        default=1e-3,
        help="with what probability a model that meets the criterion may be given up (default: "
        "0.001)",
    )
    group.add_argument(
        "--holdout",
        metavar="PART|FILE",
        help="samples that the search does not see: a part of --data such as 0.3, others in the "
        "form of --data, or with --evaluate a second function FILE.py:FUNC; the model that was "
        "found is evaluated there once, at the end",
    )
    group.add_argument(
        "--no-verify",
        action="store_false",
        dest="verify",
        help="do not evaluate the model that was found a second time, which shows whether its "
        "metric is reproducible (with --data a few samples tell)",
    )
    group = parser.add_argument_group("criterion")
    group.add_argument(
        "--tolerable-loss",
        metavar="LOSS",
        type=float,
        default=0.01,
        help="the largest loss that is good enough (default: 0.01)",
    )
    group.add_argument(
        "--criterion",
        choices=("relative", "absolute"),
        help="whether the loss is a part of the FP32 model's metric (0.01: one percent), or in "
        "units of the metric (default: relative; absolute for relative_error, which FP32 has none "
        "of)",
    )
    group.add_argument(
        "--lower-is-better", action="store_true", help="the metric is an error or a loss"
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("search")
    group.add_argument(
        "--strategy",
        metavar="NAME",
        help="auto, basic, conservative, exhaustive, random, ... (default: auto)",
    )
    group.add_argument("--strategy-kwargs", metavar="JSON", help="options of the strategy")
    group.add_argument(
        "--quant-level",
        choices=("auto", "0", "1"),
        help="as in neural-compressor; instead of --strategy",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=0,
        help="0: stop at the first model that meets the criterion; otherwise search for so long "
        "and take the best; 'none': no limit of time (default: 0). It counts the time in which "
        "the study's trials ran, over all runs of the command",
    )
    group.add_argument(
        "--max-trials",
        metavar="N",
        type=_positive_or_none,
        default=100,
        help="the most models that are evaluated, or 'none' (default: 100)",
    )
    group.add_argument(
        "--stop-at-first",
        action="store_true",
        default=None,
        help="with --timeout SECONDS: stop at the first model that meets the criterion all the "
        "same",
    )
    group.add_argument(
        "--objective",
        metavar="WHAT",
        help="the best of the models that meet the criterion: latency (the fastest on this "
        "machine), size (the smallest), ops (the fewest in FP32), multiply_adds, bit_operations, "
        "or weights of several, each relative to FP32: latency=0.7,size=0.3 (default: latency, "
        "where measured costs of ops predict that of models; otherwise size)",
    )
    _add_costs(group)
    group.add_argument(
        "--no-gain",
        action="store_false",
        dest="measure_gain",
        help="do not measure the model that was found beside FP32 at the end",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of all that is random")
    group.add_argument(
        "--jobs",
        metavar="N",
        type=_positive,
        default=1,
        help="evaluate so many models at a time, in threads of this process (default: 1)",
    )
    _add_threads(group)


def _add_costs(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--costs",
        metavar="FILE",
        help="what each op costs in each option, as the command space has written it with "
        "--save-costs on the machine that counts (default: it is measured here)",
    )


def _add_threads(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--threads",
        metavar="N",
        type=_positive,
        help="the threads with which ONNX Runtime runs one model; give 1 where several processes "
        "share a machine (default: all cores)",
    )


def _add_record(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output and record")
    group.add_argument(
        "--output",
        metavar="OUT.onnx",
        help="where the best model so far is kept (default: NAME.quantized.onnx in this "
        "directory, for a model NAME.onnx)",
    )
    group.add_argument(
        "--closest",
        action="store_true",
        help="if no model meets the criterion, write the one that comes closest",
    )
    group.add_argument(
        "--report", metavar="OUT.csv", help="write what was asked of each op, and what runs"
    )
    group.add_argument(
        "--storage",
        metavar="URL",
        help="where the record is kept: a file, sqlite:///FILE, postgresql://..., mysql://..., "
        "redis://..., or grpc://HOST:PORT (default: the file OUT.optuna_quant.journal beside the "
        "output)",
    )
    group.add_argument(
        "--study-name", metavar="NAME", help="its name there (default: the model's, and a hash)"
    )
    group.add_argument(
        "--from-study",
        metavar="NAME[@STORAGE]",
        help="begin with what an earlier study has taught, of the same model, a fine-tuned one, "
        "or one with the same op names: its name in the same storage, or NAME@STORAGE; @STORAGE "
        "for the only study there",
    )
    group.add_argument(
        "--fresh",
        action="store_true",
        help="delete what an earlier command has found for this model",
    )
    group.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="keep calibration statistics here, for other commands and for the next time",
    )
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="show the result only")
    volume.add_argument(
        "--verbose", action="store_true", help="show all messages, and where an error comes from"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, but is {value}")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"it must be from 1 to 65535, but is {value}")
    return value


def _positive_or_none(text: str) -> int | None:
    return None if text == "none" else _positive(text)


def _seconds(text: str) -> float | None:
    return None if text == "none" else float(text)
