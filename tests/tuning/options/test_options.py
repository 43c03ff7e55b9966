"""One definition of the options serves Python, the command and configuration files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import dataclasses
from dataclasses import dataclass
import inspect
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

import optuna_quant
from optuna_quant._common.option import Flag
from optuna_quant._common.option import group
from optuna_quant._common.option import groups_of
from optuna_quant._common.option import option
from optuna_quant._common.option import options_of
from optuna_quant._common.option_kinds import COUNT
from optuna_quant.cli.config_file import read_config
from optuna_quant.cli.options import add_options
from optuna_quant.cli.options import given_options
from optuna_quant.cli.values import read_values
from optuna_quant.tuning.options.collect import collect
from optuna_quant.tuning.options.request import TuneOptions


REPOSITORY = Path(optuna_quant.__file__).parent.parent
MOST_SHOWN = 16


@dataclass(frozen=True, kw_only=True)
class MoreEvaluation(optuna_quant.EvaluationOptions):
    warm_up: int = option(2, Flag(help="runs before the first", kind=COUNT, metavar="RUNS"))


@dataclass(frozen=True, kw_only=True)
class MoreOptions(TuneOptions):
    evaluation: MoreEvaluation = group(MoreEvaluation)


def parsed(cls: type, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    add_options(parser, cls)
    return parser.parse_args(arguments)


def given(text: str, folder: Path, *arguments: str) -> Mapping[str, Any]:
    file = folder / "tune.toml"
    file.write_text(text)
    return given_options(parsed(TuneOptions, "--config", str(file), *arguments), TuneOptions)


def test_new_option_is_one_edit(tmp_path: Path) -> None:
    """It is declared above; nothing else says that it exists."""
    assert collect(MoreOptions, {}).evaluation.warm_up == 2
    assert collect(MoreOptions, {"warm_up": 5}).evaluation.warm_up == 5
    assert given_options(parsed(MoreOptions, "--warm-up", "6"), MoreOptions) == {"warm_up": 6}
    with pytest.raises(SystemExit):
        parsed(MoreOptions, "--warm-up", "0")
    file = tmp_path / "tune.toml"
    for text in ("warm_up = 7", "[evaluation]\nwarm_up = 7"):
        file.write_text(text)
        assert read_config(file, MoreOptions) == {"warm_up": 7}
    with pytest.raises(TypeError, match=r"no option 'warmup'. Did you mean 'warm_up'"):
        collect(MoreOptions, {"warmup": 5})
    parser = argparse.ArgumentParser()
    add_options(parser, MoreOptions)
    assert "--warm-up RUNS" in parser.format_help()
    assert "runs before the first" in parser.format_help()


def test_signature_stays_short() -> None:
    shown = inspect.signature(optuna_quant.tune).parameters
    assert len(shown) <= MOST_SHOWN
    assert set(shown) - {"options"} <= set(options_of(TuneOptions))


def test_types_and_pages_are_up_to_date() -> None:
    """Of what is written from the definition: also the help of tune on the command's page."""
    script = REPOSITORY / "docs" / "write_options.py"
    found = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert found.returncode == 0, f"run python docs/write_options.py --write: {found.stdout}"


def test_every_option_is_described_where_it_is_declared() -> None:
    for cls in groups_of(TuneOptions).values():
        for field in dataclasses.fields(cls):
            # Python 3.13 removes the indentation itself.
            described = inspect.cleandoc(str(cls.__doc__))
            assert f"    {field.name}:\n" in described, field.name


def test_every_default_is_valid() -> None:
    request = collect(TuneOptions, {})
    assert request == TuneOptions()
    for cls in groups_of(TuneOptions).values():
        cls()


@pytest.mark.parametrize("name", ["accuracy_criterion", "evaluation", "quantization", "search"])
def test_groups_are_of_their_class(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be of the type \w+, but got 3"):
        optuna_quant.tune("model.onnx", **{name: 3})


def test_a_criterion_is_no_number() -> None:
    with pytest.raises(TypeError, match=r"write AccuracyCriterion\(tolerable_loss=0.02\)"):
        optuna_quant.tune("model.onnx", accuracy_criterion=0.02)


def test_options_one_by_one_or_in_values() -> None:
    options = optuna_quant.EvaluationOptions(holdout=0.3, verify=False)
    one_by_one = collect(TuneOptions, {"holdout": 0.3, "verify": False})
    assert collect(TuneOptions, {"evaluation": options}) == one_by_one
    flat = collect(TuneOptions, {"tolerable_loss": 0.02, "timeout": None, "strategy": "mse"})
    assert flat.accuracy_criterion == optuna_quant.AccuracyCriterion(tolerable_loss=0.02)
    assert flat.tuning_criterion == optuna_quant.TuningCriterion(timeout=None, strategy="mse")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tolerable_loss": 0.02, "accuracy_criterion": optuna_quant.AccuracyCriterion()},
            r"tolerable_loss=0.02 and accuracy_criterion=AccuracyCriterion\(...\) are both given",
        ),
        # Also where it says what the default is, and where None says something.
        (
            {"max_trials": 100, "tuning_criterion": optuna_quant.TuningCriterion(max_trials=5)},
            r"max_trials=100 and tuning_criterion=TuningCriterion\(...\) are both given",
        ),
        (
            {"timeout": None, "tuning_criterion": optuna_quant.TuningCriterion()},
            "timeout=None and tuning_criterion",
        ),
        (
            {"holdout": 0.3, "evaluation": optuna_quant.EvaluationOptions()},
            r"write evaluation=EvaluationOptions\(..., holdout=0.3\), or leave evaluation out",
        ),
    ],
)
def test_an_option_is_given_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optuna_quant.tune("model.onnx", **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hold_out", r"no option 'hold_out'. Did you mean 'holdout'\? \(.* of EvaluationOptions"),
        ("tolerance_loss", r"Did you mean 'tolerable_loss'\?"),
        ("jobs", r"Did you mean 'n_jobs'\? \(It is an option of SearchOptions"),
        ("acuracy_criterion", r"Did you mean 'accuracy_criterion'\?"),
        ("xyz", r"It has model, .*, seed; and the options of .*runtime \(RuntimeOptions\)"),
    ],
)
def test_unknown_option_is_one_error_that_helps(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        optuna_quant.tune("model.onnx", **{name: 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, but got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer, but got 2.5"),
        ({"verify": "no"}, "verify must be True or False, but got 'no'"),
        ({"error_probability": 1.0}, "error_probability must be above 0 and below 1"),
        ({"evaluation_timeout": 0}, "evaluation_timeout must be a number of seconds above 0"),
        ({"evaluation_timeout": "0s"}, "evaluation_timeout must be a number of seconds above 0"),
        ({"threads": 0}, "threads must be at least 1, but got 0"),
        ({"threads": 2, "session_options": object()}, "Either threads .* or session_options"),
        ({"show_progress": 1}, "show_progress must be True or False, but got 1"),
    ],
)
def test_values_are_checked_where_they_are_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        collect(TuneOptions, options)


FILE = """
data = "eval.npz"
metric = "own.py:score"
evaluate = "own.py:evaluate"
storage = "study.journal"
metric_bounds = [0, 1]
timeout = "none"
max_trials = 20
op_types = ["Conv", "Gemm"]
calibration_sizes = 100
verify = false
higher_is_better = false
output_names = "scores"
from_study = "first@old.journal"
holdout = 0.25
quant_level = 1
strategy_kwargs = "@options.json"

[quantization]
approach = "auto"
target = "npu.toml"

[quantization.op_type_dict.Conv]
mode = ["fp32"]

[evaluation.inputs]
sr = 16000
state = "@state.npy"
name = "5"

[tuning_criterion.objective]
latency = 0.7
size = 0.3
"""


def test_file_says_the_same_as_python(tmp_path: Path) -> None:
    found = dict(given(FILE, tmp_path))
    assert found.pop("inputs") == {
        "sr": 16000,
        "state": f"@{tmp_path / 'state.npy'}",
        "name": "5",
    }
    assert found == {
        "data": f"{tmp_path / 'eval.npz'}",
        "metric": f"{tmp_path / 'own.py'}:score",
        "evaluate": f"{tmp_path / 'own.py'}:evaluate",
        "storage": f"{tmp_path / 'study.journal'}",
        "metric_bounds": [0, 1],
        "timeout": None,
        "max_trials": 20,
        "op_types": ["Conv", "Gemm"],
        "calibration_sizes": 100,
        "verify": False,
        "higher_is_better": False,
        "output_names": ["scores"],
        "from_study": f"first@{tmp_path / 'old.journal'}",
        "holdout": 0.25,
        "quant_level": 1,
        "strategy_kwargs": f"@{tmp_path / 'options.json'}",
        "approach": "auto",
        "target": f"{tmp_path / 'npu.toml'}",
        "op_type_dict": {"Conv": {"mode": ["fp32"]}},
        "objective": {"latency": 0.7, "size": 0.3},
    }


def test_what_is_no_path_stays(tmp_path: Path) -> None:
    text = 'metric = "accuracy"\nstorage = "redis://host/0"\nfrom_study = "name"\ntarget = "qnn"'
    assert given(text, tmp_path) == {
        "metric": "accuracy",
        "storage": "redis://host/0",
        "from_study": "name",
        "target": "qnn",
    }


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    text = "batch_size = 8\nseed = 3"
    assert given(text, tmp_path, "--batch-size", "9") == {"batch_size": 9, "seed": 3}


def test_inputs_of_a_file_keep_their_type(tmp_path: Path) -> None:
    found = given("[inputs]\nsr = 16000\nname = '5'\nflag = true\nstate = [0, 1]", tmp_path)
    assert read_values(found, TuneOptions)["inputs"] == {
        "sr": 16000,
        "name": "5",
        "flag": True,
        "state": [0, 1],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("holdut = 0.3", r"tune.toml: there is no option 'holdut'. Did you mean 'holdout'\?"),
        ("[evaluation]\nholdut = 0.3", r"\[evaluation\]: there is no option 'holdut'. Did you"),
        ("[runtime]\nholdout = 0.3", "no option 'holdout'. It is an option, but not of this"),
        ("jobs = 3", r"no option 'jobs'. Did you mean 'n_jobs'\?"),
        ("no_verify = true", r"no option 'no_verify'. Did you mean 'verify'\?"),
        ("callbacks = []", "callbacks cannot be set in a file, only in Python"),
        ("evaluation = 3", "evaluation must be a table, but is 3"),
        ("batch_size = 0", "batch_size: it must be at least 1, but is 0"),
        ("batch_size = true", "batch_size: it must be a whole number of at least 1, but is True"),
        ("batch_size = 'many'", "batch_size: it must be a whole number of at least 1, but is 'm"),
        ("verify = 'no'", "verify: it must be true or false, but is 'no'"),
        ("approach = 'statik'", "approach: it must be one of static, dynamic, weight_only, auto"),
        ("metric = 3", "metric: it must be a name or FILE.py:NAME, but is 3"),
        ("seed = 1\n[evaluation]\n[search]\nn_jobs = 'x'", "n_jobs: it must be a whole number"),
        ("holdout = 0.2\n[evaluation]\nholdout = 0.3", "holdout is given twice"),
        ("seed = ", "is not valid TOML"),
        ("metric_bounds = [0]", r"metric_bounds: it must be a list of two numbers, but is \[0\]"),
        ("metric_bounds = [0, 'x']", "metric_bounds: it must be a list of two numbers, but is 'x"),
        ("calibration_sizes = [100, 0]", "calibration_sizes: it must be at least 1, but is 0"),
    ],
)
def test_file_is_refused_with_one_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given(text, tmp_path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--config: '.*none.toml' cannot be read: No such file"):
        read_config(tmp_path / "none.toml", TuneOptions)
