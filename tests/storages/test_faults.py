"""A storage whose server dies: what was recorded stays, the study goes on, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import logging
from pathlib import Path
import random
import resource
import threading
import time
from typing import Any

from forked_scripts import written_by
from free_ports import free_port
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
import own_servers
import pytest
import services
from zygote import Zygote

from optuna_quant._optuna import RetryingGrpcStorage
from optuna_quant.storages import open as storages
from optuna_quant.storages import reconnection
from optuna_quant.storages import retrying
from optuna_quant.storages.bulk_writes import write_trial
from optuna_quant.storages.open import open_storage
from optuna_quant.storages.reconnection import StorageLostError
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.storages.written_values import Parameter
from optuna_quant.storages.written_values import Written


SERVERS = list(own_servers.KINDS)

CHOICES = CategoricalDistribution(("int8", "fp32"))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    optuna.logging.enable_propagation()
    caplog.set_level(logging.INFO)
    yield caplog
    optuna.logging.disable_propagation()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, zygote: Zygote) -> Iterator[own_servers.OwnServer]:
    with own_servers.own_server(request.param, zygote) as server:
        yield server


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts to reach a server."""
    monkeypatch.setattr(reconnection, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(reconnection, "_LONGEST_PAUSE_SECONDS", 0.2)


def told(log: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in log.records)


# A server that is killed.


@pytest.mark.slow
def test_server_killed_at_random_moments_costs_nothing(
    server: own_servers.OwnServer, log: pytest.LogCaptureFixture
) -> None:
    study = optuna.create_study(
        storage=open_storage(server.address),
        study_name="s",
        sampler=optuna.samplers.RandomSampler(),
    )
    rolled = random.Random(1)
    kills = 4

    failed: list[BaseException] = []

    def disturb() -> None:
        try:
            for _ in range(kills):
                time.sleep(rolled.uniform(0.2, 0.6))
                server.restart(pause=rolled.uniform(0.0, 0.4))
        except BaseException as error:
            failed.append(error)

    found: dict[int, tuple[float, dict[str, Any]]] = {}

    def objective(trial: optuna.Trial) -> float:
        with buffered_writes(trial):
            value = trial.suggest_float("x", 0, 1)
            for i in range(20):
                trial.suggest_categorical(f"op{i}", CHOICES.choices)
        trial.set_user_attr("a", trial.number)
        trial.report(value, step=1)
        time.sleep(0.02)
        found[trial.number] = value, trial.params
        return value

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        while thread.is_alive():
            study.optimize(objective, n_trials=5)
    finally:
        thread.join()
        assert not failed, failed  # Rather than what follows from it: no server.
    trials = optuna.load_study(storage=open_storage(server.address), study_name="s").trials
    assert {trial.number: (trial.value, trial.params) for trial in trials} == found
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert all(trial.user_attrs == {"a": trial.number} for trial in trials)
    assert all(trial.intermediate_values == {1: trial.value} for trial in trials)
    # Some losses are over before anybody has looked; the others are told once each.
    fewest = 0 if isinstance(server, own_servers.OwnGrpc) else 1  # gRPC connects again itself.
    assert fewest <= told(log, "is lost") <= kills
    assert told(log, "Continuing") == told(log, "is lost")


Break = Callable[[str], None]


@pytest.fixture
def broken(
    server: own_servers.OwnServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[RetryingStorage, Break]]:
    """A storage, and a way to kill its server just after it did the next call of a method."""
    storage = open_storage(server.address)
    assert isinstance(storage, RetryingStorage)
    storage.get_all_studies()
    restarts: list[threading.Timer] = []

    def break_at(method: str) -> None:
        for restart in restarts:
            restart.join()
        real = getattr(storage.inner, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(storage.inner, method, real)
            real(*args, **kwargs)
            server.kill()
            restarts.append(threading.Timer(0.5, server.start))
            restarts[-1].start()
            # Whatever the client of this kind of server says now; Optuna makes some calls again
            # by itself, until the server is back.
            return real(*args, **kwargs)

        monkeypatch.setattr(storage.inner, method, call)

    yield storage, break_at
    for restart in restarts:
        restart.join()


@pytest.mark.slow
def test_call_that_was_done_before_the_connection_broke_is_not_done_twice(
    broken: tuple[RetryingStorage, Break],
) -> None:
    storage, break_at = broken
    maximize = [StudyDirection.MAXIMIZE]

    break_at("create_new_study")
    study = storage.create_new_study(maximize, "s")
    break_at("create_new_study")
    storage.create_new_study(maximize)
    assert len(storage.get_all_studies()) == 2
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        storage.create_new_study(maximize, "s")

    break_at("create_new_trial")
    trial = storage.create_new_trial(study)
    (only,) = storage.get_all_trials(study, states=(TrialState.RUNNING,))
    assert only._trial_id == trial

    break_at("set_trial_param")
    storage.set_trial_param(trial, "x", 0.5, FloatDistribution(0, 1))
    break_at("set_trial_user_attr")
    storage.set_trial_user_attr(trial, "a", [1])
    break_at("set_trial_state_values")
    assert storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.5])
    only = storage.get_trial(trial)
    assert (only.value, only.params, only.user_attrs) == (1.5, {"x": 0.5}, {"a": [1]})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.5])

    waiting = optuna.trial.create_trial(state=TrialState.WAITING)
    queued = storage.create_new_trial(study, waiting)
    break_at("set_trial_state_values")
    assert storage.set_trial_state_values(queued, TrialState.RUNNING)
    assert not storage.set_trial_state_values(queued, TrialState.RUNNING)
    break_at("set_trial_state_values")
    assert storage.set_trial_state_values(queued, TrialState.FAIL)
    assert not storage.get_all_trials(study, states=(TrialState.RUNNING,))

    break_at("delete_study")
    storage.delete_study(study)
    assert len(storage.get_all_studies()) == 1


@pytest.mark.usefixtures("short_pauses")
def test_parameters_written_before_the_connection_broke_are_no_error(
    server: own_servers.OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(server.address)
    assert isinstance(storage, RetryingStorage)
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    trial = storage.create_new_trial(study)
    real = retrying.RetryingStorage.repeat
    breaks = [True]
    restart = threading.Timer(0.1, server.start)

    def repeat(self: Any, action: Any, done: Any = None) -> Any:
        def twice() -> Any:
            result = action()
            if breaks and breaks.pop():
                server.kill()
                restart.start()
                return action()
            return result

        return real(self, twice, done)

    monkeypatch.setattr(retrying.RetryingStorage, "repeat", repeat)
    params = [Parameter(f"op{i}", i % 2, CHOICES) for i in range(30)]
    write_trial(storage, study, trial, Written(params, {}, {}))
    restart.join()
    assert storage.get_trial(trial).params == {
        param.name: CHOICES.choices[int(param.internal_value)] for param in params
    }


@pytest.mark.usefixtures("short_pauses")
def test_server_that_stays_away_is_one_clear_error(
    server: own_servers.OwnServer, log: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(server.address)
    assert isinstance(storage, RetryingStorage)
    impatient = RetryingStorage(storage.inner, timeout=0.5)
    study = optuna.create_study(storage=impatient)
    server.kill()
    log.clear()
    before = time.monotonic()
    with pytest.raises(StorageLostError, match="could not be reached for 0.5 s.*start again"):
        study.set_user_attr("k", 1)
    assert 0.4 < time.monotonic() - before < 30
    # While it lasts, further calls do not wait as long again.
    before = time.monotonic()
    with pytest.raises(StorageLostError):
        study.set_user_attr("k", 1)
    assert time.monotonic() - before < 20
    assert told(log, "is lost") == 1
    server.start()
    study.set_user_attr("k", 2)
    assert study.user_attrs == {"k": 2}
    assert told(log, "Continuing") == 1


def test_redis_that_forgot_is_an_error_and_no_silent_loss() -> None:
    with own_servers.own_server("redis") as server:
        study = optuna.create_study(storage=open_storage(server.address))
        study.set_user_attr("k", 1)
        server.kill()
        for file in (server.directory / "appendonlydir").iterdir():
            file.unlink()
        server.start()
        with pytest.raises(optuna.exceptions.StorageInternalError, match="appendonly yes"):
            study.get_trials()


# Errors that are none of the connection.


def test_errors_that_come_again_are_not_waited_for() -> None:
    pytest.importorskip("psycopg2")
    with own_servers.own_server("postgresql") as server:
        storage = open_storage(server.address)
        assert isinstance(storage, RetryingStorage)
        study = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
        trial = storage.create_new_trial(study)
        before = time.monotonic()
        with pytest.raises(optuna.exceptions.StorageInternalError):
            storage.set_trial_user_attr(trial, "k" * 10_000, 1)
        with pytest.raises(KeyError):
            storage.get_trial(trial + 1)
        assert time.monotonic() - before < 10
        for other in ("postgresql://nobody@", "postgresql://postgres@"):
            address = server.address.replace("postgresql://postgres@", other)
            with pytest.raises(ValueError, match="does not exist"):
                open_storage(address.removesuffix("postgres") + "nothing")


@pytest.mark.usefixtures("short_pauses")
def test_loss_that_comes_again_while_the_server_answers_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import exc

    calls: list[int] = []

    def too_large(*args: Any) -> None:
        calls.append(1)
        raise exc.OperationalError("INSERT", {}, Exception("x"), connection_invalidated=True)

    with services.storage_url("sqlite", tmp_path) as url:
        storage = RetryingStorage(RDBStorage(url))
        monkeypatch.setattr(storage.inner, "set_study_user_attr", too_large)
        with pytest.raises(exc.OperationalError):
            storage.set_study_user_attr(1, "k", 1)
    assert 2 <= len(calls) <= 10


# gRPC addresses.


def test_grpc_address_that_nothing_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr(storages, "_GRPC_WAIT_SECONDS", 0.3)
    with pytest.raises(ValueError, match="nothing answers on port"):
        open_storage(f"grpc://127.0.0.1:{free_port()}")
    with pytest.raises(ValueError, match="write it as grpc://HOST:PORT"):
        open_storage("grpc://host:1/path")


def test_grpc_server_that_is_away_is_an_error_of_a_ping_at_once() -> None:
    pytest.importorskip("grpc")
    storage = RetryingGrpcStorage(host="127.0.0.1", port=free_port())
    before = time.monotonic()
    with pytest.raises(ConnectionError, match="failed"):
        storage.ping(60.0)
    assert time.monotonic() - before < 30
    storage.close()


# A full disk.

FULL = """
import resource, signal, sys
import optuna
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.storages.open import open_storage
optuna.logging.set_verbosity(optuna.logging.CRITICAL)
limit, hold = int(sys.argv[2]), sys.argv[3] == "hold"
study = optuna.create_study(
    storage=open_storage(sys.argv[1]), study_name="s", load_if_exists=True, direction="maximize",
    sampler=optuna.samplers.RandomSampler(),
)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def suggest(trial):
    for i in range(50):
        trial.suggest_categorical(f"op{i}", ("int8", "fp32"))
    return 1.0
def objective(trial):
    if not hold:
        return suggest(trial)
    with buffered_writes(trial):
        return suggest(trial)
done = 0
try:
    for _ in range(10):
        trial = study.ask()
        study.tell(trial, objective(trial))
        print("done", trial.number, flush=True)
except OSError as error:
    print("error", error, flush=True)
"""


def _full(zygote: Zygote, path: Path, limit: int, hold: bool) -> list[str]:
    how = "hold" if hold else "each"
    return written_by(zygote, FULL, path, limit, how).splitlines()


@pytest.mark.parametrize(
    ("extra", "hold"),
    [
        pytest.param(extra, hold, marks=() if hold == (extra == 21_000) else pytest.mark.slow)
        for extra in (10_000, 21_000, 30_007)
        for hold in (False, True)
    ],
)
def test_full_disk_is_one_clear_error_and_loses_nothing(
    zygote: Zygote, hold: bool, extra: int, tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    _full(zygote, path, 0, hold)
    whole = len(path.read_bytes())
    reader = optuna.load_study(storage=open_storage(path), study_name="s")
    assert len(reader.trials) == 10
    *done, error = _full(zygote, path, whole + extra, hold)
    assert error.startswith(f"error The journal {str(path)!r} cannot be written: File too large.")
    assert "Make room" in error
    assert path.read_bytes().endswith(b"\n")
    assert not path.with_name("study.journal.lock").is_symlink()
    numbers = [int(line.split()[1]) for line in done]
    # A reader that was there all the time, and those that start then, see the same.
    for study in (reader, optuna.load_study(storage=open_storage(path), study_name="s")):
        complete = study.get_trials(states=[TrialState.COMPLETE])
        assert [trial.number for trial in complete] == [*range(10), *numbers]
        assert all(len(trial.params) == 50 for trial in complete)
    assert len(_full(zygote, path, 0, hold)) == 10
    assert len(reader.get_trials(states=[TrialState.COMPLETE])) == 20 + len(numbers)


def test_lock_that_cannot_be_made_on_a_full_disk_is_the_same_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    import errno
    import os

    study = optuna.create_study(storage=open_storage(tmp_path / "study.journal"))

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "symlink", full)
        with pytest.raises(OSError, match="study.journal' cannot be written: No space") as caught:
            study.set_user_attr("k", 1)
    assert caught.value.errno == errno.ENOSPC
    assert told(log, "Make room") == 1
    study.set_user_attr("k", 2)
    assert study.user_attrs == {"k": 2}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
