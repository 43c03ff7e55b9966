"""What is shown of a search while it runs."""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import tune
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Progress
from optuna_quant.study import record
from optuna_quant.tuning.result import TuningResult


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.0, "c": 0.3}


def evaluate(model: FakeModel) -> float:
    return model.accuracy


def tune_fake(backend: FakeBackend | None = None, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {"evaluate": evaluate, "accuracy_criterion": TOLERANT}
    return tune(backend=backend or FakeBackend(DAMAGE), **given | kwargs)


def test_progress_shows_stage_trial_best_and_what_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Without being asked for.
    tune_fake(tuning_criterion=TuningCriterion(strategy="basic"))
    # How long it takes depends on the machine.
    shown = re.sub(r"\d+:\d\d used", "T used", capsys.readouterr().err)
    lines = shown.splitlines()
    assert lines[0] == "trial 0 (baseline) | FP32 | metric 0.9 | best: none yet | " + (
        "T used, at most 100 trials left"
    )
    assert lines[1] == (
        "trial 1 (default) | all 3 ops in INT8 | not met: metric 0.4, loss 0.5 | "
        "best: none yet | T used, at most 99 trials left"
    )
    (met,) = [line for line in lines if line.startswith("trial 5 (fallback by halves) ")]
    assert " | met, and the search goes on: metric 0.9, loss 0 | " in met
    assert " | best: trial 5, 1 of 3 ops in INT8 | T used, at most " in met
    assert " | best: trial 5, 1 of 3 ops in INT8 | T used, at most " in lines[-1]


def test_without_progress_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    tune_fake(show_progress=False)
    assert capsys.readouterr().err == ""


class Gone(io.StringIO):
    """A stream without a reader."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", ["gone", "closed"])
def test_progress_without_a_reader_does_not_end_the_search(stream: str) -> None:
    file = Gone() if stream == "gone" else io.StringIO()
    if stream == "closed":
        file.close()
    assert tune_fake(callbacks=[Progress(ExitPolicy(TOLERANT), stream=file)]).met


def test_progress_shows_what_the_encoding_lacks() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")

    def evaluate(model: FakeModel) -> float:
        if model.config.quantized_ops:
            raise RuntimeError("größer")
        return model.accuracy

    tuning = TuningCriterion(max_trials=1)
    progress = Progress(ExitPolicy(TOLERANT), stream=file)
    tune_fake(evaluate=evaluate, tuning_criterion=tuning, callbacks=[progress])
    assert rb"failed: Not evaluated: RuntimeError: gr\xf6\xdfer" in raw.getvalue()


def test_progress_shows_what_the_best_costs(capsys: pytest.CaptureFixture[str]) -> None:
    tune_fake(
        FakeBackend({"a": 0.0, "b": 0.0}),
        show_progress=True,
        costs=lambda config: 1e-3 * (1 + len(config.fallback_ops)),
        tuning_criterion=TuningCriterion(timeout=None, objective="latency"),
    )
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"best: trial \d, 0.33 of FP32's time \(predicted\), all 2 ops in INT8", last)


def test_progress_shows_a_weighted_cost_once(capsys: pytest.CaptureFixture[str]) -> None:
    tune_fake(
        FakeBackend({"a": 0.0, "b": 0.0}),
        show_progress=True,
        costs=lambda config: 1e-3 * (1 + len(config.fallback_ops)),
        tuning_criterion=TuningCriterion(timeout=None, objective={"latency": 1, "ops": 1}),
    )
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"best: trial \d, 0.167 of FP32, all 2 ops in INT8", last)


def test_progress_shows_failures_repeats_and_time() -> None:
    backend = FakeBackend({"a": 0.0, "b": 0.0}, duplicates=["a", "b"])
    lines: list[str] = []
    progress = Progress(ExitPolicy(TOLERANT, timeout=3600, max_trials=None))

    def show(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        lines.append(progress.line(study, trial))

    counter = itertools.count()

    def flaky(model: FakeModel) -> float:
        return model.accuracy if next(counter) != 1 else float("nan")

    tuning = TuningCriterion(timeout=None, strategy="basic")
    tune_fake(backend, evaluate=flaky, callbacks=[show], tuning_criterion=tuning)
    assert "failed: The evaluation returned NaN" in lines[1]
    assert "(same model as trial 2)" in lines[3]
    assert re.search(r" 0:0\d used, at most (1:00:00|59:5\d) left$", lines[0])


def test_of_repeats_in_a_row_one_has_a_line() -> None:
    study = optuna.create_study(direction="maximize")
    file = io.StringIO()
    progress = Progress(ExitPolicy(TOLERANT), stream=file)
    for reused_from in (None, None, 1, 1, 1, None, 1, None):
        attrs = {} if reused_from is None else {record.REUSED_FROM: reused_from}
        study.add_trial(optuna.trial.create_trial(value=0.1, user_attrs=attrs))
        progress(study, study.trials[-1])
    lines = file.getvalue().splitlines()
    assert [line.split(" |")[0] for line in lines] == [
        "trial 0",
        "trial 1",
        "trial 2",
        "trial 5 (after 2 trials with models of earlier ones)",
        "trial 6",
        "trial 7",
    ]
