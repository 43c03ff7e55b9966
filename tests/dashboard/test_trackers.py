"""The callbacks for other trackers, as the documentation has them."""

from __future__ import annotations

from pathlib import Path
import re
from typing import Any

from fake_backend import FakeBackend
import pytest

from optuna_quant import TuningResult
from optuna_quant import tune


PAGE = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")


def callback(name: str) -> Any:
    """A callback of the page, by its name."""
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        if f"def {name}(" in block:
            names: dict[str, Any] = {}
            exec(compile(block, f"trackers.md: {name}", "exec"), names)
            return names[name]
    raise AssertionError(f"The page has no {name}.")


def search(log: Any) -> TuningResult:
    return tune(
        backend=FakeBackend({"a": 0.2, "b": 0.0}),
        evaluate=lambda model: model.accuracy,
        strategy="basic",
        callbacks=[log],
    )


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"file://{tmp_path}")
    mlflow.set_experiment("search")
    trials = search(callback("to_mlflow")).study.trials
    runs = mlflow.search_runs(output_format="list")
    assert {run.info.run_name for run in runs} == {f"trial {trial.number}" for trial in trials}
    first = next(run for run in runs if run.info.run_name == "trial 1")
    assert first.data.metrics["metric"] == trials[1].value
    assert first.data.tags["met"] == "False"


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    trials = search(callback("to_tensorboard")).study.trials
    found = EventAccumulator(str(tmp_path / "runs" / "search"))
    found.Reload()
    logged = {event.step: event.value for event in found.Scalars("metric")}
    assert logged == pytest.approx({trial.number: trial.value for trial in trials})
