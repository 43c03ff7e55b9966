"""The exit code says what happened, in every way in which the command can end."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

from cli.forked_commands import ForkedCommand
import numpy as np
import onnx
import onnx_models
from places import ROOT
import pytest
from zygote import Zygote

from optuna_quant.cli import exit_codes


EVALUATE = """
import ctypes, os, signal, sys, threading, time
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = np.load(os.path.join(HERE, "data.npz"))

def accuracy(session):
    return (session.run(None, {"x": DATA["x"]})[0].argmax(axis=1) == DATA["labels"]).mean()

def distance(session):
    return np.abs(session.run(None, {"x": DATA["x"]})[0] - DATA["scores"]).mean()

def is_fp32(session):
    return distance(session) < 1e-6

def exits(session):
    sys.exit(0)

def exits_later(session):
    return accuracy(session) if is_fp32(session) else sys.exit(0)

def exits_hard(session):
    os._exit(0 if False else 9)

def generator_exit(session):
    raise GeneratorExit

def out_of_memory(session):
    raise MemoryError

def out_of_memory_later(session):
    if not is_fp32(session) and not os.path.exists(os.path.join(HERE, "mended")):
        raise MemoryError("no 4096 bytes")
    return accuracy(session)

def recursion(session):
    return recursion(session)

def interrupt(session):
    raise KeyboardInterrupt

def crash(session):
    ctypes.string_at(0)

def talks(session):
    print("a line of the evaluation", flush=True)
    return accuracy(session)

def waits(session):
    value = accuracy(session)
    if not is_fp32(session):
        open(os.path.join(HERE, "waits"), "w").close()
        for _ in range(4000):
            time.sleep(0.05)
    return value

def stuck(session):
    if not is_fp32(session) and not os.path.exists(os.path.join(HERE, "waits")):
        open(os.path.join(HERE, "waits"), "w").close()
        for _ in range(2):
            ctypes.CDLL(None).pthread_mutex_lock(MUTEX)
    return accuracy(session)

MUTEX = ctypes.create_string_buffer(64)

def score(output, labels):
    sys.exit(0)
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose ops have names that are not ASCII, with data of which FP32 is always right."""
    folder = tmp_path_factory.mktemp("material")
    model = onnx_models.convnet()
    for node in model.graph.node:
        node.name = f"größe/{node.name}"
    onnx.save(model, folder / "net.onnx")
    x = onnx_models.samples(60, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    np.savez(folder / "calib.npz", x=x[:20])
    np.savez(folder / "data.npz", x=x, labels=scores.argmax(axis=1), scores=scores)
    np.savez(folder / "labelled.npz", x=x, labels=scores.argmax(axis=1))
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "exits.py").write_text("import sys\nsys.exit(0)\n")
    return folder


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in material.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    for name in ("PYTHONIOENCODING", "PYTHONUTF8"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


COMMAND = [
    sys.executable, "-c", "import sys; from optuna_quant.cli import main; sys.exit(main())",
]  # fmt: skip
TUNE = [
    "tune",
    "net.onnx",
    "--objective",
    "ops",
    # It needs no sensitivities, and so no process that is started imports torch.
    "--strategy",
    "basic",
    "--calibration",
    "calib.npz",
    "--output",
    "out.onnx",
]
# The quantized model never gives exactly the same: nothing can meet it.
IMPOSSIBLE = [
    "--lower-is-better", "--criterion", "absolute", "--tolerable-loss", "0", "--max-trials", "2",
    "--report", "report.csv", "--closest",
]  # fmt: skip


def tune(function: str, *options: str) -> list[str]:
    return [*TUNE, "--evaluate", f"evaluate.py:{function}", *options]


MET = tune("accuracy", "--tolerable-loss", "0.5", "--report", "report.csv")
NOT_MET = tune("distance", *IMPOSSIBLE)
OUTCOME_MET, OUTCOME_NOT_MET = (MET, 0), (NOT_MET, 1)


Start = Callable[[Sequence[str]], ForkedCommand]


@pytest.fixture
def start(zygote: Zygote, folder: Path) -> Start:
    """The command in a process of its own, in the folder."""
    return lambda args: ForkedCommand(zygote, args)


def in_shell(args: Sequence[str], around: str) -> subprocess.CompletedProcess[str]:
    """Run the command where ``around`` says ``@``; what the shell itself gets is captured."""
    words = " ".join(f"'{word}'" for word in [*COMMAND, *args])
    return subprocess.run(
        ["bash", "-c", around.replace("@", words)], capture_output=True, text=True
    )


# The outcome.


@pytest.mark.parametrize(("args", "code"), [OUTCOME_MET, OUTCOME_NOT_MET])
def test_outcome(start: Start, folder: Path, args: list[str], code: int) -> None:
    done = start(args).end()
    assert done.returncode == code
    assert (folder / "out.onnx").exists()
    assert (folder / "report.csv").exists()


@pytest.mark.parametrize(
    ("around", "args", "code"),
    [
        pytest.param(
            "@ | true; echo ${PIPESTATUS[0]} >code",
            *OUTCOME_MET,
            id="gone",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "@ | true; echo ${PIPESTATUS[0]} >code", *OUTCOME_NOT_MET, id="gone, not met"
        ),
        pytest.param(
            "@ 2>&1 | head -1; echo ${PIPESTATUS[0]} >code",
            *OUTCOME_MET,
            id="head",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "@ 2> >(true); echo $? >code", *OUTCOME_MET, id="stderr gone", marks=pytest.mark.slow
        ),
        pytest.param(
            "@ >&-; echo $? >code", *OUTCOME_MET, id="stdout closed", marks=pytest.mark.slow
        ),
        pytest.param("@ >&- 2>&- <&-; echo $? >code", *OUTCOME_NOT_MET, id="all closed"),
        pytest.param(
            "@ >/dev/full; echo $? >code", *OUTCOME_MET, id="full", marks=pytest.mark.slow
        ),
        pytest.param(
            "@ >/dev/full 2>&1; echo $? >code",
            *OUTCOME_NOT_MET,
            id="all full",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "PYTHONIOENCODING=ascii @; echo $? >code",
            *OUTCOME_MET,
            id="ascii",
            marks=pytest.mark.slow,
        ),
        # Among the fast tests with names that it lacks: see below.
        pytest.param(
            "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 @; echo $? >code",
            *OUTCOME_MET,
            id="C",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_outcome_does_not_depend_on_who_reads_it(
    folder: Path, around: str, args: list[str], code: int
) -> None:
    done = in_shell(args, around)
    assert (folder / "code").read_text().strip() == str(code)
    assert "Traceback" not in done.stderr
    # What was written went into no file of ours.
    assert onnx.load(folder / "out.onnx").graph.node
    assert (folder / "report.csv").read_text().startswith("op,op_type,")
    assert (folder / "out.optuna_quant.journal").read_text().startswith("{")


def test_output_that_is_lost_is_said(zygote: Zygote, folder: Path) -> None:
    done = ForkedCommand(zygote, MET, out=Path("/dev/full")).end()
    assert done.returncode == 0
    assert "the output could not be written: [Errno 28] No space left" in done.stderr


@pytest.mark.parametrize(
    "around",
    [
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 @",
        pytest.param("PYTHONIOENCODING=ascii @", marks=pytest.mark.slow),
    ],
)
def test_names_that_the_encoding_lacks_are_escaped(folder: Path, around: str) -> None:
    # One op in fallback, so that it is named.
    only = ["--op-name-dict", '{"gr.+e/Conv0": {"mode": ["fp32"]}}', "--op-types", "all"]
    done = in_shell([*MET, *only], around)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert r"gr\xf6\xdfe/Conv0" in done.stdout


def test_evaluation_that_prints_without_a_reader_does_not_fail(
    zygote: Zygote, folder: Path
) -> None:
    os.mkfifo(folder / "pipe")
    talks = tune("talks", "--tolerable-loss", "0.5")
    command = ForkedCommand(zygote, talks, out=folder / "pipe")
    (folder / "pipe").open().close()
    done = command.end()
    assert done.returncode == 0
    assert "failed" not in done.stderr


# What was given is wrong.


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (tune("accuracy", "--tolerable-loss", "-1"), "tolerable_loss must be a number"),
        ([*TUNE, "--no-such-option"], "there is no option --no-such-option"),
        ([*TUNE, "--absolute"], "there is no option --absolute: give --criterion absolute"),
        ([*TUNE, "--tuning-criterion", "x"], "no option --tuning-criterion: give --strategy, --t"),
        ([*TUNE, "--evaluate", "exits.py"], "'exits.py' cannot be run: sys.exit(0)"),
        ([*TUNE, "--data", "labelled.npz", "--metric", "exits.py:f"],
         "'exits.py' cannot be run: sys.exit(0)"),
        (tune("exits"), "The FP32 model could not be evaluated: ExitedError: The evaluation tried "
         "to end the process (sys.exit(0))."),
        ([*TUNE, "--data", "labelled.npz", "--metric", "evaluate.py:score", "--metric-bounds",
          "0", "1"], "tried to end the process (sys.exit(0))."),
        ([*TUNE, "--data", "labelled.npz", "--metric", "evaluate.py:score"],
         "tried to end the process (sys.exit(0))."),
        (tune("generator_exit"), "tried to end the process (GeneratorExit)."),
        (tune("out_of_memory"), "could not be evaluated: MemoryError"),
        (tune("recursion"), "could not be evaluated: RecursionError"),
        (["space", "no.onnx"], "there is no file 'no.onnx'"),
        (["serve", "--storage", "some.journal"], "cannot be served"),
    ],
)  # fmt: skip
def test_what_was_given_is_wrong(start: Start, args: list[str], message: str) -> None:
    done = start(args).end()
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_candidate_that_ends_the_process_fails_and_does_not(start: Start, jobs: str) -> None:
    options = ["--tolerable-loss", "0.5", "--max-trials", "1", "--jobs", jobs]
    done = start(tune("exits_later", *options)).end()
    assert done.returncode == exit_codes.FAILED
    assert "tried to end the process (sys.exit(0))" in done.stdout


# The search failed on the way.


def test_file_that_cannot_be_written_in_the_end_is_a_failure(start: Start, folder: Path) -> None:
    # The folder vanishes after it was checked.
    (folder / "reports").mkdir()
    text = (folder / "evaluate.py").read_text()
    text += "\ndef removes(session):\n    os.path.isdir('reports') and os.rmdir('reports')\n"
    (folder / "evaluate.py").write_text(text + "    return accuracy(session)\n")
    done = start(tune("removes", "--tolerable-loss", "0.5", "--report", "reports/r.csv")).end()
    assert done.returncode == 3
    assert done.stdout.startswith("A quantized model meets the criterion.")
    assert "written: out.onnx" in done.stdout
    assert "error: The report 'reports/r.csv' could not be written: " in done.stderr


def test_candidates_that_all_fail_are_a_failure(start: Start, folder: Path) -> None:
    command = tune("out_of_memory_later", "--tolerable-loss", "0.5")
    done = start(command).end()
    assert done.returncode == 3
    stopped = done.stdout.splitlines()[-1]
    assert stopped.startswith("stopped: Every candidate failed in the same way (")
    assert stopped.endswith("The reason: Not evaluated: MemoryError: no 4096 bytes")
    # The same command continues, with what failed as well.
    (folder / "mended").touch()
    again = start(command).end()
    assert again.returncode == 0
    assert "3 of 3 ops in integer kernels" in again.stdout


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_evaluation_that_cannot_be_ended_is_a_failure(start: Start, jobs: str) -> None:
    command = tune("stuck", "--tolerable-loss", "0.5", "--evaluation-timeout", "0.5")
    done = start([*command, "--jobs", jobs]).end()
    assert done.returncode == 3
    assert "evaluation_timeout=0.5 s and did not stop when it was interrupted" in done.stderr
    assert "error: This process ends here; the same command continues, without that" in done.stderr
    # It does, with another candidate.
    again = start(command).end()
    assert again.returncode == 0
    assert "did not stop when it was interrupted" not in again.stderr


def test_model_that_hangs_does_not_hold_up_the_end(start: Start, folder: Path) -> None:
    """In ONNX Runtime itself, in the threads in which batches are run."""
    body = onnx.parser.parse_graph(
        "b (int64 i, bool go, float[n, 4] v) => (bool go_on, float[n, 4] w) "
        "{ go_on = Identity(go) w = Relu(v) }"
    )
    m = onnx_models.Maker()
    x = m.input("x", ["N", 4])
    trips, go = m.const(np.int64(2**62)), m.const(np.bool_(True))
    looped = m.node("Loop", [trips, go, x], body=body)
    y = m.node("MatMul", [looped, m.weight(4, 3)])
    onnx.save(m.model([y]), folder / "endless.onnx")
    np.savez(folder / "x.npz", x=np.ones((300, 4), np.float32), labels=np.zeros(300, np.int64))
    done = start(
        ["tune", "endless.onnx", "--objective", "ops", "--approach", "dynamic", "--data", "x.npz",
         "--evaluation-timeout", "0.5", "--evaluation-threads", "2"],
    ).end()  # fmt: skip
    assert done.returncode == 2
    assert "EvaluationTimeout: it took longer than evaluation_timeout=0.5 s" in done.stderr


# Signals.


@pytest.mark.parametrize(
    ("number", "jobs"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 1),
        (signal.SIGHUP, 1),
        (signal.SIGINT, 2),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_interrupted(start: Start, folder: Path, number: signal.Signals, jobs: int) -> None:
    command = start(tune("waits", "--tolerable-loss", "0.5", "--jobs", str(jobs)))
    wait_for(lambda: (folder / "waits").exists())
    os.kill(command.pid, number)
    done = command.end()
    assert done.returncode == 130
    assert "The same command continues from here." in done.stdout


def test_hangup_is_ignored_under_nohup(zygote: Zygote, folder: Path) -> None:
    args = tune("waits", "--tolerable-loss", "0.5")
    command = ForkedCommand(zygote, args, ignored=[signal.SIGHUP])  # As nohup does.
    wait_for(lambda: (folder / "waits").exists())
    os.kill(command.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert not zygote.has_ended(command.pid)
    os.kill(command.pid, signal.SIGTERM)
    assert command.end().returncode == 130


def test_interrupt_that_the_evaluation_raises_is_one(start: Start) -> None:
    assert start(tune("interrupt")).end().returncode == 130


def test_killed(start: Start, folder: Path) -> None:
    command = start(tune("waits", "--tolerable-loss", "0.5"))
    wait_for(lambda: (folder / "waits").exists())
    os.kill(command.pid, signal.SIGKILL)
    assert command.end().returncode == -signal.SIGKILL  # 137 in a shell.


def test_crashed(start: Start) -> None:
    assert start(tune("crash")).end().returncode == -signal.SIGSEGV  # 139 in a shell.


def test_evaluation_that_ends_the_process_at_once_chooses_the_code(start: Start) -> None:
    assert start(tune("exits_hard")).end().returncode == 9


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The other commands.


SHOWING = [["space", "net.onnx", "--json"], ["tune", "--help"]]
AROUND = [
    ("@ >out.txt", 0),
    ("@ | head -1; exit ${PIPESTATUS[0]}", 0),
    ("@ >&-", 0),
    ("@ >/dev/full", 3),
    ("PYTHONIOENCODING=ascii @", 0),
]


@pytest.mark.parametrize(
    ("args", "around", "code"),
    [
        pytest.param(
            # Among the fast tests, names that are not ASCII; else what is shown at once.
            args,
            around,
            code,
            marks=() if j and (j == len(AROUND) - 1) == (i == 0) else pytest.mark.slow,
        )
        for i, args in enumerate(SHOWING)
        for j, (around, code) in enumerate(AROUND)
    ],
)
def test_commands_that_show_something(
    folder: Path, args: list[str], around: str, code: int
) -> None:
    done = in_shell(args, around)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# The table.


def test_help_and_documentation_have_the_same_codes() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text()
    section = page.partition("## Exit codes")[2].partition("## ")[0]
    in_page = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    in_help = re.findall(r"^  (\d+) +\S", exit_codes.EXPLAINED, re.MULTILINE)
    codes = [
        exit_codes.MET, exit_codes.NOT_MET, exit_codes.BAD_INPUT, exit_codes.FAILED,
        exit_codes.NO_GAIN, exit_codes.INTERRUPTED,
    ]  # fmt: skip
    assert in_help == list(map(str, codes))
    assert in_page[: len(codes)] == list(map(str, codes))
