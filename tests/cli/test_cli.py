"""The command line, on a small real model."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

from cli.forked_commands import ForkedCommand
from free_ports import free_port
import numpy as np
import onnx
import onnx_models
import onnxruntime
import optuna
import pytest
from zygote import Zygote

from optuna_quant import __version__
from optuna_quant.cli.loading import load
from optuna_quant.cli.parser import main
from optuna_quant.storages.open import open_storage
from optuna_quant.study.trial_view import TrialView


EVALUATE = """
import os, signal, time
import numpy as np
import helper

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = np.load(os.path.join(HERE, "eval.npz"))
CALLS = []

def accuracy(session):
    scores = session.run(None, {"x": DATA["x"]})[0]
    return (scores.argmax(axis=1) == DATA["labels"]).mean()

def error(session):
    return np.abs(session.run(None, {"x": DATA["x"]})[0] - DATA["scores"]).mean()

def _note():
    with open(os.path.join(HERE, "calls"), "a") as file:
        file.write("x")
    return os.path.getsize(os.path.join(HERE, "calls"))

def interrupted(session):
    value = accuracy(session)
    if _note() == 3:
        raise KeyboardInterrupt
    return value

def waiting(session):
    value = accuracy(session)
    if _note() == 3:
        time.sleep(200)
    return value

def killed(session):
    value = accuracy(session)
    if _note() == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return value

def nothing(session):
    pass

def broken(session):
    raise RuntimeError("no\\nsuch thing")

number = 3
"""


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with data, of which FP32 is always right."""
    folder = tmp_path_factory.mktemp("material")
    model = onnx_models.convnet()
    onnx.save(model, folder / "net.onnx")
    x = onnx_models.samples(60, 2, 8, 8)
    (scores,) = onnx_models.run(model, {"x": x})
    labels = scores.argmax(axis=1)
    np.savez(folder / "calib.npz", x=x[:40])
    np.savez(folder / "eval.npz", x=x, labels=labels, scores=scores)
    np.savez(folder / "data.npz", x=x, labels=labels)
    np.savez(folder / "targets.npz", x=x, labels=scores)
    np.savez(folder / "bad.npz", x=x[:, :, :4])
    np.savez(folder / "empty.npz", x=x[:0])
    np.savez(folder / "named.npz", image=x)
    (folder / "evaluate.py").write_text(EVALUATE)
    (folder / "helper.py").write_text("")
    (folder / "syntax.py").write_text("def evaluate(:\n")
    (folder / "text.onnx").write_text("hello")
    (folder / "conv.json").write_text('{"Conv": {"mode": ["fp32"]}}')
    return folder


@pytest.fixture
def exact_products() -> Iterator[None]:
    """For what is printed of a search: its figures are others where products saturate."""
    with onnx_models.exact_products():
        yield


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the material, as the current directory."""
    path = tmp_path / "work"
    shutil.copytree(material, path)
    monkeypatch.chdir(path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("evaluate", "helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return path


OPS = ["--objective", "ops", "--no-gain"]
# On data.npz the FP32 model and the quantized default both have the accuracy 1; where sums of
# products saturate (and a test does not ask for exact_products) the default has 59 of 60 right.
BASE = ["tune", "net.onnx", *OPS, "--calibration", "calib.npz"]
ACCURACY = [*BASE, "--evaluate", "evaluate.py:accuracy"]
# The quantized model never gives exactly the same: nothing can meet it.
IMPOSSIBLE = [
    *BASE, "--evaluate", "evaluate.py:error", "--lower-is-better", "--criterion", "absolute",
    "--tolerable-loss", "0", "--max-trials", "4",
]  # fmt: skip


def runs(path: Path) -> bool:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": onnx_models.samples(2, 2, 8, 8)})
    return bool(np.isfinite(scores).all())


def is_quantized(path: Path) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


# tune


def test_tune_finds_writes_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1", "--output", "out.onnx"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "A quantized model meets the criterion."
    assert out.splitlines()[-1] == "written: out.onnx"
    assert runs(folder / "out.onnx")
    assert is_quantized(folder / "out.onnx")
    assert (folder / "out.optuna_quant.journal").exists()
    assert err.splitlines()[0] == (
        "optuna-quant: Tuning net.onnx with the strategy 'auto': "
        "at most 10% relative loss, higher is better."
    )
    assert "trial 0 (baseline) | FP32 | metric 1 | " in err
    assert "trial 1 (cheapest to start with) | " in err
    assert "[I " not in err  # Optuna's own lines.


def test_tune_names_its_output_after_the_model(folder: Path) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1", "--quiet"]) == 0
    assert (folder / "net.quantized.onnx").exists()
    assert (folder / "net.quantized.optuna_quant.journal").exists()


@pytest.mark.usefixtures("exact_products")
def test_tune_with_data_and_metric(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_function = [*ACCURACY, "--tolerable-loss", "0.1", "--fresh"]
    by_data = [*BASE, "--data", "data.npz", "--tolerable-loss", "0.1", "--fresh"]
    printed = []
    for command in (by_function, by_data):
        assert main(command) == 0
        printed.append(capsys.readouterr().out.splitlines())
    # With data it is known what each sample says: the loss has an interval, the cost is counted.
    (loss,) = [line for line in printed[1] if "95% confidence" in line]
    (cost,) = [line for line in printed[1] if line.startswith("evaluated: ")]
    (few,) = [line for line in printed[1] if line.startswith("warning: ")]
    assert "only 60 evaluation samples" in few
    assert [line for line in printed[1] if line not in (loss, cost, few)] == [
        line for line in printed[0] if not line.startswith("metric ")
    ]
    # FP32 and the answer, and three times three of the 60 samples to see that it is reproducible.
    assert cost == (
        "evaluated: 2.15 times the evaluation set, in 2 trials (0.15 of it for the second "
        "evaluation)"
    )


def test_tune_without_early_stopping_evaluates_everything(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*BASE, "--data", "data.npz", "--tolerable-loss", "0.1", "--early-stopping", "off"]
    assert main(command) == 0
    assert "evaluated: " not in capsys.readouterr().out


def test_a_metric_of_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own.py").write_text(
        "from optuna_quant import SampleMetric\n"
        "from optuna_quant.evaluation.metrics.sample_metrics import accuracy\n"
        "wrong = SampleMetric(name='wrong', score=lambda o, y: 1 - accuracy(o, y), "
        "bounds=(0, 1), higher_is_better=False)\n"
        "right = accuracy\n"
    )
    data = [*BASE, "--data", "data.npz", "--criterion", "absolute", "--tolerable-loss", "0.1"]
    assert main([*data, "--metric", "own.py:wrong", "--fresh"]) == 0
    assert "evaluated: 2.15 times" in capsys.readouterr().out
    assert main([*data, "--metric", "own.py:right", "--fresh"]) == 0
    assert "'accuracy' has no bounds: give metric_bounds" in capsys.readouterr().err
    bounds = ["--metric-bounds", "0", "1"]
    assert main([*data, "--metric", "own.py:right", *bounds, "--fresh"]) == 0
    assert "evaluated: 2.15 times" in capsys.readouterr().out
    assert main([*data, "--metric", "own.py:nothing"]) == 2
    assert "--metric: 'own.py' has no function 'nothing'. It has: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--error-probability", "0"], "error_probability must be above 0 and below 1"),
        (["--batch-size", "0"], "--batch-size"),
        (["--evaluation-threads", "0"], "--evaluation-threads"),
        (["--early-stopping", "maybe"], "--early-stopping"),
        (["--metric-bounds", "1", "1"], "bounds"),
    ],
)
def test_wrong_options_of_early_stopping(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([*BASE, "--data", "data.npz", *options]) == 2
    assert message in capsys.readouterr().err


def test_early_stopping_needs_single_samples(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--early-stopping", "exact"]) == 2
    assert "evaluate has no parameter named indices" in capsys.readouterr().err


def test_metric_knows_its_direction(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*BASE, "--data", "targets.npz", "--metric", "mse", "--criterion", "absolute"]
    assert main([*command, "--tolerable-loss", "100"]) == 0
    assert "at most 100 absolute loss, lower is better" in capsys.readouterr().out


def test_tune_that_meets_nothing_says_so_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*IMPOSSIBLE, "--output", "out.onnx"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("NOT MET: no quantized model meets the criterion.")
    assert "not written: out.onnx (--closest writes the closest model)." in out
    assert not (folder / "out.onnx").exists()
    # Nothing is left to do but to take the closest.
    assert main([*IMPOSSIBLE, "--output", "out.onnx", "--closest"]) == 1
    out = capsys.readouterr().out
    assert "written, although it does not meet the criterion: out.onnx" in out
    assert is_quantized(folder / "out.onnx")
    assert main([*IMPOSSIBLE, "--output", "out.onnx"]) == 1
    assert "The file there is from an earlier search." in capsys.readouterr().out


def test_report_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1", "--report", "r.csv"]) == 0
    header, *rows = (folder / "r.csv").read_text().splitlines()
    assert header == "op,op_type,mode,activation,weight,runs,as_asked,note"
    assert [row.split(",")[:3] for row in rows] == [
        ["Conv0", "Conv", "static"],
        ["Conv1", "Conv", "static"],
        ["Gemm0", "Gemm", "static"],
    ]
    assert rows[0].split(",")[5:7] == ["QLinearConv", "True"]
    assert "report: r.csv" in capsys.readouterr().out


def test_models_are_published(folder: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    command = [*ACCURACY, "--tolerable-loss", "0.1", "--artifact-dir", "deep/artifacts"]
    assert main(command) == 0
    first = sorted(path.name for path in (folder / "deep/artifacts").iterdir())
    model = (folder / "net.quantized.onnx").read_bytes()
    assert [(folder / "deep/artifacts" / name).read_bytes() == model for name in first].count(
        True
    ) == 1
    # The models of a study that is deleted are deleted as well.
    assert main([*command, "--fresh"]) == 0
    second = sorted(path.name for path in (folder / "deep/artifacts").iterdir())
    assert len(second) == len(first)
    assert not set(first) & set(second)


def test_quiet_shows_the_result_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("A quantized model meets the criterion.")


def test_verbose_shows_what_the_libraries_say(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1", "--verbose"]) == 0
    err = capsys.readouterr().err
    assert "optuna-quant: The metric of the FP32 model is 1.0." in err
    assert "optuna-quant: Trial 1 meets the criterion" in err


def test_options_reach_the_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        *IMPOSSIBLE, "--strategy", "random", "--strategy-kwargs", '{"fallback": true}',
        "--seed", "3", "--calibration-samples", "10", "--op-types", "Conv, Gemm",
        "--op-type-dict", "@conv.json", "--op-name-dict", '{"Gemm0": {"mode": ["static"]}}',
        "--timeout", "none", "--max-trials", "2", "--report", "r.csv", "--closest",
        "--objective", "model_size", "--cache-dir", "cache", "--study-name", "mine",
        "--storage", "sqlite:///record.db",
    ]  # fmt: skip
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "stopped: All 2 trials are used up." in out
    assert "trial 1 (random) | " in err
    modes = [row.split(",")[2] for row in (folder / "r.csv").read_text().splitlines()[1:]]
    assert modes == ["fp32", "fp32", "static"]
    assert (folder / "record.db").exists()
    assert any((folder / "cache").iterdir())
    assert not list(folder.glob("*.journal"))


def test_jobs_work_in_threads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*ACCURACY, "--tolerable-loss", "0.5", "--timeout", "none"]
    command += ["--strategy", "exhaustive", "--max-trials", "4", "--jobs", "2"]
    assert main(command) == 0
    assert "stopped: All 4 trials are used up." in capsys.readouterr().out
    storage = open_storage(folder / "net.quantized.optuna_quant.journal")
    trials = only_study(storage).get_trials()
    assert len({TrialView(trial).worker for trial in trials}) > 1


def test_dynamic_needs_no_calibration(folder: Path) -> None:
    command = ["tune", "net.onnx", *OPS, "--approach", "dynamic", "--data", "data.npz"]
    assert main([*command, "--tolerable-loss", "0.1"]) == 0


@pytest.mark.usefixtures("exact_products")
def test_earlier_search_is_gone_on_with_unless_fresh(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ACCURACY, "--tolerable-loss", "0.1"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert main(command) == 0
    again = capsys.readouterr()
    assert again.out == first
    assert "Resuming the study 'net-" in again.err
    assert "', which has 2 trials; best so far: trial 1, " in again.err
    assert " (--fresh starts over)." in again.err
    assert "trial 1 (" not in again.err  # Nothing was evaluated.
    assert main([*command, "--fresh"]) == 0
    err = capsys.readouterr().err
    assert "trial 1 (cheapest to start with)" in err
    assert "--fresh deleted the study 'net-" in err
    assert "': 2 trials, started 20" in err
    assert ", the best metric 1." in err


def test_fresh_deletes_no_study_for_an_objective_that_cannot_be_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ACCURACY, "--tolerable-loss", "0.1"]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--fresh", "--target", "tensorrt", "--objective", "latency"]) == 2
    err = capsys.readouterr().err
    assert "the target 'tensorrt' is simulated, so that no times are measured" in err
    assert "or use objective='size' or 'ops' or 'multiply_adds' or 'bit_operations'." in err
    assert "--fresh deleted" not in err
    main(command)
    assert "which has 2 trials" in capsys.readouterr().err


def only_study(storage: optuna.storages.BaseStorage) -> optuna.Study:
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(storage=storage, study_name=name)


def other_model(folder: Path) -> None:
    """Another model of the same name, in another folder."""
    (folder / "other").mkdir()
    model = onnx.load(folder / "net.onnx")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * 1.01, tensor.name))
    onnx.save(model, folder / "other" / "net.onnx")


def test_models_of_one_name_share_a_storage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_model(folder)
    common = ["--calibration", "calib.npz", "--data", "data.npz", "--tolerable-loss", "0.5"]
    common += ["--storage", "shared.journal"]
    first = ["tune", "net.onnx", *OPS, *common, "--output", "one.onnx"]
    second = ["tune", "other/net.onnx", *OPS, *common, "--output", "two.onnx"]
    assert main(first) == 0
    assert main(second) == 0
    storage = open_storage(folder / "shared.journal")
    names = optuna.get_all_study_names(storage)
    assert len(names) == 2
    assert {name.partition("-")[0] for name in names} == {"net"}
    kept = optuna.load_study(storage=storage, study_name=names[0])
    kept.set_user_attr("kept", True)
    assert main([*second, "--fresh"]) == 0
    storage = open_storage(folder / "shared.journal")
    assert optuna.load_study(storage=storage, study_name=names[0]).user_attrs["kept"]
    # By name it is refused, and nothing is deleted.
    capsys.readouterr()
    assert main([*second, "--study-name", names[0], "--fresh"]) == 2
    err = capsys.readouterr().err
    assert f"--fresh would delete the study {names[0]!r}, which is of another model (" in err
    assert " trials, started 20" in err
    assert "Use another --study-name or --storage" in err
    storage = open_storage(folder / "shared.journal")
    assert optuna.load_study(storage=storage, study_name=names[0]).user_attrs["kept"]
    foreign = optuna.create_study(storage=storage, study_name="foreign", direction="maximize")
    foreign.optimize(lambda trial: 0.5, n_trials=1)
    assert main([*first, "--study-name", "foreign", "--fresh"]) == 2
    assert (
        "'foreign', which was not started by optuna-quant (1 trial, sta" in capsys.readouterr().err
    )


def test_study_that_an_earlier_version_named_is_gone_on_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_model(folder)
    command = ["tune", "net.onnx", *OPS, "--calibration", "calib.npz", "--data", "data.npz"]
    command += ["--tolerable-loss", "0.5", "--storage", "s.journal"]
    assert main([*command, "--study-name", "net"]) == 0
    capsys.readouterr()
    assert main(command) == 0
    assert "Resuming the study 'net', which has" in capsys.readouterr().err
    other = ["tune", "other/net.onnx", *OPS, *command[2:], "--fresh"]
    assert main(other) == 0
    assert "deleted" not in capsys.readouterr().err
    assert main([*command, "--fresh"]) == 0
    assert "--fresh deleted the study 'net': " in capsys.readouterr().err
    names = optuna.get_all_study_names(open_storage(folder / "s.journal"))
    assert len(names) == 2
    assert "net" not in names


def test_interrupted_command_goes_on_where_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*BASE, "--evaluate", "evaluate.py:interrupted", "--tolerable-loss", "0.1"]
    command += ["--timeout", "none", "--strategy", "exhaustive", "--max-trials", "4"]
    assert main(command) == 130
    out = capsys.readouterr().out
    # One candidate had been found by then, and it is not lost.
    assert out.startswith("A quantized model meets the criterion.")
    assert "stopped: The search was interrupted." in out
    assert "The same command continues from here." in out
    assert is_quantized(folder / "net.quantized.onnx")
    assert main(command) == 0
    assert "stopped: All 4 trials are used up." in capsys.readouterr().out


def test_terminated_command_gives_its_trial_back(zygote: Zygote, folder: Path) -> None:
    command = [*BASE, "--evaluate", "evaluate.py:waiting", "--tolerable-loss", "0.1"]
    command += ["--timeout", "none", "--strategy", "exhaustive", "--max-trials", "4"]
    process = ForkedCommand(zygote, command)
    calls = folder / "calls"
    deadline = time.monotonic() + 120
    while not (calls.exists() and calls.read_text() == "xxx") and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    done = process.end()
    assert done.returncode == 130
    assert "stopped: The search was interrupted." in done.stdout
    storage = open_storage(folder / "net.quantized.optuna_quant.journal")
    trials = only_study(storage).get_trials()
    # Others need not wait for it, wherever they run.
    states = [trial.state.name for trial in trials]
    assert states == [*["COMPLETE"] * (len(states) - 1), "FAIL"]


@pytest.mark.slow
def test_killed_command_leaves_the_best_and_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tolerable-loss", "0.1", "--timeout", "none", "--strategy", "exhaustive"]
    command = [*BASE, "--evaluate", "evaluate.py:killed", *options, "--max-trials", "8"]
    code = "import sys; from optuna_quant.cli import main; sys.exit(main())"
    killed = subprocess.run([sys.executable, "-c", code, *command], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert runs(folder / "net.quantized.onnx")
    assert main(command) == 0
    assert "Resuming the study 'net-" in capsys.readouterr().err
    # FP32, eight candidates, the one that was cut short, and the answer: nothing else is
    # evaluated again.
    assert (folder / "calls").read_text() == 11 * "x"
    kept = onnx.load(folder / "net.quantized.onnx").SerializeToString()
    undisturbed = [*BASE, "--evaluate", "evaluate.py:accuracy", *options, "--max-trials", "8"]
    assert main([*undisturbed, "--output", "other.onnx"]) == 0
    assert onnx.load(folder / "other.onnx").SerializeToString() == kept


# Bad input.


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tune", "no.onnx", "--calibration", "calib.npz", "--data", "data.npz"],
         "The model: there is no file 'no.onnx'."),
        (["tune", "text.onnx", "--calibration", "calib.npz", "--data", "data.npz"],
         "text.onnx"),
        (BASE, "Give either --evaluate FILE.py:FUNC"),
        ([*ACCURACY, "--data", "data.npz"], "Give either --evaluate FILE.py:FUNC"),
        ([*ACCURACY, "--metric", "accuracy"], "--metric goes with --data"),
        (["tune", "net.onnx", *OPS, "--data", "data.npz"], "--calibration is needed"),
        ([*BASE, "--data", "data.npz", "--metric", "acuracy"],
         "no metric 'acuracy'. Did you mean 'accuracy'?"),
        ([*BASE, "--data", "data.npz", "--lower-is-better"], "does not go with --metric accuracy"),
        ([*BASE, "--data", "data.npz", "--metric", "mse", "--higher-is-better"],
         "--higher-is-better does not go with --metric mse"),
        ([*BASE, "--evaluate", "evaluate.py:error"],
         "error() is called like an error, of which lower values are better, but without a word "
         "higher ones are taken to be better. If lower ones are, give --lower-is-better; if "
         "higher ones are, --higher-is-better."),
        ([*BASE, "--data", "named.npz"],
         "Input 'x' is missing in the evaluation data 'named.npz', which holds: image."),
        ([*BASE, "--data", "no.npz"], "no file 'no.npz'"),
        ([*BASE, "--evaluate", "no.py:f"], "--evaluate: there is no file 'no.py'."),
        ([*BASE, "--evaluate", "evaluate.py:f"], "has no function 'f'. It has: accuracy, error"),
        ([*BASE, "--evaluate", "evaluate.py"], "has no function 'evaluate'"),
        ([*BASE, "--evaluate", "evaluate.py:number"], "has no function 'number'"),
        ([*BASE, "--evaluate", "syntax.py"], "'syntax.py' cannot be run: SyntaxError"),
        ([*BASE, "--evaluate", "evaluate.py:nothing"],
         "The evaluation of the FP32 model returned None, but it must return one number"),
        ([*BASE, "--evaluate", "evaluate.py:broken"],
         "The FP32 model could not be evaluated: RuntimeError: no such thing"),
        ([*ACCURACY, "--tolerable-loss", "-1"], "tolerable_loss must be a number of at least 0"),
        ([*ACCURACY, "--tolerable-loss", "2"], "below 1 (0.01 is one percent), but got 2"),
        ([*ACCURACY, "--strategy", "best"], "no strategy 'best'. The strategies are: auto, basic"),
        ([*ACCURACY, "--strategy", "basic", "--quant-level", "0"], "contradicts strategy='basic'"),
        ([*ACCURACY, "--strategy-kwargs", "{"], "--strategy-kwargs is not valid JSON"),
        ([*ACCURACY, "--op-type-dict", "[1]"], "--op-type-dict must be a JSON object"),
        ([*ACCURACY, "--op-type-dict", "@no.json"], "--op-type-dict: there is no file 'no.json'."),
        ([*ACCURACY, "--op-types", "Con"], "this model has no 'Con'"),
        ([*ACCURACY, "--output", "no/out.onnx"], "cannot be written: there is no directory 'no'"),
        (["tune", ".", *ACCURACY[2:]], "The model: '.' is a folder; give a file."),
        ([*ACCURACY, "--output", "."], "The output '.' cannot be written: it is a directory;"),
        ([*ACCURACY, "--output", "net.onnx"], "output 'net.onnx' is the model itself"),
        ([*ACCURACY, "--report", "no/r.csv"], "The report 'no/r.csv' cannot be written"),
        ([*ACCURACY, "--artifact-dir", "net.onnx"], "--artifact-dir: 'net.onnx' is no directory"),
        ([*ACCURACY, "--storage", "no/record"], "The storage 'no/record' cannot be opened"),
        (
            [*ACCURACY, "--storage", "postgress://me:secret@host/db"],
            "The storage 'postgress://me:***@host/db' cannot be opened: Can't load plugin",
        ),
        (
            [*ACCURACY, "--storage", "redis://:secret@127.0.0.1:1"],
            "The storage 'redis://:***@127.0.0.1:1' cannot be opened: Error 111",
        ),
        ([*ACCURACY, "--storage", "net.onnx"], "is not a journal of Optuna. Choose another file"),
        ([*ACCURACY, "--storage", "."], "cannot be opened: it is a folder; give a file in it."),
        ([*ACCURACY, "--storage", "nosuch://x"], "The kinds of storage are: a path, sqlite:"),
        (["tune", "net.onnx", *OPS, "--calibration", "bad.npz", "--data", "data.npz"],
         "(32, 2, 4, 8)"),
        (["tune", "net.onnx", *OPS, "--calibration", "empty.npz", "--data", "data.npz"], "empty"),
        (["tune", "net.onnx", *OPS, "--calibration", "named.npz", "--data", "data.npz"],
         "no array for input 'x'"),
        (["tune", "net.onnx", *OPS, "--calibration", "no.npz", "--data", "data.npz"],
         "--calibration: there is no file 'no.npz'."),
        ([*ACCURACY, "--op-type-dict", '{".*": {"mode": ["fp32"]}}'],
         "op_type_dict leaves no op any quantized option"),
        (["space", "no.onnx"], "The model: there is no file 'no.onnx'."),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_that_says_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], command: Sequence[str], message: str
) -> None:
    before = (folder / "net.onnx").read_bytes()
    assert main(command) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "error: " in line]
    assert len(lines) == 1
    assert lines[0] == err.splitlines()[-1]
    assert lines[0].startswith("optuna-quant: error: ")
    assert message in lines[0]
    assert "Traceback" not in err
    assert out == ""
    assert (folder / "net.onnx").read_bytes() == before
    assert not (folder / "net.quantized.onnx").exists()
    # The FP32 model is what shows that an evaluation does not work; all else is said before.
    evaluated = "The FP32 model" in message or "of the FP32 model" in message
    assert ("Tuning net.onnx" in err) == evaluated
    assert (folder / "net.quantized.optuna_quant.journal").exists() == evaluated


def test_file_of_options_says_what_flags_say(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths are relative to it, and flags override it."""
    (folder / "tune.toml").write_text(
        'calibration_data = "calib.npz"\nevaluate = "evaluate.py:accuracy"\nobjective = "ops"\n'
        'tolerable_loss = 0\noutput = "out.onnx"\n[evaluation]\nmeasure_gain = false\n'
        '[quantization.op_type_dict.Conv]\nmode = ["fp32"]\n'
    )
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    command = ["tune", "../net.onnx", "--config", "../tune.toml", "--tolerable-loss", "0.1"]
    assert main(command) == 0
    assert (folder / "out.onnx").exists()
    out = capsys.readouterr().out
    assert "at most 10% relative loss" in out
    assert "written: ../out.onnx" in out
    assert main([*command, "--output", "../tune.toml"]) == 2
    assert "is the file of --config itself" in capsys.readouterr().err
    (folder / "wrong.toml").write_text("tolerance_loss = 0.1\n")
    assert main(["tune", "../net.onnx", "--config", "../wrong.toml"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "no option 'tolerance_loss'. Did you mean 'tolerable_loss'?" in said


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "COMMAND"),
        (["tune"], "The model is missing"),
        ([*ACCURACY, "--timeout", "soon"], "--timeout"),
        ([*ACCURACY, "--max-trials", "0"], "it must be at least 1, but is 0"),
        ([*ACCURACY, "--jobs", "0"], "it must be at least 1, but is 0"),
        (["serve"], "--storage"),
        (["serve", "--storage", "sqlite:///s.db", "--port", "0"], "from 1 to 65535, but is 0"),
        (["space", "net.onnx", "--json", "--csv"], "not allowed with"),
    ],
)
def test_bad_usage_is_said_by_the_parser(
    capsys: pytest.CaptureFixture[str], command: Sequence[str], message: str
) -> None:
    assert main(command) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("optuna-quant")
    assert ": error: " in said
    assert message in said


def test_an_unknown_objective_is_told_the_known_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--objective", "speed"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "'speed'" in said
    assert "latency" in said


def test_verbose_shows_where_an_error_comes_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, "--evaluate", "evaluate.py:broken", "--verbose"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert 'raise RuntimeError("no\\nsuch thing")' in err


def test_other_options_for_a_study_that_exists_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1"]) == 0
    assert main([*ACCURACY, "--tolerable-loss", "0.1", "--op-types", "Conv"]) == 2
    err = capsys.readouterr().err
    assert "op 'Gemm0' is in the study but not in the given space" in err
    # A tolerance may be moved.
    assert main([*ACCURACY, "--tolerable-loss", "0.2"]) == 0
    assert "was started with another criterion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "what"),
    [
        ("--output", "net.onnx", "The output 'net.onnx' is the model"),
        ("--output", "./../work/net.onnx", "is the model"),
        ("--output", "link.onnx", "The output 'link.onnx' is the model"),
        ("--output", "calib.npz", "is the calibration file"),
        ("--output", "evaluate.py", "is the evaluation file"),
        ("--output", "conv.json", "is the file of --op-type-dict"),
        ("--output", "record.journal", "is the storage"),
        ("--report", "net.onnx", "The report 'net.onnx' is the model"),
        ("--report", "net.quantized.onnx", "is the output"),
        ("--report", "record.journal", "is the storage"),
        ("--report", "calib.npz", "is the calibration file"),
        ("--report", "evaluate.py", "is the evaluation file"),
    ],
)
def test_no_file_is_overwritten_that_is_needed(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, name: str, what: str
) -> None:
    (folder / "link.onnx").symlink_to(folder / "net.onnx")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    command = [*ACCURACY, "--op-type-dict", "@conv.json", "--storage", "record.journal"]
    assert main([*command, option, name]) == 2
    err = capsys.readouterr().err
    assert f"{what} itself; choose another file." in err
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before  # Not even a journal was started.


def test_data_file_is_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--data", "data.npz", "--report", "data.npz"]) == 2
    assert "is the data file itself" in capsys.readouterr().err


def test_other_calibration_data_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ACCURACY, "--tolerable-loss", "0.1"]
    assert main(command) == 0
    kept = (folder / "net.quantized.onnx").read_bytes()
    with np.load(folder / "calib.npz") as file:
        np.savez(folder / "calib.npz", x=file["x"] * 0.3)
    capsys.readouterr()
    assert main(command) == 2
    assert "was started with other calibration data" in capsys.readouterr().err
    assert (folder / "net.quantized.onnx").read_bytes() == kept
    assert main([*command, "--fresh"]) == 0
    assert main([*command, "--calibration-samples", "8"]) == 2
    err = capsys.readouterr().err
    assert "was started with other options (it has calibration_sizes=" in err
    assert "; here calibration_sizes=[8])" in err


@pytest.mark.usefixtures("exact_products")
def test_other_evaluation_is_not_answered_from_the_record(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ACCURACY, "--tolerable-loss", "0.1"]
    assert main(command) == 0
    assert main(command) == 0
    assert "warning" not in capsys.readouterr().err
    # Another kind: refused, and nothing is evaluated.
    assert main([*BASE, "--data", "data.npz", "--tolerable-loss", "0.1"]) == 2
    err = capsys.readouterr().err
    assert "was started with the function 'accuracy', but here it is the metric accuracy (" in err
    assert "on the command line with --fresh" in err
    assert "Traceback" not in err
    # An edit that changes nothing: measured again, and told.
    with (folder / "evaluate.py").open("a") as file:
        file.write("# Changed.\n")
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "what may be another version of the function 'accuracy'" in err
    assert "the models have the same metrics as in the study, so it continues." in err
    assert main(command) == 0
    assert "warning" not in capsys.readouterr().err
    # One that gives another metric.
    text = (folder / "evaluate.py").read_text()
    changed = text.replace('DATA["labels"]).mean()', 'DATA["labels"]).mean() / 2')
    assert changed != text
    (folder / "evaluate.py").write_text(changed)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "The FP32 model has the metric 0.5 with this evaluation, but 1 in the study." in err
    assert main([*command, "--fresh"]) == 0
    assert "metric 0.5, FP32 0.5" in capsys.readouterr().out


def test_answer_from_the_record_is_called_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*ACCURACY, "--tolerable-loss", "0.1"]
    assert main(command) == 0
    assert "from the record" not in capsys.readouterr().err
    assert main([*command, "--strategy", "random"]) == 0
    err = capsys.readouterr().err
    assert "The answer comes from the record of that study; the strategy 'random' had noth" in err


def test_failed_command_does_not_forget(folder: Path) -> None:
    assert main([*ACCURACY, "--tolerable-loss", "0.1"]) == 0
    journal = (folder / "net.quantized.optuna_quant.journal").read_bytes()
    assert main([*BASE, "--data", "named.npz", "--fresh"]) == 2
    assert (folder / "net.quantized.optuna_quant.journal").read_bytes() == journal


def test_an_interrupt_before_the_search_says_that_there_is_nothing_to_continue(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "stops.py").write_text("raise KeyboardInterrupt\n")
    assert main([*BASE, "--evaluate", "stops.py"]) == 130
    told = "interrupted before the search had started; the same command starts it"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("imported", ["optuna_quant.cli.parser", "optuna"])
@pytest.mark.parametrize("error", ["pass", "raise ImportError('initialization failed')"])
def test_interrupt_while_modules_are_imported_is_one_line(imported: str, error: str) -> None:
    code = f"""
import contextlib, os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {imported!r}:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                {error if error != "pass" else "raise"}

sys.meta_path.insert(0, Interrupts())
from optuna_quant.cli import main

sys.exit(main(["strategies"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("optuna-quant: interrupted")


def test_interrupt_that_an_import_hides_is_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What compiled modules do while they are imported.
    (folder / "hides.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    raise ImportError('initialization failed') from None\n"
    )
    assert main([*BASE, "--evaluate", "hides.py"]) == 130
    assert "optuna-quant: interrupted (" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# serve


@pytest.mark.slow
def test_served_storage_is_shared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("grpc")
    port = str(free_port())
    served = ["serve", "--storage", "sqlite:///served.db", "--port", port]
    code = "import sys; from optuna_quant.cli import main; sys.exit(main())"
    server = subprocess.Popen(
        [sys.executable, "-c", code, *served], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        assert f"Serving on localhost, port {port}: workers" in server.stderr.readline()
        command = [*ACCURACY, "--tolerable-loss", "0.1", "--study-name", "s"]
        assert main([*command, "--storage", f"grpc://localhost:{port}"]) == 0
        first = capsys.readouterr().out
        assert main([*command, "--storage", "sqlite:///served.db"]) == 0
        out, err = capsys.readouterr()
        assert out == first
        assert "The answer comes from the record of that study" in err
        assert main(served) == 2
        assert "Address already in use" in capsys.readouterr().err
    finally:
        server.terminate()
    assert server.wait(timeout=60) == 0


@pytest.mark.parametrize("storage", ["some.journal", "redis://localhost", "grpc://localhost:1"])
def test_what_cannot_be_served_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    storage: str,
) -> None:
    pytest.importorskip("grpc")
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--storage", storage]) == 2
    assert "needs a database behind it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# space


def test_space_is_shown_as_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "net.onnx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["op", "op_type", "options", "default", "fallback"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["Conv0", "Conv"], ["Conv1", "Conv"], ["Gemm0", "Gemm"],
    ]  # fmt: skip
    assert lines[1].index("Conv") == lines[2].index("Conv") == 0
    assert lines[-1].startswith("3 ops, 3 parameters, ")
    assert lines[-1].endswith(" configurations")


def test_space_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "net.onnx", "--json", "--op-types", "Conv"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["op"] for row in rows] == ["Conv0", "Conv1"]
    assert rows[0]["parameter"] == "quant.op:Conv0"
    assert main(["space", "net.onnx", "--csv", "--approach", "dynamic"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("op,op_type,parameter,")
    assert lines


def test_space_of_a_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "npu.toml").write_text('base = "tensorrt"\nname = "npu"\nprovider = "Npu"')
    for target in ("tensorrt", "npu.toml"):
        assert main(["space", "net.onnx", "--json", "--target", target]) == 0
        out, err = capsys.readouterr()
        assert "a=int8/sym" in out.replace("\\", "")
        assert "uint8" not in out
        assert "is not used here" in err
    assert main(["space", "net.onnx", "--target", "tensort"]) == 2
    assert "no target 'tensort'" in capsys.readouterr().err
    assert main(["space", "net.onnx", "--target", "other.toml"]) == 2
    assert "other.toml" in capsys.readouterr().err


def test_warnings_are_lines_of_our_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "net.onnx", "--op-type-dict", '{"LSTM": {"mode": ["fp32"]}}']) == 0
    err = capsys.readouterr().err
    assert err.startswith("optuna-quant: warning: op_type_dict['LSTM'] matches no op")
    assert len(err.splitlines()) == 1


# The command itself.


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from optuna_quant.cli import main; code = main([sys.argv[1]]);"
        "heavy = {'optuna', 'numpy', 'pandas', 'onnx', 'onnxruntime'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    for option, text in (("--help", "exit codes:"), ("--version", f"optuna-quant {__version__}")):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True)
        assert done.returncode == 0
        assert text in done.stdout
        assert done.stderr.strip() == "[]"


def test_reader_that_has_enough_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -c 'import sys; from optuna_quant.cli import main; " + (
        "sys.exit(main())' strategies -f json | head -n 1; echo ${PIPESTATUS[0]}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[", "0"]
    assert done.stderr == ""


def test_function_is_loaded_from_a_file(folder: Path) -> None:
    def loaded(spec: str) -> Callable[..., object]:
        found = load("--evaluate", spec, "evaluate", ())
        assert callable(found)
        return found

    assert loaded("evaluate.py:accuracy").__name__ == "accuracy"
    (folder / "default.py").write_text("def evaluate(session):\n    return 0.5\n")
    assert loaded("default.py")(None) == 0.5
    assert loaded(str(folder / "default.py"))(None) == 0.5


def test_own_strategy_of_the_evaluate_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = """

from optuna_quant.samplers import Stage, StagedQuantSampler, register_strategy

@register_strategy("of_the_evaluate_file")
class Own(StagedQuantSampler):
    def plan(self, space):
        yield Stage("own", [space.default()])
"""
    path = folder / "evaluate.py"
    path.write_text(path.read_text() + own)
    main([*ACCURACY, "--strategy", "of_the_evaluate_file", "--output", "own.onnx"])
    assert "trial 1 (own) | " in capsys.readouterr().err
