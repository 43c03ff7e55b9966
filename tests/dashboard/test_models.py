"""The models of a search among the artifacts of its trials."""

from __future__ import annotations

from collections.abc import Mapping
import io
import json
import logging
from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
import pytest
import services
from zygote import Zygote

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningResult
from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views


dashboard = pytest.importorskip("optuna_dashboard")

from dashboard.publishing_worker import DAMAGE  # noqa: E402
from dashboard.publishing_worker import search  # noqa: E402
from dashboard.stock import Stock  # noqa: E402

from optuna_quant.dashboard import PublishToDashboard  # noqa: E402
from optuna_quant.dashboard import ShownStorage  # noqa: E402
from optuna_quant.dashboard import publish  # noqa: E402
from optuna_quant.dashboard.deployable import Deployable  # noqa: E402
from optuna_quant.dashboard.time_share import TimeShare  # noqa: E402
from optuna_quant.selection.front import front_points  # noqa: E402


CRITERION = AccuracyCriterion(tolerable_loss=0.01)


@pytest.fixture
def store(tmp_path: Path) -> FileSystemArtifactStore:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return FileSystemArtifactStore(folder)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeShare, "allows", lambda self, nbytes: False)


@pytest.fixture
def all_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeShare, "allows", lambda self, nbytes: True)


def storage_of(study: optuna.Study) -> Any:
    return _optuna.study_identity(study)[0]


def deployable(study: optuna.Study) -> list[int]:
    """What is to be there: what meets the criterion and is on the front."""
    found = front_points(study, CRITERION)
    return sorted(p.trial for p in found if p.met and not p.is_fp32 and p.trial is not None)


def configs(result: TuningResult) -> Mapping[int, str]:
    space = FakeBackend(DAMAGE).tuning_space()
    return {t.number: space.config_from_params(t.params).to_json() for t in result.study.trials}


def files(store: FileSystemArtifactStore) -> list[str]:
    return sorted(path.name for path in store._base_path.iterdir())


def entries(study: optuna.Study) -> list[str]:
    """The identifiers of all files that the study knows."""
    attrs = _optuna.study_system_attrs(study)
    known = [attrs[key] for key in attrs if "artifacts:" in key]
    return sorted(json.loads(each)["artifact_id"] for each in known if each != "null")


def check(result: TuningResult, store: FileSystemArtifactStore) -> None:
    """Each model of the front, and nothing else, can be downloaded from its trial's page."""
    expected = deployable(result.study)
    assert len(expected) > 1
    found = Stock(storage_of(result.study), store).downloads()
    wanted = {n: {f"trial_{n}.onnx": configs(result)[n].encode()} for n in expected}
    assert found == wanted
    assert files(store) == entries(result.study)
    assert len(files(store)) == len(expected) + 1  # And the table of the best one.


# During a search.


@pytest.mark.parametrize(
    "kind",
    [
        # SQLite is among the fast tests where several workers share it.
        pytest.param(kind, marks=[pytest.mark.slow] if kind in ("mysql", "sqlite") else [])
        for kind in services.STORAGES
    ],
)
def test_models_of_the_front_are_on_the_pages_of_their_trials(
    kind: str, store: FileSystemArtifactStore, tmp_path: Path
) -> None:
    with services.storage_url(kind, tmp_path) as url:
        storage = services.open_as_users_do(url)
        publisher = PublishToDashboard(artifact_store=store)
        result = search(storage=storage, callbacks=[publisher], max_trials=8)
        number = _optuna.study_identity(result.study)[1]
        found = Stock(services.open_storage(url), store).downloads(number)
        expected = deployable(result.study)
        assert len(expected) > 1
        assert {n: list(found[n]) for n in found} == {n: [f"trial_{n}.onnx"] for n in expected}
        assert files(store) == entries(result.study)


@pytest.mark.usefixtures("all_time")
def test_models_are_those_that_trials_have_built(store: FileSystemArtifactStore) -> None:
    backend = FakeBackend(DAMAGE)
    result = search(backend=backend, callbacks=[PublishToDashboard(artifact_store=store)])
    check(result, store)
    plain = FakeBackend(DAMAGE)
    search(backend=plain)
    assert len(backend.built) == len(plain.built)


@pytest.mark.usefixtures("all_time")
def test_what_is_on_the_front_no_more_is_removed(store: FileSystemArtifactStore) -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def look(study: optuna.Study, trial: Any) -> None:
        seen.append((deployable(study), list(Stock(storage_of(study), store).downloads())))

    result = search(callbacks=[PublishToDashboard(artifact_store=store), look])
    assert all(expected == found for expected, found in seen)
    ever = {number for _, found in seen for number in found}
    assert ever > set(deployable(result.study))
    check(result, store)


@pytest.mark.usefixtures("no_time")
def test_what_there_was_no_time_for_is_uploaded_at_the_end_and_not_built_again(
    store: FileSystemArtifactStore,
) -> None:
    backend = FakeBackend(DAMAGE)
    during: list[str] = []
    publisher = PublishToDashboard(artifact_store=store)
    result = search(
        backend=backend,
        callbacks=[publisher, lambda study, trial: during.extend(files(store))],
    )
    assert during == []
    check(result, store)
    plain = FakeBackend(DAMAGE)
    search(backend=plain)
    assert len(backend.built) == len(plain.built)


@pytest.mark.usefixtures("no_time")
def test_what_was_not_held_is_built_again_at_the_end(
    store: FileSystemArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_quant.dashboard.model_uploads.MOST_HELD_BYTES", 1)
    check(search(callbacks=[PublishToDashboard(artifact_store=store)]), store)


def test_a_share_of_the_time() -> None:
    share = TimeShare(0.5)
    share._started -= 1.0
    assert share.allows(10_000_000)  # 0.11 s is expected.
    assert not share.allows(60_000_000)
    with share.upload(1_000_000_000):
        pass  # That took no time: the next ones will not either.
    assert share.allows(60_000_000)
    share._spent = 0.6
    assert not share.allows(1)


def test_publishing_models_changes_nothing_in_the_search(store: FileSystemArtifactStore) -> None:
    plain = search().study
    published = search(callbacks=[PublishToDashboard(artifact_store=store)]).study
    assert [t.params for t in plain.trials] == [t.params for t in published.trials]
    assert [t.values for t in plain.trials] == [t.values for t in published.trials]
    assert [t.state for t in plain.trials] == [t.state for t in published.trials]


class _Broken(FileSystemArtifactStore):
    def write(self, artifact_id: str, content_body: Any) -> None:
        raise OSError("the disk is full")


@pytest.mark.usefixtures("all_time")
def test_a_failure_costs_no_trial(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, logger="optuna_quant"):
        publisher = PublishToDashboard(artifact_store=_Broken(tmp_path))
        result = search(callbacks=[publisher])
    plain = search().study
    assert [t.values for t in result.study.trials] == [t.values for t in plain.trials]
    number = result.trial.number
    assert f"The model of trial {number} was not published to the dashboard: the disk is full" in (
        caplog.text
    )
    assert Stock(storage_of(result.study), _Broken(tmp_path)).downloads() == {}


@pytest.mark.usefixtures("all_time")
def test_a_lost_entry_is_made_again(
    store: FileSystemArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if each worker were killed between the file and the entry of the study."""
    write = _optuna.set_study_system_attr

    def but_entries(study: optuna.Study, key: str, value: Any) -> None:
        if "artifacts:" not in key:
            write(study, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(_optuna, "set_study_system_attr", but_entries)
        publisher = PublishToDashboard(artifact_store=store)
        publisher.finish = lambda study: None  # type: ignore[method-assign]
        result = search(callbacks=[publisher])
    left = files(store)
    assert left
    assert entries(result.study) == []
    publish(result.study, artifact_store=store, backend=FakeBackend(DAMAGE))
    found = Stock(storage_of(result.study), store).downloads()
    assert list(found) == deployable(result.study)
    # The same names: nothing of the front is there twice.
    assert len(set(entries(result.study)) & set(left)) == len(found)


def test_several_objectives(store: FileSystemArtifactStore) -> None:
    from optuna_quant import ParetoObjective

    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    publisher = PublishToDashboard(artifact_store=store, backend=backend)
    objective = ParetoObjective(
        backend,
        space,
        lambda model: model.accuracy,
        CRITERION,
        objectives=["ops", "size"],
        annotate=publisher.annotate,
        on_met=publisher.offer,
    )
    study = optuna.create_study(
        directions=objective.directions, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=40, callbacks=[publisher])
    publisher.finish(study)
    met = [v for v in views(study) if v.met]
    values = {v.number: (-v.trial.values[0], *v.trial.values[1:]) for v in met}
    front = [
        n
        for n, own in values.items()
        if not any(
            all(a <= b for a, b in zip(other, own, strict=True)) and (other != own or number < n)
            for number, other in values.items()
            if number != n
        )
    ]
    assert len(front) > 1
    found = Stock(storage_of(study), store).downloads()
    assert sorted(found) == sorted(front)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_several_workers(
    kind: str, zygote: Zygote, store: FileSystemArtifactStore, tmp_path: Path
) -> None:
    with services.storage_url(kind, tmp_path) as url:
        services.open_as_users_do(url)  # The tables are made once.
        folder = str(store._base_path)
        workers = [
            zygote.start("dashboard.publishing_worker:work", url=url, folder=folder)
            for _ in range(2)
        ]
        assert zygote.join(*workers) == [0, 0]
        study = optuna.load_study(study_name="s", storage=services.open_storage(url))
        number = _optuna.study_identity(study)[1]
        found = Stock(services.open_storage(url), store).downloads(number)
        assert sorted(found) == deployable(study)
        assert set(entries(study)) <= set(files(store))
        # Two workers may each have written the table of the best trial.
        tables = get_all_artifact_meta(study)
        assert len(files(store)) == len(found) + len(tables)


def test_threads_of_a_worker(store: FileSystemArtifactStore) -> None:
    check(search(n_jobs=4, callbacks=[PublishToDashboard(artifact_store=store)]), store)


# Which models.


def sizes(study: optuna.Study) -> dict[int, int]:
    return {v.number: v.model_bytes for v in views(study) if v.model_bytes is not None}


def test_a_large_model_is_left_out(store: FileSystemArtifactStore) -> None:
    plain = search().study
    known = sizes(plain)
    expected = deployable(plain)
    largest = max(known[n] for n in expected)
    publisher = PublishToDashboard(artifact_store=store, max_model_bytes=largest - 1)
    study = search(callbacks=[publisher]).study
    found = Stock(storage_of(study), store).downloads()
    assert sorted(found) == [n for n in expected if known[n] < largest]


def test_of_too_much_the_answer_and_the_cheapest_are_kept(
    store: FileSystemArtifactStore, caplog: Any
) -> None:
    plain = search()
    known = sizes(plain.study)
    front = [p for p in front_points(plain.study, CRITERION) if p.met and not p.is_fp32]
    assert front[0].trial == plain.trial.number
    kept = [p.trial for p in front[:2]]
    total = sum(known[n] for n in kept if n is not None)
    publisher = PublishToDashboard(artifact_store=store, max_total_bytes=total)
    with caplog.at_level(logging.INFO, logger="optuna_quant"):
        study = search(callbacks=[publisher]).study
    assert set(Stock(storage_of(study), store).downloads()) == set(kept)
    left_out = [str(p.trial) for p in front[2:]]
    assert f"max_model_bytes or max_total_bytes: {', '.join(left_out)}." in caplog.text


def test_no_models(store: FileSystemArtifactStore) -> None:
    publisher = PublishToDashboard(artifact_store=store, max_model_bytes=0)
    study = search(callbacks=[publisher]).study
    assert Stock(storage_of(study), store).downloads() == {}
    publish(study, artifact_store=store, backend=FakeBackend(DAMAGE))
    before = Stock(storage_of(study), store).downloads()
    publish(study, artifact_store=store, backend=FakeBackend(DAMAGE), max_model_bytes=0)
    publish(study, artifact_store=store)
    assert before
    assert Stock(storage_of(study), store).downloads() == before


def test_what_has_missed_the_criterion_again_is_left_out(store: FileSystemArtifactStore) -> None:
    times: dict[str, int] = {}

    def worse_again(model: FakeModel) -> float:
        times[model.fingerprint] = times.get(model.fingerprint, 0) + 1
        return model.accuracy - (0.1 if times[model.fingerprint] > 1 else 0.0)

    publisher = PublishToDashboard(artifact_store=store)
    result = search(evaluate=worse_again, verify=True, callbacks=[publisher])
    assert not result.is_reproducible
    expected = [n for n in deployable(result.study) if n != result.trial.number]
    assert sorted(Stock(storage_of(result.study), store).downloads()) == expected


def test_a_model_of_several_files_is_not_uploaded(
    store: FileSystemArtifactStore, caplog: Any
) -> None:
    class Split(FakeModel):
        def save(self, path: str | Path) -> None:
            super().save(path)
            Path(f"{path}.data").write_bytes(b"weights")

    class OfSplit(FakeBackend):
        def quantize(self, config: Any) -> FakeModel:
            model = super().quantize(config)
            return Split(model.config, model.accuracy, model.fingerprint)

    with caplog.at_level(logging.WARNING, logger="optuna_quant"):
        publisher = PublishToDashboard(artifact_store=store)
        study = search(backend=OfSplit(DAMAGE), callbacks=[publisher]).study
    assert "too large for one file" in caplog.text
    assert Stock(storage_of(study), store).downloads() == {}


def test_the_cost_is_that_of_the_objective_of_the_study() -> None:
    """By size the first op is worth more than others; by ops it is not."""
    study = search(objective="size").study
    found = Deployable(study).front(study.get_trials(deepcopy=False))
    expected = front_points(study, CRITERION, "size")
    assert [c.trial.number for c in found] == [
        p.trial for p in expected if p.met and not p.is_fp32
    ]


def test_without_known_costs_the_ops_count() -> None:
    study = search().study
    expected = [c.trial.number for c in Deployable(study).front(study.trials)]
    study.set_user_attr(record.OBJECTIVE, "latency")
    assert [c.trial.number for c in Deployable(study).front(study.trials)] == expected
    study.set_user_attr(record.OBJECTIVE, "own_function")
    assert [c.trial.number for c in Deployable(study).front(study.trials)] == expected


def test_nothing_is_judged_before_there_is_a_baseline() -> None:
    study = search().study
    empty = optuna.create_study(direction="maximize")
    for trial in study.trials:
        empty.add_trial(trial)
    found = Deployable(empty)
    assert found.front(empty.trials) == []
    for key, value in _optuna.study_system_attrs(study).items():
        _optuna.set_study_system_attr(empty, key, value)
    for key, value in study.user_attrs.items():
        empty.set_user_attr(key, value)
    assert len(found.front(empty.trials)) == len(deployable(study))


# After a search.


def test_a_study_that_has_ended(store: FileSystemArtifactStore) -> None:
    result, backend = search(), FakeBackend(DAMAGE)
    for _ in range(2):
        publish(result.study, artifact_store=store, backend=backend)
        check(result, store)
    assert len(backend.built) == len(deployable(result.study))  # Once is enough.


def test_the_ending_is_that_of_the_backend(store: FileSystemArtifactStore) -> None:
    class OfPrograms(FakeBackend):
        @property
        def file_endings(self) -> tuple[str, ...]:
            return (".pt2",)

    study = search().study
    publish(study, artifact_store=store, backend=OfPrograms(DAMAGE))
    found = Stock(storage_of(study), store).downloads()
    assert {name for names in found.values() for name in names} == {
        f"trial_{number}.pt2" for number in found
    }


def test_another_model_is_not_uploaded_as_that_of_a_trial(
    store: FileSystemArtifactStore, caplog: Any
) -> None:
    study = search().study
    with caplog.at_level(logging.WARNING, logger="optuna_quant"):
        publish(study, artifact_store=store, backend=FakeBackend(DAMAGE, name="another"))
    assert "cannot be built again" in caplog.text
    assert Stock(storage_of(study), store).downloads() == {}


def test_what_would_be_trained_again_is_not_built(
    store: FileSystemArtifactStore, caplog: Any
) -> None:
    class Training(FakeBackend):
        trained_again = 0

        def trains(self, config: Any) -> bool:
            return True

        def trained(self, config: Any, trial: Any) -> FakeModel:
            return self.quantize(config)

        def quantize_trained(self, config: Any, hyperparameters: Any) -> FakeModel:
            self.trained_again += 1
            return self.quantize(config)

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    result, backend = search(), Training(DAMAGE)
    publish(result.study, artifact_store=store, backend=backend)
    found = list(Stock(storage_of(result.study), store).downloads())
    assert found == [result.trial.number]
    assert backend.trained_again == 1


def test_a_lost_model_is_written_again(store: FileSystemArtifactStore) -> None:
    result = search(callbacks=[PublishToDashboard(artifact_store=store)])
    for path in store._base_path.iterdir():
        path.unlink()
    publish(result.study, artifact_store=store, backend=FakeBackend(DAMAGE))
    check(result, store)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_model_can_be_deleted_in_the_dashboard(
    kind: str, store: FileSystemArtifactStore, tmp_path: Path
) -> None:
    with services.storage_url(kind, tmp_path) as url:
        storage = services.open_as_users_do(url)
        publisher = PublishToDashboard(artifact_store=store)
        result = search(storage=storage, callbacks=[publisher], max_trials=8)
        number = _optuna.study_identity(result.study)[1]
        stock = Stock(ShownStorage(services.open_as_users_do(url)), store)
        shown = stock.study(number)["trials"][result.trial.number]
        (meta,) = shown["artifacts"]
        path = f"/api/artifacts/{number}/{shown['trial_id']}/{meta['artifact_id']}"
        status, body = stock.ask(path, "DELETE")
        assert status == 204, body
        assert result.trial.number not in stock.downloads(number)
        assert meta["artifact_id"] not in files(store)


def test_files_of_others_stay(store: FileSystemArtifactStore) -> None:
    """Those that an objective has uploaded with Optuna, and older dashboards."""

    def evaluate(model: FakeModel) -> float:
        return model.accuracy

    result = search(evaluate=evaluate, callbacks=[PublishToDashboard(artifact_store=store)])
    study = result.study
    dominated = next(t for t in study.trials if t.number not in deployable(study))
    identifier = "00000000-0000-0000-0000-000000000001"
    store.write(identifier, io.BytesIO(b"mine"))
    meta = {"artifact_id": identifier, "filename": "mine.txt", "mimetype": "text/plain"}
    key = f"dashboard:artifacts:{_optuna.trial_id(dominated)}:{identifier}"
    _optuna.set_study_system_attr(study, key, json.dumps(meta | {"encoding": None}))
    publish(study, artifact_store=store, backend=FakeBackend(DAMAGE))
    found = Stock(storage_of(study), store).downloads()
    assert found.pop(dominated.number) == {"mine.txt": b"mine"}
    assert sorted(found) == deployable(study)


def test_the_note_says_where_the_models_are(store: FileSystemArtifactStore) -> None:
    study = search(callbacks=[PublishToDashboard(artifact_store=store)]).study
    shown = ", ".join(
        f"[{number}](/dashboard/studies/0/trials?numbers={number})" for number in deployable(study)
    )
    assert f"- **Models**: on the pages of trials {shown}\n" in dashboard.get_note(study)
    plain = search().study
    publish(plain)
    assert "Models" not in dashboard.get_note(plain)


# In a study by hand.


def test_a_study_by_hand(store: FileSystemArtifactStore) -> None:
    from optuna_quant import ExitPolicy
    from optuna_quant import QuantObjective
    from optuna_quant.samplers import RandomQuantSampler

    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    publisher = PublishToDashboard(artifact_store=store)
    objective = QuantObjective(
        backend,
        space,
        lambda model: model.accuracy,
        CRITERION,
        annotate=publisher.annotate,
        on_met=publisher.offer,
    )
    study = optuna.create_study(
        direction="maximize", sampler=RandomQuantSampler(space, criterion=CRITERION, seed=1)
    )
    policy = ExitPolicy(CRITERION, max_trials=20, timeout=None)
    study.optimize(objective, n_trials=20, callbacks=[publisher, policy])
    publisher.finish(study)
    found = Stock(storage_of(study), store).downloads()
    assert sorted(found) == deployable(study)
    assert all(TrialView(t).met for t in study.trials if t.number in found)
    assert TrialState.COMPLETE in {t.state for t in study.trials}
