"""What open_storage promises: starting together, addresses, drivers, databases of all kinds."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Iterator
import contextlib
import multiprocessing
from pathlib import Path
import pickle
import sys
import threading
import time
import traceback
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
import own_servers
import pytest
import services
from storages.storage_scripts import Start
from storages.storage_scripts import run
from storages.storage_scripts import starter
from zygote import Zygote

from optuna_quant.storages import open as storages
from optuna_quant.storages import reconnection
from optuna_quant.storages.errors import NotOpenedError
from optuna_quant.storages.open import open_storage
from optuna_quant.storages.retrying import RetryingStorage
from optuna_quant.workers.backoff import Backoff


WORKERS = 4


BEGIN_TOGETHER = """
study = optuna.create_study(
    storage=open_storage(address), study_name="s", load_if_exists=True, direction="maximize"
)
study.set_user_attr("same for all", 1)
study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
"""


@pytest.fixture
def start(zygote: Zygote) -> Start:
    return starter(zygote)


# Starting together.


@contextlib.contextmanager
def without_prefix(url: str) -> Iterator[str]:
    """The address that open_storage takes; in Redis its keys begin with a colon."""
    address = url.partition("#")[0]
    if not address.startswith("redis"):
        yield address
        return
    import redis

    client = redis.Redis.from_url(address)

    def clear() -> None:
        for key in client.scan_iter(":*"):
            client.delete(key)

    clear()
    try:
        yield address
    finally:
        clear()


@pytest.mark.parametrize("kind", services.STORAGES)
def test_workers_begin_together_on_an_empty_storage(
    start: Start, kind: str, tmp_path: Path
) -> None:
    with (
        services.storage_url(kind, tmp_path, tables=False) as url,
        without_prefix(url) as address,
    ):
        run([start(BEGIN_TOGETHER, address) for _ in range(WORKERS)])
        study = optuna.load_study(storage=open_storage(address), study_name="s")
        assert len(study.trials) == 3 * WORKERS
        assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}
        assert sorted(trial.number for trial in study.trials) == list(range(3 * WORKERS))
        assert optuna.get_all_study_names(open_storage(address)) == ["s"]


EVALUATE_LONG = """
from optuna_quant.storages import open as storages, reconnection
from optuna_quant.workers.backoff import Backoff
reconnection._IDLE_SECONDS = 0.1
reconnection._LONGEST_PAUSE_SECONDS = 0.2
storages._database_backoff = lambda: Backoff(first=0.1, longest=0.2)
study = optuna.create_study(storage=open_storage(address), study_name="s", load_if_exists=True)

def objective(trial):
    time.sleep(0.3)
    return trial.suggest_float("x", 0, 1)

study.optimize(objective, n_trials=2)
"""


def test_more_workers_than_connections_take_turns(start: Start) -> None:
    pytest.importorskip("psycopg2")
    with own_servers.own_server(own_servers.SmallPostgresql) as server:
        connections = own_servers.SmallPostgresql.connections
        workers = [start(EVALUATE_LONG, server.address) for _ in range(2 * connections)]
        run(workers)
        study = optuna.load_study(storage=open_storage(server.address), study_name="s")
        assert len(study.trials) == 4 * connections
        assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}


def test_connections_without_a_use_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg2")
    # Long enough to be seen.
    monkeypatch.setattr(reconnection, "_IDLE_SECONDS", 0.5)
    import psycopg2

    with own_servers.own_server(own_servers.SmallPostgresql) as server:
        connection = psycopg2.connect(server.address)
        connection.autocommit = True
        cursor = connection.cursor()

        def others() -> int:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            (found,) = cursor.fetchone()
            return int(found) - 1

        study = optuna.create_study(storage=open_storage(server.address))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        assert others() == 1
        deadline = time.monotonic() + 60
        while others():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(study.trials) == 1  # It is there again when it is needed.
        connection.close()


def test_server_that_stays_full_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("psycopg2")
    import psycopg2

    optuna.logging.enable_propagation()
    monkeypatch.setattr(storages, "_ROOM_SECONDS", 0.3)
    monkeypatch.setattr(storages, "_database_backoff", lambda: Backoff(longest=0.1))
    with own_servers.own_server(own_servers.SmallPostgresql) as server:
        connections = own_servers.SmallPostgresql.connections
        held = [psycopg2.connect(server.address) for _ in range(connections)]
        with pytest.raises(ValueError, match=r"no free connection for 0.3 s.*optuna-quant serve"):
            open_storage(server.address)
        assert caplog.text.count("Waiting for a free one, for up to 0.3 s") == 1
        for connection in held[:2]:  # Opening takes two.
            threading.Timer(0.2, connection.close).start()
        monkeypatch.setattr(storages, "_ROOM_SECONDS", 300.0)
        optuna.create_study(storage=open_storage(server.address))
    optuna.logging.disable_propagation()


def test_opening_is_tried_again_only_while_the_database_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy

    calls = Counter[str]()
    real = storages._database_once

    def once(*args: Any, **kwargs: Any) -> Any:
        calls["once"] += 1
        if calls["once"] <= 3:
            raise sqlalchemy.exc.IntegrityError("x", {}, Exception("somebody was quicker"))
        return real(*args, **kwargs)

    monkeypatch.setattr(storages, "_database_once", once)
    open_storage(f"sqlite:///{tmp_path / 'x.db'}")
    assert calls["once"] == 4

    def never(*args: Any, **kwargs: Any) -> Any:
        calls["never"] += 1
        raise sqlalchemy.exc.OperationalError("x", {}, Exception("no"))

    monkeypatch.setattr(storages, "_database_once", never)
    monkeypatch.setattr(storages.time, "sleep", lambda seconds: calls.update(sleep=1))
    with pytest.raises(ValueError, match="cannot be opened"):
        open_storage(f"sqlite:///{tmp_path / 'y.db'}")
    assert 5 <= calls["never"] == calls["sleep"] + 1 <= 20


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause before another attempt fails."""

    def pause(seconds: float) -> None:
        raise AssertionError(f"paused for {seconds} s")

    monkeypatch.setattr(storages.time, "sleep", pause)


@pytest.mark.usefixtures("no_pause")
def test_server_that_does_not_answer_is_an_error_at_once() -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(ValueError, match="cannot be opened.*refused") as caught:
        open_storage("postgresql://user:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)


def test_password_that_is_not_escaped_is_not_shown() -> None:
    with pytest.raises(ValueError, match="as %40") as caught:
        open_storage("postgresql://user:se@cret@127.0.0.1:1/x")
    assert "cret@" not in str(caught.value)
    assert "se@" not in str(caught.value)


SECRET = "s3cr3t"

# Nothing answers at these; some are mistyped.
ADDRESSES = [
    "postgresql://user:{}@127.0.0.1:1/x",
    "postgresql://:{}@127.0.0.1:1/x",
    "postgresql://127.0.0.1:1/x?user=u&password={}",
    "postgresql://user@127.0.0.1:1/x?sslmode=prefer&sslpassword={}&x=1",
    "postgresql://user:a/{}@127.0.0.1:1/x",
    "postgresql://user:a@{}@127.0.0.1:1/x",
    "postgresql://user:{}@127.0.0.1:port/x",
    "postgresql://user:{}@[::1/x",
    "postgresql:/user:{}@127.0.0.1:1/x",
    "postgresql//user:{}@127.0.0.1:1/x",
    "postgresql:user:{}@127.0.0.1/x",
    "postgresql ://user:{}@127.0.0.1:1/x",
    "'postgresql://user:{}@127.0.0.1:1/x'",
    "Postgres:/user:{}@127.0.0.1:1/x",
    "postgresql+nodriver://user:{}@127.0.0.1:1/x",
    "user:{}@127.0.0.1/x",
    "host=127.0.0.1 port=1 user=u password={}",
    "host=127.0.0.1 port=1 user=u password='a {}'",
    "mysql://127.0.0.1:1/x?passwd={}",
    "mysql://user:{}@127.0.0.1:1/x?charset=nonsense",
    "redis://:{}@127.0.0.1:1/0",
    "redis://127.0.0.1:1/0?password={}",
    "redis://:{}@127.0.0.1:notaport/0",
    "unix://user:{}@/nowhere/redis.sock?db=0",
    "unix:///nowhere/redis.sock?password={}",
    "grpc://user:{}@127.0.0.1:1/path",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3D{}",
    "http://user:{}@host/x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_message_shows_a_password(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reconnection, "_FIRST_PAUSE_SECONDS", 0.0)
    with pytest.raises(ValueError, match=r"^The storage .+ cannot be opened: .+") as caught:
        open_storage(address.format(SECRET))
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown.replace(address.format(SECRET), "")
    assert SECRET not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_is_mistyped_is_told_from_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="write postgresql://, with a colon and two slashes"):
        open_storage("postgresql:/user@host/x")
    monkeypatch.chdir(tmp_path)
    for name in ("study.journal", "a@b", "x:y", "mysql.journal", "token", "my postgresql"):
        open_storage(name)
    open_storage(tmp_path / "token=1@a")
    open_storage(f"journal:{tmp_path / 'user:word@place'}")
    assert len(list(tmp_path.iterdir())) == 8


def test_redis_on_a_socket_of_the_machine() -> None:
    pytest.importorskip("redis")
    with own_servers.own_server("redis") as server:
        assert isinstance(server, own_servers.OwnRedis)
        study = optuna.create_study(storage=open_storage(f"unix://{server.socket}?db=0"))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        other = open_storage(server.address)
        assert len(optuna.load_study(study_name=study.study_name, storage=other).trials) == 2


def _no_module(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    real = builtins.__import__

    def check(name: str) -> None:
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}")

    def importer(name: str, *args: Any, **kwargs: Any) -> Any:
        check(name)
        return real(name, *args, **kwargs)

    real_import_module = storages.importlib.import_module

    def import_module(name: str, *args: Any) -> Any:
        check(name)
        return real_import_module(name, *args)

    monkeypatch.setattr(builtins, "__import__", importer)
    monkeypatch.setattr(storages.importlib, "import_module", import_module)


# Databases.


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_url_without_a_driver_uses_the_one_that_is_installed(kind: str, tmp_path: Path) -> None:
    with services.storage_url(kind, tmp_path) as url:
        scheme, rest = url.split("://")
        plain = {"postgresql": ["postgresql", "postgres"], "mysql": ["mysql", "mariadb"]}[kind]
        assert "+" in scheme
        for name in plain:
            study = optuna.create_study(storage=open_storage(f"{name}://{rest}"), study_name=name)
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        assert optuna.get_all_study_names(open_storage(url)) == plain


@pytest.mark.parametrize(
    ("url", "missing", "ways"),
    [
        ("postgresql://u:p@h/d", ("psycopg2", "psycopg"), ("psycopg2-binary", "psycopg[binary]")),
        ("postgresql+psycopg://u:p@h/d", ("psycopg",), ("psycopg[binary]", "postgresql://...")),
        ("mysql://u:p@h/d", ("MySQLdb", "pymysql"), ("mysqlclient", "pymysql")),
        ("redis://h/0", ("redis",), ("redis",)),
        ("grpc://h:1", ("grpc",), ("grpcio", "protobuf")),
    ],
)
def test_missing_driver_is_an_error_that_names_the_ways(
    url: str, missing: tuple[str, ...], ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("redis"):
        error = ModuleNotFoundError("redis")
        monkeypatch.setattr(storages, "JournalRedis", lambda address: (_ for _ in ()).throw(error))
    _no_module(monkeypatch, *missing)
    for module in [name for name in sys.modules if name.split(".")[0] in missing]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ValueError, match="driver is not installed. Run: pip install") as caught:
        open_storage(url)
    for way in ways:
        assert way in str(caught.value)
    assert ":p@" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_claims_of_dead_workers_return_by_the_heartbeat(kind: str, tmp_path: Path) -> None:
    with services.storage_url(kind, tmp_path) as url:
        storage = open_storage(url)
        assert isinstance(storage, RDBStorage | RetryingStorage)
        assert storage.get_heartbeat_interval() == 60
        database: Any = storage.inner if isinstance(storage, RetryingStorage) else storage
        assert isinstance(storage, RetryingStorage) == (kind != "sqlite")
        database = getattr(database, "_backend", database)
        assert database.grace_period == 120
        assert not database.engine_kwargs.get("pool_pre_ping", False)


def _take_all(url: str, name: str, begin: Any, taken: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(storage=open_storage(url), study_name=name)
    begin.wait()
    numbers = []
    while waiting := study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
        trial = study.ask()
        numbers.append(trial.number)
        study.tell(trial, 1.0)
        assert waiting
    taken.put(numbers)


def test_queue_of_sqlite_gives_each_trial_to_one_worker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    study = optuna.create_study(storage=open_storage(url))
    for x in range(30):
        study.enqueue_trial({"x": x})
    context = multiprocessing.get_context("fork")
    begin, taken = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=_take_all, args=(url, study.study_name, begin, taken))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    numbers = [number for _ in workers for number in taken.get(timeout=60)]
    for worker in workers:
        worker.join()
    assert sorted(set(numbers)) == sorted(numbers)
    assert set(range(30)) <= set(numbers)


def _pragma(storage: Any, name: str) -> Any:
    import sqlalchemy

    with storage.engine.connect() as connection:
        return connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()


def test_new_sqlite_file_has_a_write_ahead_log(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'x.db'}")
    for opened in (storage, pickle.loads(pickle.dumps(storage))):
        assert _pragma(opened, "journal_mode") == "wal"
        assert _pragma(opened, "synchronous") == 1
        assert _pragma(opened, "busy_timeout") == 60_000


def test_existing_sqlite_file_keeps_its_way(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    optuna.create_study(storage=url, study_name="s")
    storage = open_storage(url)
    assert _pragma(storage, "journal_mode") == "delete"
    assert _pragma(storage, "synchronous") == 2
    assert optuna.get_all_study_names(storage) == ["s"]


def test_path_of_an_sqlite_file_is_told_its_address(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    optuna.create_study(storage=open_storage(f"sqlite:///{path}"), study_name="kept")
    with pytest.raises(NotOpenedError, match="an SQLite database") as error:
        open_storage(path)
    assert "delete" not in str(error.value)
    address = str(error.value).rpartition("Write ")[2]
    assert optuna.get_all_study_names(open_storage(address)) == ["kept"]


def test_sqlite_in_memory_opens() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        storage = open_storage(url)
        assert isinstance(storage, optuna.storages.RDBStorage)
        assert storage.get_heartbeat_interval() is None  # Its thread would see no tables.
        optuna.create_study(storage=storage).optimize(lambda trial: 0.0, n_trials=1)


@pytest.mark.usefixtures("no_pause")
def test_sqlite_file_that_cannot_be_one_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no directory"):
        open_storage(f"sqlite:///{tmp_path / 'no' / 'x.db'}")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x07" * 600)
    with pytest.raises(ValueError, match="file is not a database"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == b"\x08\x07" * 600


def test_journal_of_optuna_can_be_opened_and_the_other_way_round(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name="a")
    optuna.create_study(storage=open_storage(path), study_name="b")
    names = optuna.get_all_study_names(JournalStorage(JournalFileBackend(str(path))))
    assert names == ["a", "b"]


def test_a_database_is_ready_when_names_of_studies_are_unique(tmp_path: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'db'}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE studies (study_name TEXT)"))

    def make_index() -> None:
        time.sleep(0.3)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE UNIQUE INDEX i ON studies (study_name)"))

    thread = threading.Thread(target=make_index)
    thread.start()
    storages.wait_for_unique_names(engine)
    assert sqlalchemy.inspect(engine).get_indexes("studies")
    thread.join()
