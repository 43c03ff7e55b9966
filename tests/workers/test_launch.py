"""Processes that a launcher has started together: one reports, all work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import mpi
import numpy as np
import onnx
import onnx_models
import optuna
from optuna.trial import TrialState
import pytest
import spaces

from optuna_quant.cli.parser import main
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.start import start_study
from optuna_quant.study.trial_view import TrialView
from optuna_quant.workers.launch import Rank
from optuna_quant.workers.launch import this_rank


pytestmark = pytest.mark.slow


COMMAND = [
    "tune", "net.onnx", "--objective", "ops", "--calibration", "calib.npz", "--data", "data.npz",
    "--strategy", "exhaustive", "--timeout", "none", "--max-trials", "12",
]  # fmt: skip
MET = [*COMMAND, "--tolerable-loss", "0.5"]
NOT_MET = [*COMMAND, "--metric", "mse", "--criterion", "absolute", "--tolerable-loss", "0"]


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(mpi.LAUNCHED):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with data, as the current directory."""
    model = onnx_models.convnet()
    onnx.save(model, tmp_path / "net.onnx")
    x = onnx_models.samples(60, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    np.savez(tmp_path / "calib.npz", x=x[:20])
    np.savez(tmp_path / "data.npz", x=x, labels=scores.argmax(axis=1))
    np.savez(tmp_path / "targets.npz", x=x, labels=scores)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


# Reading the rank.


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank()),
        (
            {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8",
             "OMPI_COMM_WORLD_LOCAL_SIZE": "8", "PMIX_NAMESPACE": "77", "PMIX_RANK": "3"},
            Rank(number=3, size=8, launch="77"),
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "8",
             "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "PMIX_NAMESPACE": "77",
             "OMPI_MCA_orte_hnp_uri": "77.0;tcp://10.0.0.1:4242"},
            Rank(size=8, on_several_machines=True, launch="77 77.0;tcp://10.0.0.1:4242"),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Rank(number=1, size=2)),
        # MPICH gives nothing that tells one start from another.
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "OPTUNA_QUANT_LAUNCH": "tuesday"},
            Rank(number=1, size=2, launch="tuesday"),
        ),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "2"},
            Rank(number=1, size=4, on_several_machines=True),
        ),
        (
            {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2",
             "MV2_COMM_WORLD_LOCAL_SIZE": "2"},
            Rank(number=1, size=2),
        ),
        (
            {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "2",
             "SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "6"},
            Rank(number=5, size=6, on_several_machines=True, launch="9 0"),
        ),
        # A batch script of Slurm is one process, whatever was asked for.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6", "SLURM_JOB_ID": "9"}, Rank()),
        # mpirun in a step of Slurm.
        (
            {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0",
             "PMI_RANK": "2", "PMI_SIZE": "4"},
            Rank(number=2, size=4),
        ),
        (
            {"OPTUNA_QUANT_RANK": "1", "OPTUNA_QUANT_RANKS": "2", "OPTUNA_QUANT_LAUNCH": "a",
             "PMI_RANK": "2", "PMI_SIZE": "4"},
            Rank(number=1, size=2, launch="a"),
        ),
        ({"OPTUNA_QUANT_RANKS": "1", "PMI_RANK": "2", "PMI_SIZE": "4"}, Rank()),
    ],
)  # fmt: skip
def test_rank_is_what_the_launcher_says(environment: Mapping[str, str], rank: Rank) -> None:
    assert this_rank(environment) == rank


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"PMI_RANK": "x", "PMI_SIZE": "2"},
            "PMI_RANK must be a number of at least 0, but is 'x'",
        ),
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, "PMI_RANK=2 must be less than PMI_SIZE=2"),
        ({"OPTUNA_QUANT_RANK": "1"}, "OPTUNA_QUANT_RANKS is not: set both"),
    ],
)
def test_nonsense_of_a_launcher_is_said(
    environment: Mapping[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match=message):
        this_rank(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["space", "net.onnx"]) == 2
    assert message in capsys.readouterr().err


# Processes with ranks.


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    code = "import sys; from optuna_quant.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(arguments: Sequence[str], size: int, **more: str) -> list[Ended]:
    """Run the command as so many ranks of Open MPI, on one machine unless told otherwise."""
    common = {"OMPI_COMM_WORLD_SIZE": str(size), "OMPI_COMM_WORLD_LOCAL_SIZE": str(size), **more}
    running = [start(arguments, {**common, "OMPI_COMM_WORLD_RANK": str(i)}) for i in range(size)]
    texts = [process.communicate(timeout=200) for process in running]
    return [Ended(process.returncode, *text) for process, text in zip(running, texts, strict=True)]


def studied(folder: Path) -> optuna.Study:
    storage = open_storage(folder / "net.quantized.optuna_quant.journal")
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(storage=storage, study_name=name)


def assert_nothing_twice(study: optuna.Study) -> None:
    done = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    evaluated = [t for t in done if record.REUSED_FROM not in t.user_attrs]
    counts = Counter(trial.user_attrs[record.FINGERPRINT] for trial in evaluated)
    assert counts
    assert set(counts.values()) == {1}


# It waits until all three processes are there.
TOGETHER = """
import os, pathlib, time
import numpy as np

HERE = pathlib.Path(__file__).parent
DATA = np.load(HERE / "data.npz")
(HERE / f"started-{os.getpid()}").touch()

def evaluate(session):
    deadline = time.monotonic() + 100
    while len(list(HERE.glob("started-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    (scores,) = session.run(None, {"x": DATA["x"]})
    return (scores.argmax(axis=1) == DATA["labels"]).mean()
"""


def test_first_rank_reports_and_writes_and_all_work(folder: Path) -> None:
    (folder / "together.py").write_text(TOGETHER)
    arguments = [*MET, "--evaluate", "together.py", "--report", "r.csv"]
    at = arguments.index("--data")
    del arguments[at : at + 2]
    first, *others = launch(arguments, 3)
    assert first.code == 0, first.err
    assert first.out.startswith("A quantized model meets the criterion.")
    assert "written: net.quantized.onnx\nreport: r.csv\n" in first.out
    assert "optuna-quant: 3 processes share the work; this one shows its own" in first.err
    assert [(other.code, other.out, other.err) for other in others] == 2 * [(0, "", "")]
    assert (folder / "net.quantized.onnx").exists()
    study = studied(folder)
    assert_nothing_twice(study)
    workers = {TrialView(trial).worker for trial in study.get_trials(deepcopy=False)}
    assert len(workers) > 1


def test_not_met_is_the_exit_code_of_the_first_rank_alone(folder: Path) -> None:
    arguments = [part.replace("data.npz", "targets.npz") for part in NOT_MET]
    first, other = launch(arguments, 2)
    assert (first.code, other.code) == (1, 0), first.err + other.err
    assert first.out.startswith("NOT MET")
    assert other.out == other.err == ""


def test_what_is_wrong_is_said_with_the_rank(folder: Path) -> None:
    first, other = launch([*COMMAND, "--tolerable-loss", "3"], 2)
    assert first.err.startswith("optuna-quant: error: A relative tolerable_loss")
    assert other.err.startswith("optuna-quant: rank 1: error: A relative tolerable_loss")
    first, other = launch([*COMMAND, "--tolerable-loss", "much"], 2)
    assert first.err.startswith("optuna-quant: error: --tolerable-loss")
    assert "optuna-quant: rank 1: error: --tolerable-loss" in other.err
    assert len(other.err.splitlines()) == 1
    assert (first.code, other.code) == (2, 2)
    first, other = launch(["--version"], 2)
    assert (first.code, other.code, other.out) == (0, 0, "")
    assert first.out


def test_first_rank_alone_restarts(folder: Path) -> None:
    assert main([*MET, "--quiet"]) == 0
    before = studied(folder)
    before.set_user_attr("of an earlier command", True)
    ended = launch([*MET, "--fresh"], 3, PMIX_NAMESPACE="one")
    assert [each.code for each in ended] == [0, 0, 0], ended
    study = studied(folder)
    assert "of an earlier command" not in study.user_attrs
    assert_nothing_twice(study)
    assert len(study.get_trials(deepcopy=False)) >= 13
    # Without it the same study is gone on with.
    study.set_user_attr("kept", True)
    assert [each.code for each in launch(MET, 2)] == [0, 0]
    assert studied(folder).user_attrs["kept"]


def test_a_restart_without_a_number_of_the_launch_is_refused(folder: Path) -> None:
    assert main([*MET, "--quiet"]) == 0
    journal = (folder / "net.quantized.optuna_quant.journal").read_bytes()
    ended = launch([*MET, "--fresh"], 2)
    assert [each.code for each in ended] == [2, 2]
    assert "set OPTUNA_QUANT_LAUNCH to a new value for each" in ended[0].err
    assert (folder / "net.quantized.optuna_quant.journal").read_bytes() == journal


def test_first_rank_that_does_not_come_is_not_waited_for_forever(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "journal")
    start_study(
        storage,
        ["s"],
        "maximize",
        model="m",
        fresh=True,
        rank=Rank(size=2, launch="an earlier one"),
    )
    rank = Rank(number=1, size=2, launch="this one")
    with pytest.raises(ValueError, match="rank 0 did not start the study 's' over within 0.2 s"):
        start_study(storage, ["s"], "maximize", model="m", fresh=True, rank=rank, timeout=0.2)
    start_study(
        storage, ["s"], "maximize", model="m", fresh=True, rank=Rank(size=2, launch="this one")
    )
    start_study(storage, ["s"], "maximize", model="m", fresh=True, rank=rank, timeout=0.2)


def test_study_is_not_deleted_under_another_process(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "journal")
    study = start_study(storage, ["s"], "maximize", model="m", fresh=False, rank=Rank())
    study.set_user_attr("optuna_quant:signature", {"model": "m"})
    study.sampler = ExhaustiveQuantSampler(spaces.make_space())
    trial = study.ask()
    with pytest.raises(ValueError, match=f"trial 0 is running on .* in process {os.getpid()}"):
        start_study(storage, ["s"], "maximize", model="m", fresh=True, rank=Rank())
    study.tell(trial, 1.0)
    assert (
        start_study(storage, ["s"], "maximize", model="m", fresh=True, rank=Rank()).get_trials()
        == []
    )


DELETED = """
import optuna
from optuna_quant.storages.open import open_storage

def evaluate(session):
    storage = open_storage("net.quantized.optuna_quant.journal")
    (name,) = optuna.get_all_study_names(storage)
    optuna.delete_study(study_name=name, storage=storage)
    return 1.0
"""


def test_study_that_is_deleted_meanwhile_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deletes.py").write_text(DELETED)
    command = [
        "tune",
        "net.onnx",
        "--objective",
        "ops",
        "--calibration",
        "calib.npz",
        "--evaluate",
        "deletes.py",
    ]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "The study 'net-" in error
    assert "was deleted while this process worked on it" in error


def test_several_machines_need_a_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("RANK", "0"), ("SIZE", "4"), ("LOCAL_SIZE", "2")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    assert main(MET) == 2
    assert "give --storage postgresql://" in capsys.readouterr().err
    assert not list(folder.glob("*.journal"))
    assert main([*MET, "--storage", "shared.journal"]) == 0
    assert "warning: The 4 processes run on several machines, but a" in capsys.readouterr().err


SCRIPT = """
import sys
import optuna, optuna_quant
from optuna_quant.workers.launch import this_rank

result = optuna_quant.tune(
    "net.onnx", calibration_data="calib.npz", data="data.npz",
    accuracy_criterion=optuna_quant.AccuracyCriterion(tolerable_loss=0.5),
    tuning_criterion=optuna_quant.TuningCriterion(objective="ops"),
    storage=sys.argv[1] or None, output="script.onnx",
)
print(this_rank(), result.met)
"""


def run_script(storage: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, storage],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_works_like_the_command(folder: Path) -> None:
    ranks = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    alone = run_script("", **ranks, OMPI_COMM_WORLD_RANK="1")
    assert alone.returncode == 1
    error = alone.stderr.splitlines()[-1]
    assert error.startswith("ValueError: 2 processes were started together (this is rank 1 of 2)")
    assert "give storage=..." in error
    other = run_script("journal", **ranks, OMPI_COMM_WORLD_RANK="1")
    assert other.stdout == "rank 1 of 2 True\n", other.stderr
    assert "| trial" not in other.stderr
    assert not (folder / "script.onnx").exists()
    first = run_script("journal", **ranks, OMPI_COMM_WORLD_RANK="0")
    assert first.stdout == "rank 0 of 2 True\n", first.stderr
    assert (folder / "script.onnx").exists()
    assert run_script("", **ranks, OMPI_COMM_WORLD_RANK="1", OPTUNA_QUANT_RANKS="1").stdout


# The real thing.


@pytest.fixture(params=mpi.LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def mpirun(launcher: str, arguments: Sequence[str], size: int) -> subprocess.Popen[str]:
    code = "import sys; from optuna_quant.cli import main; sys.exit(main())"
    return subprocess.Popen(
        mpi.command(launcher, size, ["-c", code, *arguments]),
        env=mpi.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_one_search(folder: Path, process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out.count("A quantized model meets the criterion.") == 1
    assert out.count("written: ") == 1
    assert err.count("Tuning net.onnx") == 1
    assert_nothing_twice(studied(folder))


def test_launcher_needs_no_other_flag(folder: Path, launcher: str) -> None:
    assert_one_search(folder, mpirun(launcher, MET, 3))


def test_open_mpi_tells_one_launch_from_another(folder: Path) -> None:
    for more in ([], ["--fresh"]):
        assert_one_search(folder, mpirun("openmpi", [*MET, *more], 3))


def test_mpich_needs_a_number_to_restart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = mpirun("mpich", [*MET, "--fresh"], 3)
    _, err = process.communicate(timeout=200)
    assert process.returncode != 0
    assert "set OPTUNA_QUANT_LAUNCH to a new value for each" in err
    process = subprocess.Popen(
        process.args,
        env={**mpi.environment(), "OPTUNA_QUANT_LAUNCH": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert_one_search(folder, process)


def test_launch_that_lost_a_rank_goes_on_with_the_same_command(
    folder: Path, launcher: str
) -> None:
    many = [*MET, "--max-trials", "40"]
    process = mpirun(launcher, many, 3)
    deadline = time.monotonic() + 120
    others: set[int] = set()
    while not others and time.monotonic() < deadline:
        time.sleep(0.1)
        if (folder / "net.quantized.optuna_quant.journal").exists():
            others = {pid for pid in pids(studied_or_none(folder)) if pid != process.pid}
    os.kill(max(others), signal.SIGKILL)
    process.communicate(timeout=200)
    process = mpirun(launcher, many, 3)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out.count("All 40 trials are used up.") == 1
    assert_nothing_twice(studied(folder))


def studied_or_none(folder: Path) -> optuna.Study | None:
    try:
        return studied(folder)
    except (KeyError, ValueError):  # It is not there yet.
        return None


def pids(study: optuna.Study | None) -> list[int]:
    """The processes of the trials that run."""
    running = [] if study is None else study.get_trials(states=(TrialState.RUNNING,))
    return [int(worker.split("|")[1]) for t in running if (worker := TrialView(t).worker)]
