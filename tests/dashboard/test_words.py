"""The strings that people read about a study and its trials."""

from __future__ import annotations

from typing import Any

from costed_backend import CostedBackend
from fake_backend import FakeBackend
import optuna
import pytest
from spaces import DYNAMIC
from spaces import STATIC

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.callbacks import StopReason
from optuna_quant.dashboard.note import MARK
from optuna_quant.dashboard.note import merged
from optuna_quant.dashboard.note import study_note
from optuna_quant.dashboard.overview import Outcome
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.dashboard.overview import shown_gain
from optuna_quant.dashboard.trial_words import TrialWords
from optuna_quant.dashboard.trial_words import shown_config
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.trial_view import views


DAMAGE = {"conv1": 0.1, "conv2": 0.0, "conv3": 0.0, "fc": 0.0}


def search(damage: Any = None, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "evaluate": lambda model: model.accuracy,
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.01),
        "strategy": "basic",
    }
    return tune(backend=FakeBackend(damage or DAMAGE), **given | kwargs)


def words(study: optuna.Study) -> TrialWords:
    overview = read_overview(study)
    return TrialWords(
        criterion=overview.criterion, fp32=overview.fp32, space=recorded_space(study)
    )


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ({"a": STATIC, "b": STATIC}, "2 of 2 ops in INT8"),
        (
            {"a": STATIC, "b": FP32, "c": DYNAMIC},
            "1 of 3 ops in INT8, 1 of 3 ops in INT8 dynamic; FP32: b",
        ),
        ({"a": FP32}, "none of 1 ops quantized"),
        (
            {f"o{i}": FP32 for i in range(9)} | {"q": STATIC},
            "1 of 10 ops in INT8; FP32: o0, o1, o2, o3, o4, o5 and 3 more",
        ),
        ({"a\n": FP32, "b": STATIC}, "1 of 2 ops in INT8; FP32: a\\n"),
    ],
)
def test_a_configuration_is_a_line(ops: dict[str, Any], expected: str) -> None:
    assert shown_config(QuantConfig(ops)) == expected


def test_a_recipe_is_named() -> None:
    config = QuantConfig({"a": STATIC}, {"smooth_quant": 0.5, "off": False})
    assert shown_config(config) == "1 of 1 ops in INT8; smooth_quant: 0.5"


def test_gain_is_a_part_of_fp32() -> None:
    fp32 = {"latency": 0.002, "size": 4000.0, "ops": 4.0}
    assert shown_gain({"latency": 0.001, "size": 1000.0}, fp32) == "latency 50%, size 25% of FP32"
    assert shown_gain({}, fp32) == ""


def test_each_trial_is_put_into_words() -> None:
    study = search().study
    said = [words(study).of(view) for view in views(study)]
    assert said[0] == {
        "stage": "baseline",
        "result": "FP32 model, not an answer",
        "configuration": "none of 4 ops quantized",
    }
    assert said[1]["result"] == "not met: loss 11.1%"
    assert said[1]["gain"] == f"size {100 * 3599 / 4000:.3g}% of FP32"
    met = [each for each in said if each["result"].startswith("met")]
    assert any(each["configuration"] == "3 of 4 ops in INT8; FP32: conv1" for each in met)


def test_the_note_says_that_the_criterion_is_met() -> None:
    result = search()
    note = study_note(read_overview(result.study), recorded_space(result.study), link="/t?n=")
    assert note.startswith("## The criterion is met\n")
    number = result.trial.number
    assert f"- **Best trial**: [{number}](/t?n={number}) (metric 0.9, loss 0%)" in note
    assert "- **Configuration**: 3 of 4 ops in INT8; FP32: conv1" in note
    assert "- **Criterion**: at most 1% relative loss" in note
    assert result.stopped_because in (StopReason.MET, StopReason.EXHAUSTED)
    assert "- **Stopped**: " in note


def test_the_note_says_that_the_criterion_is_not_met() -> None:
    study = search({"a": 0.2, "b": 0.3}, max_trials=3).study
    overview = read_overview(study)
    assert overview.outcome == Outcome.NOT_MET
    note = study_note(overview)
    assert note.startswith("## The criterion is not met\n")
    assert "- **Closest trial**: " in note


def test_the_note_says_that_the_criterion_was_not_met_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = search().study
    monkeypatch.setattr("optuna_quant.dashboard.overview.is_refuted", lambda *_, **__: True)
    assert study_note(read_overview(study)).startswith("## The criterion is met, but not when")


def test_the_note_of_a_running_search_says_so() -> None:
    study = search().study
    study.set_user_attr(record.STOPPED_BECAUSE, None)
    assert study_note(read_overview(study)).startswith("## The criterion is met so far\n")


def test_the_note_says_that_nothing_gains() -> None:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr(record.STOPPED_BECAUSE, {"reason": "no_gain", "message": "No gain."})
    assert study_note(read_overview(study)).startswith("## No gain: ")


def test_the_note_of_an_empty_study() -> None:
    study = optuna.create_study(direction="maximize")
    assert study_note(read_overview(study)).startswith("## No quantized model is evaluated yet")


def test_trials_are_counted_by_what_came_out_of_them() -> None:
    study = search().study
    counts = read_overview(study).counts
    assert sum(counts.values()) == len(study.trials)
    assert counts["FP32"] == 1


def test_what_people_write_into_the_note_is_kept() -> None:
    once = merged("my text", "first")
    assert once == f"first\n\n{MARK}\n\nmy text"
    assert merged(once, "second") == f"second\n\n{MARK}\n\nmy text"


def test_trials_of_another_search_do_not_count() -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=3)
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    study.sampler = BasicQuantSampler(space, criterion=AccuracyCriterion(tolerable_loss=0.01))
    study.optimize(lambda trial: backend.accuracy(space.suggest(trial)), n_trials=3)
    assert read_overview(study).counts == {"not met": 2, "FP32": 1}


def test_models_without_a_baseline_are_not_judged() -> None:
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize")
    assert study_note(read_overview(study)).startswith("## No quantized model is evaluated yet")
    study.optimize(lambda trial: backend.accuracy(space.suggest(trial)), n_trials=4)
    note = study_note(read_overview(study))
    assert note.startswith("## No model can be judged: the metric of FP32 is not known so far\n")
    assert "- **Trials**: 4 (4 not judged)" in note


def test_the_best_by_several_measures_is_that_of_the_search() -> None:
    """By the ops alone another one would be best: each of them is quantized as often."""
    result = tune(
        backend=CostedBackend(
            {"a": 0.005, "b": 0.005, "c": 0.005},
            {"a": 0.9, "b": 0.2, "c": 0.9},
            sizes={"a": 0.2, "b": 0.9, "c": 0.9},
        ),
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.006),
        objective={"latency": 0.9, "size": 0.1},
        strategy="exhaustive",
        strategy_kwargs={"fallback": True},
        max_trials=20,
        timeout=None,
        measure_gain=False,
    )
    overview = read_overview(result.study)
    assert overview.best is not None
    assert overview.best.trial.number == result.trial.number
    assert list(result.config.quantized_ops) == ["b"]
