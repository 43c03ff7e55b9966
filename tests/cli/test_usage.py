"""What the command understands, and what it says of what it does not."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
import re
import socket
import subprocess
import tomllib

from fake_backend import FakeBackend
import numpy as np
import optuna
import pytest

from optuna_quant._common.option import options_of
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.cli.config_file import read_config
from optuna_quant.cli.init import options_text
from optuna_quant.cli.parser import main
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable
from optuna_quant.storages.open import open_storage
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.evaluated import mean_interval
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.tuning.status import status_of


INT8 = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax")
DATA = ("--calibration", "calib.npz", "--data", "eval.npz")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tun", "model.onnx"], "but is 'tun'. Did you mean 'tune'?"),
        (["tune", "model.onnx", "--calibraton", "x"], "Did you mean '--calibration'?"),
        (["tune", "model.onnx", "--approach", "statc"], "Did you mean 'static'?"),
        (["tune", "model.onnx", *DATA, "--strategy", "bsic"], "Did you mean 'basic'?"),
        (["tune", "model.onnx", *DATA, "--metric", "acuracy"], "Did you mean 'accuracy'?"),
        (["tune", "model.onnx", *DATA, "--op-types", "conv"], "Did you mean 'Conv'?"),
        (["tune", "model.onnx", *DATA, "--objective", "latncy"], "Did you mean 'latency'?"),
        (["space", "model.onnx", "-f", "jsn"], "Did you mean 'json'?"),
        (["tune", "model.onnx", "--timeout", "1 year"], "such as 90s, 15m, 1h30m or 2d"),
        (["tune", "model.onnx", "more"], "there is nothing to do with 'more'"),
        (["tune"], "The model is missing: name it behind the command"),
        (["evaluate", "--data", "eval.npz"], "as in 'optuna-quant evaluate model.onnx'"),
        (["tune", "model.onnx", *DATA, "-o", "x.onx"], "Did you mean 'x.onnx'?"),
        (["tune", "model.onnx", *DATA, "--report", "x"], "The report 'x' has no ending"),
        (["quantize", "model.onnx", *DATA[:2], "--report", "x.cvs"], "Did you mean 'x.csv'?"),
        (["status"], "no file *.optuna_quant.journal"),
        (["status", "--storage", "none.journal"], "none.journal"),
        (["report", "-o", "r.htm"], "Did you mean 'r.html'?"),
        (["plot", "precision"], "Did you mean 'precisions'?"),
        (["plot", "model_graph"], "needs --model MODEL"),
        (["plot", "-o", "x.html"], "KIND is missing"),
        (["plot", "--trial", "0"], "KIND is missing"),
        (["tune", "model.onnx", "--tolerance", "1"], "--tolerance: give --tolerable-loss"),
        (["tune", "model.onnx", "--loss", "1"], "--loss: give --tolerable-loss"),
        (["tune", "model.onnx", "--workers", "2"], "--workers: give --jobs"),
        (["tune", "model.onnx", "--max-trails", "2"], "Did you mean '--max-trials'?"),
        (["plot", "timeline", "--worker", "2"], "there is no option --worker (see"),
        (["plot", "timeline", "-o", "t.gif"], "--output: 't.gif' has the ending '.gif'"),
        (["evaluate", "model.onnx"], "Give either --data X.npz"),
        (["evaluate", "model.onnx", "--data", "eval.npz", "--metric", "cosine"], "use compare"),
        (["strategies", "--plugin", "none.py"], "there is no file 'none.py'"),
        (["serve"], "or the environment variable OPTUNA_STORAGE"),
    ],
)
def test_errors_are_one_line_of_one_form_and_name_what_was_meant(
    command: list[str], message: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(digits.iterdir())
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("optuna-quant: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert "--verbose" not in err  # The place in our code is of no use to the user.
    assert sorted(digits.iterdir()) == before


def test_the_short_help_leaves_out_what_is_rarely_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tune", "--help"]) == 0
    short = capsys.readouterr().out
    assert main(["tune", "--help-all"]) == 0
    full = capsys.readouterr().out
    assert "--timeout TIME" in short
    assert "--error-probability" not in short
    assert "exit codes:" not in short
    for option in options_of(TuneOptions).values():
        assert all(flag in full for flag in option.flags)
    assert "exit codes:" in full


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_options_and_names(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("sensitivity", "tolerable", "conservative"):
        assert word in script


def test_completion_of_bash_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


# The configuration file.


def test_each_line_of_a_new_configuration_file_can_be_used(tmp_path: Path) -> None:
    lines = [line for line in options_text() if line.startswith("#") and line[1:2].isalpha()]
    named = {option.name for option in options_of(TuneOptions).values() if option.flag}
    assert {line[1:].partition(" ")[0] for line in lines} == named
    file = tmp_path / "tune.toml"
    file.write_text("\n".join(line.removeprefix("#") for line in lines))
    assert read_config(file, TuneOptions).keys() == named


def test_init_writes_a_file_that_tune_reads(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "model.onnx", "--config", "mine.toml"]) == 0
    assert "optuna-quant tune --config mine.toml" in capsys.readouterr().out
    text = (digits / "mine.toml").read_text()
    assert tomllib.loads(text) == {"model": "model.onnx"}
    assert '# The model has the input "x": float32, Nx1x8x8.' in text
    assert "13 Conv, 1 Gemm" in text
    assert main(["init", "model.onnx", "--config", "mine.toml"]) == 2
    assert "is there already" in capsys.readouterr().err


# Plugins.

PLUGIN = """
from optuna_quant import SampleMetric
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.samplers import Stage, StagedQuantSampler, register_strategy

half = SampleMetric(name="half", score=lambda o, y: accuracy(o, y) / 2, bounds=(0, 1))

@register_strategy("of_a_plugin")
class Own(StagedQuantSampler):
    '''Try the default alone. And no more.'''
    def plan(self, space):
        yield Stage("own", [space.default()])
"""


def test_plugins_bring_strategies_and_metrics(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (digits / "own.py").write_text(PLUGIN)
    assert main(["strategies", "--plugin", "own.py", "-f", "json"]) == 0
    rows = {row["strategy"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["of_a_plugin"]["what it does"] == "Try the default alone"
    assert rows["mse"]["needs"] == "calibration data"
    given = ["--plugin", "own.py", "--data", "eval.npz", "-f", "json"]
    assert main(["evaluate", "model.onnx", *given]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "model.onnx", *given, "--metric", "half"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(whole["value"] / 2)


def test_a_configuration_file_names_the_model_and_plugins(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (digits / "sub").mkdir()
    (digits / "own.py").write_text(PLUGIN.replace("of_a_plugin", "of_a_file"))
    (digits / "sub" / "all.toml").write_text(
        "model = '../model.onnx'\nplugin = ['../own.py']\nmetric = 'half'\ndata = '../eval.npz'\n"
    )
    assert main(["evaluate", "--config", "sub/all.toml", "-f", "json"]) == 0
    half = json.loads(capsys.readouterr().out)["value"]
    assert main(["evaluate", "model.onnx", "--data", "eval.npz", "-f", "json"]) == 0
    assert half == pytest.approx(json.loads(capsys.readouterr().out)["value"] / 2)
    # The command goes before the file.
    assert main(["evaluate", "none.onnx", "--config", "sub/all.toml"]) == 2
    assert "none.onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model = 3", "model must be a path, but is 3"),
        ("plugin = [3]", "plugin must be a path or a list of paths, but is [3]"),
        ("model = 'model.onnx'\nplugin = 'none.py'", "there is no file 'none.py'"),
        ("data = 'eval.npz'", "or as model = ... in bad.toml"),
    ],
)
def test_a_bad_model_or_plugin_of_a_configuration_file(
    line: str, message: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (digits / "bad.toml").write_text(line)
    assert main(["evaluate", "--config", "bad.toml"]) == 2
    assert message in capsys.readouterr().err


def test_an_error_of_the_users_code_says_how_to_find_its_place(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (digits / "own.py").write_text("def evaluate(session):\n    return {}['none']\n")
    assert main(["evaluate", "model.onnx", "--evaluate", "own.py:evaluate"]) != 0
    assert "(--verbose shows where)" in capsys.readouterr().err


# Commands that only look.


def test_compare_gives_one_row_of_csv(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "model.onnx", "model.onnx", "--rounds", "3", "--data", "eval.npz"]
    assert main([*command, "-f", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["second.metric"]) == pytest.approx(0.991101, abs=1e-3)
    assert row["first.name"] == "model.onnx"
    assert float(row["outputs.0.agreement"]) == 1.0


def test_evaluate_gives_the_metric_and_its_interval(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (digits / "own.py").write_text(
        "import numpy as np\ndata = np.load('eval.npz')\n"
        "def evaluate(session):\n"
        "    logits = session.run(None, {'x': data['x']})[0]\n"
        "    return logits.argmax(axis=1) == data['y']\n"
    )
    assert main(["evaluate", "model.onnx", "--data", "eval.npz", "-f", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "model.onnx", "--evaluate", "own.py", "-f", "json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert (own["value"], own["interval"]) == (found["value"], found["interval"])
    low, high = found["interval"]
    assert low < found["value"] <= high
    assert main(["evaluate", "model.onnx", "--data", "eval.npz", "-f", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split(",")[:3] == ["model", "metric", "value"]


def test_the_interval_of_a_share_is_that_of_wilson() -> None:
    right, count, z = 45, 50, 1.959963984540054
    found = mean_interval(np.array([1.0] * right + [0.0] * (count - right)))
    share = right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count)
    half *= math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    assert found == pytest.approx((middle - half, middle + half))
    assert mean_interval(np.array([0.5])) is None
    low, high = mean_interval(np.array([0.1, 0.2, 0.3, 0.4])) or (0, 0)
    # Student's t with 3 degrees of freedom.
    assert high - 0.25 == pytest.approx(3.182446305 * np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2)
    assert low == pytest.approx(0.5 - high)


def test_status_tells_a_search_from_its_storage(
    digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "record.journal")
    command = ["tune", "model.onnx", *DATA, "--tolerable-loss", "0.9", "--strategy", "basic"]
    assert main([*command, "--objective", "ops", "--quiet"]) == 0
    capsys.readouterr()
    assert (digits / "record.journal").exists()
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("study 'model-")
    assert "': met\n" in said
    assert "\nbest: trial 1, all 14 ops in INT8, metric " in said
    assert "\nworkers: none (no trial is running)\n" in said
    assert "\nstopped: Trial 1 meets the criterion" in said
    assert main(["status", "-f", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["outcome"], found["best_trial"], found["evaluated"]) == ("met", 1, 1)
    assert main(["report", "-o", "r.json"]) == 0
    assert json.loads((digits / "r.json").read_text())["baseline"]["metric"] == found["baseline"]
    assert main(["plot", "precisions", "-o", "p.svg"]) == 0
    assert (digits / "p.svg").read_text().startswith("<?xml")
    capsys.readouterr()
    # An op that the search has left out is an op of the model, too.
    tunables = OnnxRuntimeBackend("model.onnx", inspect_only=True).tuning_space().tunables
    slower = tunables[-1].name
    ops = {
        t.name: {FP32.label: 1.0}
        | {o.label: 2.0 if t.name == slower else 0.5 for o in t.options if o.is_quantized}
        for t in tunables
    }
    Costs({"latency": CostTable("latency", "s", ops)}, {"machine": "another"}).save("costs.json")
    assert (
        main(
            [
                *command,
                "--costs",
                "costs.json",
                "--no-gain",
                "--storage",
                "other.journal",
                "--quiet",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["status", "--storage", "other.journal"]) == 0
    assert "13 of 14 ops in INT8" in capsys.readouterr().out
    assert main(["status", "--study-name", "modl"]) == 2
    assert "no study 'modl'" in capsys.readouterr().err


def test_the_trials_of_a_status_add_up() -> None:
    result = tune(
        backend=FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3}),
        evaluate=lambda model: model.accuracy,
        tolerable_loss=0.2,
    )
    status = status_of(result.study)
    assert (status.baseline_trials, status.failed, status.waiting) == (1, 0, 0)
    shown = next(line for line in str(status).splitlines() if line.startswith("trials: "))
    total, *counts = map(int, re.findall(r"(?<![\w.])\d+", shown))
    assert total == sum(counts) == status.trials
    assert f"{status.evaluated} evaluated, 1 of the FP32 model, 0 running" in shown


def test_a_trial_whose_worker_has_died_is_cut_short() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0})
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    study.optimize(lambda trial: backend.accuracy(space.suggest(trial)), n_trials=2)
    number = study.ask().number
    study._storage.set_trial_state_values(  # As one that finds it does: not through the sampler.
        study.trials[number]._trial_id, optuna.trial.TrialState.FAIL
    )
    status = status_of(study)
    assert (status.trials, status.evaluated, status.failed, status.cut_short) == (3, 1, 0, 1)
    assert "(1 evaluated, 1 of the FP32 model, 0 running, 1 cut short)" in str(status)


def test_a_report_of_another_study_is_not_replaced(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        tune(
            backend=FakeBackend({"a": 0.2, "b": 0.0}),
            evaluate=lambda model: model.accuracy,
            storage=digits / "s.journal",
            study_name=name,
        )
    for file in ("r.html", "r.json"):
        command = ["report", "--storage", "s.journal", "-o", file, "--study-name"]
        assert main([*command, "one"]) == 0
        first = (digits / file).read_bytes()
        assert main([*command, "two"]) == 2
        assert "is the report of the study 'one', and would be" in capsys.readouterr().err
        assert (digits / file).read_bytes() == first
        assert main([*command, "one"]) == 0
        assert main([*command, "two", "--force"]) == 0
        assert main([*command, "two"]) == 0
    (digits / "mine.html").write_text("<p>mine</p>")
    command = ["report", "--storage", "s.journal", "--study-name", "one", "-o", "mine.html"]
    assert main(command) == 2
    assert "is no report, and would be replaced" in capsys.readouterr().err


def test_status_sees_who_is_at_work(digits: Path) -> None:
    storage = open_storage(digits / "live.journal", heartbeat=False)
    space = TuningSpace((Tunable("a", "Conv", ("a",), (INT8, FP32)),))
    study = optuna.create_study(
        storage=storage, sampler=BasicQuantSampler(space), direction="maximize"
    )
    assert status_of(study).outcome == "not started"
    trial = study.ask()
    space.suggest(trial)
    status = status_of(study)
    assert (status.outcome, status.running, status.lost) == ("not met yet", 1, 0)
    assert status.workers == {socket.gethostname(): 1}
    assert "trials: 1 (0 evaluated, 1 running)" in str(status)
