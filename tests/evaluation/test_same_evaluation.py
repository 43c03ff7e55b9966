"""What the metrics of a study rest on: nothing that changed is taken for the same."""

from __future__ import annotations

from collections.abc import Callable
import operator
import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import onnx_models
import optuna
from optuna.trial import TrialState
import pytest
from zygote import Zygote

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.errors import ChangedEvaluationError
from optuna_quant.study.gone import StudyGoneError
from optuna_quant.study.population_record import read_population
from optuna_quant.study.sample_record import population_of
from optuna_quant.tuning import opening
from optuna_quant.tuning import run as run_module
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult
from optuna_quant.workers import identity


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.01, "c": 0.0}


class Counted:
    """A function that counts its calls by what was evaluated; the count is not part of it."""

    def __init__(self, function: Callable[[FakeModel], float]) -> None:
        self.function = function
        self.seen: list[FakeModel] = []

    def __call__(self, model: FakeModel) -> float:
        self.seen.append(model)
        return self.function(model)

    @property
    def quantized(self) -> list[bool]:
        return [bool(model.config.quantized_ops) for model in self.seen]


def go(storage: Any, evaluate: Any, backend: Any = None, **given: Any) -> TuningResult:
    return tune(
        backend=backend or FakeBackend(DAMAGE),
        evaluate=evaluate,
        storage=storage,
        study_name="mine",
        accuracy_criterion=CRITERION,
        tuning_criterion=TuningCriterion(strategy="basic"),
        **given,
    )


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_function_with_another_metric_is_refused(storage: Path) -> None:
    go(storage, Counted(lambda model: model.accuracy))
    half = Counted(lambda model: model.accuracy / 2)
    with pytest.raises(ChangedEvaluationError) as error:
        go(storage, half)
    text = str(error.value)
    assert "The study 'mine' was started with what may be another version of the function" in text
    assert "The FP32 model has the metric 0.45 with this evaluation, but 0.9 in the study." in text
    assert "Use what it was started with, another study name or storage, or start it over" in text
    assert half.quantized == [False]


def test_a_function_with_the_same_metrics_goes_on(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    first = go(storage, Counted(lambda model: model.accuracy))
    same = Counted(lambda model: model.accuracy + 0.0)
    result = go(storage, same)
    assert result.config == first.config
    assert same.quantized == [False, True]  # FP32, and the answer.
    assert caplog.text.count("Evaluated again, the models have the same metrics") == 1
    same.seen.clear()
    assert go(storage, same).config == first.config
    assert same.seen == []
    again = Counted(lambda model: model.accuracy)
    go(storage, again)
    assert again.seen == []
    assert caplog.text.count("Evaluated again") == 1


def test_a_function_that_hangs_is_ended(storage: Path) -> None:
    go(storage, Counted(lambda model: model.accuracy))

    def hang(model: FakeModel) -> float:
        time.sleep(60)
        return model.accuracy

    with pytest.raises(BaselineError, match=r"took longer than evaluation_timeout=0\.3 s"):
        go(storage, Counted(hang), evaluation_timeout=0.3)


def test_a_function_that_scores_candidates_otherwise_is_refused(storage: Path) -> None:
    """As another metric does of which FP32 has the best value as well."""
    go(storage, Counted(lambda model: model.accuracy))
    other = Counted(lambda model: 0.9 if not model.config.quantized_ops else 0.1)
    with pytest.raises(ChangedEvaluationError, match=r"model of trial \d+ has the metric 0\.1 wi"):
        go(storage, other)
    assert other.quantized == [False, True]


def test_a_function_without_a_hash_is_measured_again(storage: Path) -> None:
    go(storage, operator.attrgetter("accuracy"))
    with pytest.raises(ChangedEvaluationError, match=r"metric 4000 with this evaluation, but 0.9"):
        go(storage, operator.attrgetter("nbytes"))


def test_a_function_that_fails_says_so(storage: Path) -> None:
    go(storage, Counted(lambda model: model.accuracy))
    with pytest.raises(ValueError, match="FP32 model could not be evaluated: ZeroDivisionError"):
        go(storage, Counted(lambda model: 1 / 0))


def test_study_of_an_earlier_version_is_measured_again(storage: Path) -> None:
    function = Counted(lambda model: model.accuracy)
    go(storage, function)
    study = optuna.load_study(storage=open_storage(storage), study_name="mine")
    study.set_user_attr("optuna_quant:evaluation", None)
    function.seen.clear()
    go(storage, function)
    assert function.quantized == [False, True]
    function.seen.clear()
    go(storage, function)
    assert function.seen == []
    study.set_user_attr("optuna_quant:evaluation", None)
    with pytest.raises(ChangedEvaluationError, match="does not record the evaluation it was"):
        go(storage, Counted(lambda model: 0.5))


def by_hand(
    study: optuna.Study, evaluate: Any, backend: Any = None, trials: int | None = None
) -> None:
    backend = backend or FakeBackend(DAMAGE)
    space = backend.tuning_space()
    study.sampler = BasicQuantSampler(space, criterion=CRITERION)
    objective = QuantObjective(backend, space, evaluate, CRITERION)
    study.optimize(objective, n_trials=trials, callbacks=[ExitPolicy(CRITERION, timeout=None)])


def test_studies_by_hand_are_checked_as_well() -> None:
    study = optuna.create_study(direction="maximize")
    by_hand(study, Counted(lambda model: model.accuracy), trials=3)
    half = Counted(lambda model: model.accuracy / 2)
    with pytest.raises(ChangedEvaluationError, match=r"metric 0\.45 with this evaluation"):
        by_hand(study, half)
    assert half.quantized == [False]
    with pytest.raises(ChangedError, match="started with other calibration data"):
        by_hand(study, half, Signed("two"))
    assert half.quantized == [False]
    go_on = Counted(lambda model: model.accuracy)
    by_hand(study, go_on)
    assert False not in go_on.quantized


def test_baseline_that_was_given_is_not_measured() -> None:
    study = optuna.create_study(direction="maximize")
    set_baseline(study, Baseline(0.88))
    function = Counted(lambda model: model.accuracy)
    by_hand(study, function)
    assert False not in function.quantized


# Labelled data.


def labelled() -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    model = onnx_models.convnet()
    x = onnx_models.samples(60, 2, 8, 8)
    session = OnnxRuntimeBackend(model, calibration_data=x).quantize
    backend = OnnxRuntimeBackend(model, calibration_data=x)
    scores = session(backend.tuning_space().fp32()).session.run(None, {"x": x})[0]
    return backend, {"x": x, "labels": scores.reshape(len(x), -1).argmax(1)}


def go_data(storage: Any, backend: Any, data: Any, **given: Any) -> TuningResult:
    return tune(
        backend=backend,
        data=data,
        storage=storage,
        study_name="mine",
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.2),
        tuning_criterion=TuningCriterion(objective="ops"),
        **given,
    )


@pytest.mark.parametrize("stopping", ["paired", "off"])
def test_other_data_and_metrics_are_refused_by_name(storage: Path, stopping: str) -> None:
    backend, data = labelled()
    first = go_data(storage, backend, data, early_stopping=stopping)
    before = len(first.study.trials)

    def refused(pattern: str, data: Any, **given: Any) -> None:
        with pytest.raises(ChangedEvaluationError, match=pattern):
            go_data(storage, backend, data, early_stopping=stopping, **given)

    labels = data["labels"].copy()
    labels[7] += 1
    refused("started with other labels", data | {"labels": labels})
    x = data["x"].copy()
    x[3] *= 1.01
    refused("started with other data", data | {"x": x})
    refused("metric", data, metric="top5")
    shorter = {name: array[:50] for name, array in data.items()}
    refused("started with (other data, other labels|60 evaluation samples)", shorter)
    again = go_data(storage, backend, data, early_stopping=stopping)
    assert len(again.study.trials) == before
    assert again.config == first.config


def test_signature_of_labelled_data_names_its_parts() -> None:
    x, y = np.ones((3, 2), np.float32), np.arange(3)

    def changed(**given: Any) -> list[str]:
        first = signature_of(DataEvaluation({"x": x, "labels": y}))
        options = {"metric": "accuracy", "data": {"x": x, "labels": y}} | given
        second = signature_of(DataEvaluation(options.pop("data"), **options))
        return [part for part in first if first[part] != second[part]]

    assert changed() == []
    assert changed(batch_size=1, threads=2) == []
    assert changed(data={"x": x + 1, "labels": y}) == ["data"]
    assert changed(data={"x": x, "labels": y[::-1]}) == ["labels"]
    assert changed(metric="mse", metric_bounds=(0, 9)) == ["metric", "metric function"]
    assert changed(metric=lambda output, labels: labels * 1.0) == ["metric", "metric function"]


def test_signature_of_a_dataset_rests_on_samples_of_it() -> None:
    class Dataset:
        def __init__(self, offset: int) -> None:
            self._offset = offset

        def __len__(self) -> int:
            return 50

        def __getitem__(self, index: int) -> Any:
            if index >= 50:
                raise IndexError
            return {"x": np.full(2, index + self._offset), "labels": index % 3}

    first, second = (signature_of(DataEvaluation(Dataset(offset))) for offset in (0, 1))
    assert first["dataset"].startswith("50 samples ")
    assert first == signature_of(DataEvaluation(Dataset(0)))
    assert [part for part in first if first[part] != second[part]] == ["dataset"]


# What holds no results starts again.


class Signed(FakeBackend):
    """A fake backend with calibration data, which may be broken."""

    def __init__(self, calibration: str, broken: bool = False) -> None:
        super().__init__(DAMAGE)
        self._calibration = calibration
        self._broken = broken

    def signature(self) -> dict[str, str]:
        return {"calibration data": self._calibration}

    def calibrate(self) -> None:
        if self._broken:
            raise ValueError("The calibration data hold NaN.")


def test_search_goes_on_once_the_calibration_data_are_mended(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    function = Counted(lambda model: model.accuracy)
    with pytest.raises(ValueError, match="hold NaN"):
        go(storage, function, Signed("one", broken=True))
    assert function.quantized == [False]
    study = optuna.load_study(storage=open_storage(storage), study_name="mine")
    study.set_user_attr("note", "of the user")
    space = FakeBackend(DAMAGE).tuning_space()
    chosen = space.default().with_fallback("b")
    study.enqueue_trial(space.params_of(chosen))
    result = go(storage, function, Signed("two"))
    assert result.met
    assert "was started with other calibration data" in caplog.text
    assert (
        "It held no result except the FP32 model's metric, so it is started over." in caplog.text
    )
    assert result.study.user_attrs["note"] == "of the user"
    assert chosen in [model.config for model in function.seen]
    assert result.study.trials[0].number == 0
    # Now it has results.
    with pytest.raises(ChangedError, match="started with other calibration data"):
        go(storage, function, Signed("one"))


@pytest.mark.parametrize("wrong", [20, 1])
def test_search_goes_on_once_the_labels_are_mended(storage: Path, wrong: int) -> None:
    backend, data = labelled()

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        study.stop()

    others = np.where(np.arange(60) < wrong, data["labels"] == 0, data["labels"])
    first = go_data(storage, backend, data | {"labels": others}, callbacks=[stop])
    assert len(first.study.trials) == 1
    result = go_data(storage, backend, data)
    assert result.baseline == 1.0
    assert result.met
    # Nothing is left of the scores with the wrong labels.
    population = read_population(result.study)
    assert population is not None
    seen = {population_of(trial.system_attrs) for trial in result.study.trials}
    assert seen - {None, ""} == {population.key}


def test_nothing_is_restarted_under_another_process(storage: Path) -> None:
    with pytest.raises(ValueError, match="hold NaN"):
        go(storage, Counted(lambda model: model.accuracy), Signed("one", broken=True))
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        study = optuna.load_study(storage=open_storage(storage), study_name="mine")
        trial = study.ask()
        worker = f"{identity._process(identity._host(), sleeper.pid)}|1"
        trial.storage.set_trial_system_attr(
            trial._trial_id, record.WORKER, {"number": trial.number, "worker": worker}
        )
        with pytest.raises(ChangedError, match=rf"in process {sleeper.pid}; it has no results"):
            go(storage, Counted(lambda model: model.accuracy), Signed("two"))
    finally:
        sleeper.communicate(b"\n")
    assert go(storage, Counted(lambda model: model.accuracy), Signed("two")).met


def search(storage: str, log: str) -> None:
    """What a process of its own does: it writes down which models it evaluates."""

    def evaluate(model: FakeModel) -> float:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
            file.write(f"{model.fingerprint}\n")
        return model.accuracy

    assert go(storage, evaluate, Signed("two"), verify=False).fallback_ops == ("a",)


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_processes_restart_it_once(zygote: Zygote, tmp_path: Path, kind: str) -> None:
    storage = f"sqlite:///{tmp_path / 'db'}" if kind == "sqlite" else str(tmp_path / "journal")
    with pytest.raises(ValueError, match="hold NaN"):
        go(storage, Counted(lambda model: model.accuracy), Signed("one", broken=True))
    log = tmp_path / "log"
    worker = "evaluation.test_same_evaluation:search"
    workers = [zygote.start(worker, storage=storage, log=str(log)) for _ in range(3)]
    assert zygote.join(*workers) == [0, 0, 0]
    evaluated = log.read_text().splitlines()
    assert len(evaluated) == len(set(evaluated))  # The baseline among them.
    study = optuna.load_study(storage=open_storage(storage), study_name="mine")
    assert not [t for t in study.trials if t.state == TrialState.RUNNING]


def test_a_study_that_another_process_starts_over_at_once_is_opened_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything of it was read."""
    read = run_module.started_with
    seen: list[str] = []

    def replaced_first(study: optuna.Study, spaces: Any) -> Any:
        seen.append(study.study_name)
        if len(seen) == 1:
            optuna.delete_study(study_name=study.study_name, storage=open_storage(storage))
            optuna.create_study(
                study_name=study.study_name, storage=open_storage(storage), direction="maximize"
            )
        return read(study, spaces)

    monkeypatch.setattr(run_module, "started_with", replaced_first)
    assert go(storage, Counted(lambda model: model.accuracy), Signed("one")).met
    assert seen == ["mine", "mine"]


def test_a_study_that_another_process_starts_over_before_it_is_used_is_opened_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = run_module.decide_for
    seen: list[str] = []

    def replaced_first(study: optuna.Study, **given: Any) -> Any:
        seen.append(study.study_name)
        if len(seen) == 1:
            optuna.delete_study(study_name=study.study_name, storage=open_storage(storage))
            optuna.create_study(
                study_name=study.study_name, storage=open_storage(storage), direction="maximize"
            )
        return decide(study, **given)

    monkeypatch.setattr(run_module, "decide_for", replaced_first)
    assert go(storage, Counted(lambda model: model.accuracy), Signed("one")).met
    assert seen == ["mine", "mine"]

    monkeypatch.setattr(opening, "_LONGEST_REPLACEMENT", 0.3)

    def deleted(study: optuna.Study, **given: Any) -> Any:
        optuna.delete_study(study_name=study.study_name, storage=open_storage(storage))
        return decide(study, **given)

    monkeypatch.setattr(run_module, "decide_for", deleted)
    with pytest.raises(StudyGoneError, match="was deleted while this process"):
        go(storage, Counted(lambda model: model.accuracy), Signed("one"))


def test_evaluation_with_a_signature_of_its_own_is_believed(storage: Path) -> None:
    class Own(CountingEvaluation):
        def __init__(self, text: str) -> None:
            super().__init__()
            self._text = text

        def signature(self) -> dict[str, str]:
            return {"corpus": self._text}

    go(storage, Own("one"))
    other = Own("two")
    with pytest.raises(
        ChangedEvaluationError, match=r"started with another corpus \(one; here two"
    ):
        go(storage, other)
    assert other.seen == []
    one = Own("one")
    go(storage, one)
    assert one.seen == []


def test_a_pruner_is_no_part_of_the_check() -> None:
    study = optuna.create_study(direction="maximize", pruner=AccuracyPruner(CRITERION))
    by_hand(study, Counted(lambda model: model.accuracy))
    assert get_baseline(study) is not None
