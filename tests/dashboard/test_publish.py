"""What is written into a study for optuna-dashboard, and what the dashboard makes of it."""

from __future__ import annotations

from collections.abc import Callable
import csv
import json
import logging
from pathlib import Path
import threading
from typing import Any
from urllib.request import urlopen
from wsgiref.util import setup_testing_defaults

from costed_backend import CostedBackend
from fake_backend import FakeBackend
import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import _optuna
from optuna_quant import tune


dashboard = pytest.importorskip("optuna_dashboard")

from optuna_quant.dashboard import PublishToDashboard  # noqa: E402
from optuna_quant.dashboard import ShownStorage  # noqa: E402
from optuna_quant.dashboard import publish  # noqa: E402
from optuna_quant.dashboard.serve import serving  # noqa: E402
from optuna_quant.dashboard.short_options import short_options  # noqa: E402
from optuna_quant.dashboard.shown_storage import most_varied  # noqa: E402
from optuna_quant.dashboard.shown_storage import parameters_of_as_many  # noqa: E402
from optuna_quant.report import collect_recorded  # noqa: E402
from optuna_quant.space.config import FP32  # noqa: E402
from optuna_quant.storages.open import open_storage  # noqa: E402


DAMAGE = {"conv1": 0.1, "conv2": 0.0, "conv3": 0.0, "fc": 0.0}
TEXTS = {"stage", "result", "gain", "configuration"}


def search(**kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "evaluate": lambda model: model.accuracy,
        "accuracy_criterion": AccuracyCriterion(tolerable_loss=0.01),
        "strategy": "basic",
    }
    return tune(backend=FakeBackend(DAMAGE), **given | kwargs)


def seen(storage: Any) -> Any:
    """What the stock dashboard's server tells a browser of the first study."""
    environ: dict[str, Any] = {"PATH_INFO": "/api/studies/0"}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = dashboard.wsgi(storage)(environ, lambda code, *_: status.append(code))
    assert status[0].startswith("200"), status
    return json.loads(b"".join(body))


def texts_of(trial: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"] for each in trial["user_attrs"] if each["key"] in TEXTS}


def test_the_stock_dashboard_shows_a_search_in_words() -> None:
    storage = optuna.storages.InMemoryStorage()
    result = search(storage=storage, callbacks=[PublishToDashboard()])
    page = seen(storage)
    assert page["objective_names"] == ["metric"]
    assert page["note"]["body"].startswith("## The criterion is met\n")
    number = result.trial.number
    assert texts_of(page["trials"][number])["configuration"] == "3 of 4 ops in INT8; FP32: conv1"
    assert texts_of(page["trials"][0])["result"] == "FP32 model, not an answer"


def test_ops_that_were_left_out_count_as_in_the_summary() -> None:
    damage = {"a": 0.1, "b": 0.0, "c": 0.0}
    result = tune(
        backend=CostedBackend(damage, {"a": 0.8, "b": 0.8, "c": 3.0}),
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.01),
        strategy="basic",
        measure_gain=False,
        callbacks=[PublishToDashboard()],
    )
    assert list(result.left_out) == ["c"]
    assert f"trial {result.trial.number}: 1 of 3 ops " in result.summary()
    said = "1 of 3 ops in INT8; FP32: a; 1 left in FP32"
    assert f"- **Configuration**: {said}\n" in dashboard.get_note(result.study)
    number = result.trial.number
    assert result.study.trials[number].user_attrs["configuration"] == said
    shown = ShownStorage(_optuna.study_identity(result.study)[0]).get_all_trials(0)
    assert shown[number].user_attrs["configuration"] == said
    assert shown[0].user_attrs["configuration"] == "none of 3 ops quantized"


def test_the_stock_dashboard_sees_what_is_feasible_and_optuna_still_does() -> None:
    storage = optuna.storages.InMemoryStorage()
    plain = search().study
    study = search(storage=storage, callbacks=[PublishToDashboard()]).study
    shown = [all(c <= 0 for c in each["constraints"]) for each in seen(storage)["trials"]]
    assert shown == [all(c <= 0 for c in t.constraints.values()) for t in plain.trials]
    assert not shown[0]
    assert study.best_trial.number == plain.best_trial.number


def test_publishing_changes_nothing_in_the_search() -> None:
    plain, published = search().study, search(callbacks=[PublishToDashboard()]).study
    assert [t.params for t in plain.trials] == [t.params for t in published.trials]
    assert [t.values for t in plain.trials] == [t.values for t in published.trials]


def test_what_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(dashboard, "save_note", broken)
    monkeypatch.setattr("optuna_quant.dashboard.trial_words.TrialWords.of", broken)
    monkeypatch.setattr(optuna.Study, "set_metric_names", broken)
    logger = logging.getLogger("optuna_quant")
    optuna_logger = logging.getLogger("optuna")
    for each in (logger, optuna_logger):
        monkeypatch.setattr(each, "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert search(callbacks=[PublishToDashboard(interval=0)]).met
    assert "The note was not published to the dashboard: the disk is full" in caplog.text


def test_publish_writes_only_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    study = search().study
    publish(study)
    before = dict(_optuna.study_system_attrs(study))
    written: list[str] = []
    monkeypatch.setattr(
        optuna.storages.InMemoryStorage,
        "set_study_system_attr",
        lambda self, study_id, key, value: written.append(key),
    )
    publish(study)
    assert written == []
    assert before["dashboard:note_ver"] == 1


def test_a_name_that_the_metric_has_is_kept() -> None:
    study = search().study
    study.set_metric_names(["top-1"])
    publish(study)
    assert study.metric_names == ["top-1"]
    assert "top-1 0.9" in dashboard.get_note(study)


def test_the_note_is_written_rarely() -> None:
    publisher = PublishToDashboard(interval=1000)
    study = search(callbacks=[publisher]).study
    assert _optuna.study_system_attrs(study)["dashboard:note_ver"] == 1  # At the end.


def test_the_table_of_the_best_trial_is_uploaded(tmp_path: Path) -> None:
    store = FileSystemArtifactStore(str(tmp_path))
    result = search()
    backend = FakeBackend(DAMAGE)
    for _ in range(2):  # Once is enough.
        publish(result.study, artifact_store=store, backend=backend)
    number = result.trial.number
    metas = {meta.filename: meta for meta in get_all_artifact_meta(result.study)}
    assert len(get_all_artifact_meta(result.study)) == 1
    assert set(metas) == {f"trial_{number}_ops.csv"}
    assert metas[f"trial_{number}_ops.csv"].mimetype == "text/csv"
    with store.open_reader(metas[f"trial_{number}_ops.csv"].artifact_id) as file:
        rows = file.read().decode().splitlines()
    assert rows[0] == "op,precision,why,op_type,mode,activation,weight,runs,as_asked,note"
    assert rows[1].startswith('conv1,FP32,"in FP32: with it quantized as well trial 1 lost 11.1%')
    assert ",Conv,fp32,,,Conv," in rows[1]
    assert all(row.split(",")[1] == "INT8" for row in rows[2:])  # Those in floats come first.


def test_ops_in_floats_come_first_in_the_table(tmp_path: Path) -> None:
    store = FileSystemArtifactStore(str(tmp_path))
    study = tune(
        backend=FakeBackend({"conv1": 0.0, "conv2": 0.0, "conv3": 0.1, "fc": 0.0}),
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.01),
        strategy="basic",
    ).study
    publish(study, artifact_store=store)
    (meta,) = get_all_artifact_meta(study)
    with store.open_reader(meta.artifact_id) as file:
        rows = file.read().decode().splitlines()
    assert [row.split(",")[0] for row in rows] == ["op", "conv3", "conv1", "conv2", "fc"]


def rows_of(study: optuna.Study, store: FileSystemArtifactStore) -> dict[str, dict[str, str]]:
    """The rows of the table that was uploaded, by op."""
    (meta,) = get_all_artifact_meta(study)
    with store.open_reader(meta.artifact_id) as file:
        return {row["op"]: row for row in csv.DictReader(file.read().decode().splitlines())}


def test_the_table_says_why_as_the_report_does(tmp_path: Path) -> None:
    store = FileSystemArtifactStore(str(tmp_path))
    result = tune(
        backend=CostedBackend({"a": 0.1, "b": 0.0, "c": 0.0}, {"a": 0.8, "b": 0.8, "c": 3.0}),
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.01),
        strategy="basic",
        measure_gain=False,
        callbacks=[PublishToDashboard(artifact_store=store)],
    )
    rows = rows_of(result.study, store)
    assert list(rows) == ["a", "c", "b"]  # "c" was left out of the search.
    assert {op: row["why"] for op, row in rows.items()} == {
        each.op: each.why for each in collect_recorded(result.study).ops
    }
    assert rows["a"]["why"].startswith("in FP32: ")
    assert rows["c"]["why"].startswith("left out of the search")
    assert (rows["c"]["precision"], rows["b"]["precision"]) == ("FP32", "INT8")


def test_without_a_record_of_the_whole_search_the_table_does_without_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(study: optuna.Study) -> None:
        raise ValueError("It is too old.")

    monkeypatch.setattr("optuna_quant.dashboard.artifacts.recorded_outcome", unreadable)
    store, study = FileSystemArtifactStore(str(tmp_path)), search().study
    publish(study, artifact_store=store)
    rows = rows_of(study, store)
    assert list(rows["conv1"]) == ["op", "precision", "op_type", "mode", "activation", "weight"]


def test_a_file_that_the_store_has_lost_is_written_again(tmp_path: Path) -> None:
    store, study = FileSystemArtifactStore(str(tmp_path)), search().study
    publish(study, artifact_store=store)
    (meta,) = get_all_artifact_meta(study)
    written = (tmp_path / meta.artifact_id).read_bytes()
    (tmp_path / meta.artifact_id).unlink()
    publish(study, artifact_store=store)
    assert get_all_artifact_meta(study) == [meta]
    assert (tmp_path / meta.artifact_id).read_bytes() == written


def test_an_entry_that_was_deleted_in_the_dashboard_does_no_harm(tmp_path: Path) -> None:
    store, study = FileSystemArtifactStore(str(tmp_path)), search().study
    publish(study, artifact_store=store)
    (meta,) = get_all_artifact_meta(study)
    storage, number = _optuna.study_identity(study)
    storage.set_study_system_attr(number, f"artifacts:{meta.artifact_id}", "null")
    publish(study, artifact_store=store)
    known = [value for value in artifacts_of(study) if value is not None]
    assert [each["filename"] for each in known] == [meta.filename]


def artifacts_of(study: optuna.Study) -> list[Any]:
    attrs = _optuna.study_system_attrs(study)
    return [json.loads(attrs[key]) for key in attrs if key.startswith("artifacts:")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PublishToDashboard(interval=-1), "interval must not be negative, but got -1"),
        (lambda: PublishToDashboard(max_model_bytes=-1), "max_model_bytes must not be negative"),
        (lambda: PublishToDashboard(max_total_bytes=-1), "max_total_bytes must not be negative"),
        (lambda: PublishToDashboard(backend=FakeBackend(1)), "no artifact_store"),
        (lambda: ShownStorage(optuna.storages.InMemoryStorage(), max_parameters=-1), "max_param"),
    ],
)
def test_bad_options_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_missing_dashboard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna_dashboard", None)
    with pytest.raises(ImportError, match=r'pip install "optuna_quant\[dashboard\]"'):
        PublishToDashboard()


# The storage as it is shown.


def test_an_old_study_is_shown_in_words_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    result = search(storage=path)
    before = path.read_bytes()
    page = seen(ShownStorage(open_storage(path)))
    assert path.read_bytes() == before
    number = result.trial.number
    assert [each["number"] for each in page["best_trials"]] == [number]
    assert texts_of(page["trials"][number])["result"] == "met: loss 0%"
    assert page["trials"][0]["constraints"][1] == 1.0


def test_the_closest_trial_is_the_best_if_none_meets_the_criterion() -> None:
    storage = optuna.storages.InMemoryStorage()
    result = tune(
        backend=FakeBackend({"a": 0.2, "b": 0.3}),
        evaluate=lambda model: model.accuracy,
        storage=storage,
        strategy="basic",
        max_trials=2,
    )
    page = seen(ShownStorage(storage))
    assert page["best_trials"][0]["number"] == result.trial.number


def test_other_studies_are_shown_as_they_are() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert seen(ShownStorage(storage)) == seen(storage)


def test_of_many_parameters_those_that_differ_most_are_shown() -> None:
    storage = optuna.storages.InMemoryStorage()
    search(storage=storage)
    page = seen(ShownStorage(storage, max_parameters=2))
    assert all(len(each["params"]) == 2 for each in page["trials"])
    assert len(page["union_search_space"]) == 2


@pytest.mark.parametrize(
    ("trials", "parameters"),
    [(0, 40), (1, 40), (256, 40), (257, 20), (512, 20), (1000, 10), (1024, 10), (1025, 5)],
)
def test_of_more_trials_fewer_parameters_are_shown(trials: int, parameters: int) -> None:
    assert parameters_of_as_many(trials) == parameters
    assert parameters_of_as_many(10**9) == 5


def test_parameters_are_chosen_again_when_there_are_more_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optuna_quant.dashboard.shown_storage.MOST_CELLS", 400)
    storage = optuna.storages.InMemoryStorage()
    shown = ShownStorage(storage)
    counts = []
    for trials in (31, 60):
        tune(
            backend=FakeBackend(20),
            evaluate=lambda model: model.accuracy,
            strategy="random",
            strategy_kwargs={"fallback": True},
            max_trials=trials,
            timeout=None,
            storage=storage,
            study_name="s",
            seed=1,
        )
        found = [len(trial.params) for trial in shown.get_all_trials(0)]
        counts.append(set(found))
    assert counts == [{12}, {6}]


def test_most_varied() -> None:
    params = [{"a": 0, "b": i, "c": i % 2} for i in range(4)]
    assert most_varied(params, 3) is None
    assert most_varied(params, 2) == {"b", "c"}
    assert most_varied(params, 1) == {"b"}


def test_the_server_publishes_while_workers_search(tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    search(storage=path, study_name="first", max_trials=2)
    with serving(open_storage(path), port=0, interval=0.05) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        search(storage=path, study_name="second")
        study = optuna.load_study(study_name="second", storage=open_storage(path))
        wait = threading.Event()
        while "criterion is met" not in dashboard.get_note(study):  # At most until the timeout.
            wait.wait(0.05)
        with urlopen(f"http://localhost:{server.server_port}/api/studies") as answer:
            names = [each["study_name"] for each in json.load(answer)["study_summaries"]]
        server.shutdown()
    assert names == ["first", "second"]


def test_an_objective_of_ones_own_can_be_annotated() -> None:
    space, publisher = make_space(2), PublishToDashboard()

    def objective(trial: optuna.Trial) -> float:
        space.suggest(trial)
        publisher.annotate(trial)
        return 0.5

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=2, callbacks=[publisher])
    publisher.finish(study)
    assert study.trials[0].state.name == "COMPLETE"
    assert "No model can be judged" in dashboard.get_note(study)


def test_options_are_shown_by_short_names() -> None:
    storage = optuna.storages.InMemoryStorage()
    options = (STATIC, STATIC_TENSOR, STATIC_KL, DYNAMIC, FP32)
    tune(
        backend=FakeBackend(DAMAGE, options=options),
        evaluate=lambda model: model.accuracy,
        strategy="random",
        max_trials=5,
        tolerable_loss=0.01,
        timeout=None,
        storage=storage,
    )
    page, stored = seen(ShownStorage(storage)), storage.get_all_trials(0)
    short = {
        STATIC.label: "INT8 minmax/per_channel",
        STATIC_TENSOR.label: "INT8 minmax/per_tensor",
        STATIC_KL.label: "INT8 kl/per_channel",
        DYNAMIC.label: "INT8 dynamic",
        FP32.label: "FP32",
    }
    for trial, shown in zip(stored, page["trials"], strict=True):
        found = {each["name"]: each["param_external_value"] for each in shown["params"]}
        assert found == {name: short[label] for name, label in trial.params.items()}
        internal = {each["name"]: each["param_internal_value"] for each in shown["params"]}
        assert internal == {
            name: trial.distributions[name].to_internal_repr(label)
            for name, label in trial.params.items()
        }
    assert len(json.dumps(page)) < 0.8 * len(json.dumps(seen(storage)))


def test_what_are_no_options_keeps_its_name() -> None:
    assert short_options(["adam", "sgd"]) is None
    assert short_options([1, 2.5, None]) is None
    assert short_options([STATIC.label, "sgd"]) is None
    assert short_options([STATIC.label, FP32.label]) == {STATIC.label: "INT8", "fp32": "FP32"}


def test_what_is_for_programs_is_not_shown() -> None:
    storage = optuna.storages.InMemoryStorage()
    search(storage=storage)
    shown = {
        each["key"] for t in seen(ShownStorage(storage))["trials"] for each in t["user_attrs"]
    }
    assert not shown & {"costs", "evidence", "fingerprint"}
    assert {"loss", "met", "fallback_ops"} <= shown


def test_parameters_of_the_queue_are_not_sent_twice() -> None:
    storage = optuna.storages.InMemoryStorage()
    search(storage=storage)
    study = optuna.load_study(study_name=None, storage=storage)
    study.enqueue_trial(study.trials[1].params)
    assert seen(storage)["trials"][-1]["fixed_params"]
    assert seen(ShownStorage(storage))["trials"][-1]["fixed_params"] == []
