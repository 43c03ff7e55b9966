"""A value is computed once for all workers, whichever worker fails or dies meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from pathlib import Path
import random
import threading
import time
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import services
import value_worker

from optuna_quant import _optuna
from optuna_quant.study import compute_once
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.compute_once import LeaseMonitor
from optuna_quant.workers import heartbeat


PROCESSES = 4
ROUNDS = 3

# Forked by a process that has imported what takes long; it does not see the modules of the tests.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "optuna_quant.evaluation.shared_calibration",
        "optuna_quant.samplers",
        "alembic.command",
        "optuna.storages._rdb.models",
        "psycopg2",
        "pymysql",
        "pytest",
        "redis",
    ]
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes whose tasks begin together."""
    with ProcessPoolExecutor(
        PROCESSES,
        mp_context=context,
        initializer=value_worker.set_barrier,
        initargs=(context.Barrier(PROCESSES),),
    ) as pool:
        yield pool


@pytest.fixture(params=services.STORAGES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(request.param, tmp_path) as url:
        services.create(url)
        yield url


def together(pool: ProcessPoolExecutor, task: Callable[..., Any], *args: object) -> list[Any]:
    futures = [pool.submit(task, *args) for _ in range(PROCESSES)]
    return [future.result(timeout=120) for future in futures]


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


# Who computes.


def test_of_four_processes_one_computes(
    pool: ProcessPoolExecutor, url: str, tmp_path: Path
) -> None:
    for number in range(ROUNDS):
        log = tmp_path / f"log{number}"
        values = together(pool, value_worker.race, url, f"value{number}", log)
        assert [value.decode() for value in values] == lines(log) * PROCESSES


def test_of_four_processes_one_calibrates(
    pool: ProcessPoolExecutor, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for store in (None, folder):
        log = tmp_path / f"log of {store is not None}"
        found = together(pool, value_worker.calibrate, url, log, store)
        assert len(lines(log)) == 1
        assert found[0] is not None
        assert set(found) == {found[0]}
        assert len(list(folder.iterdir())) == (store is not None)


@pytest.mark.parametrize("url", ["journal"], indirect=True)
def test_of_four_processes_one_computes_the_sensitivities(
    pool: ProcessPoolExecutor, url: str, tmp_path: Path
) -> None:
    together(pool, value_worker.search, url, tmp_path / "log")
    assert len(lines(tmp_path / "log")) == 1


class Interleaving:
    """Lets threads read and write one at a time, in an order drawn by lot."""

    def __init__(self, seed: int, threads: int) -> None:
        self._lots = random.Random(seed)
        self._condition = threading.Condition()
        self._running = threads
        self._waiting: list[int] = []
        self._next: int | None = None

    def step(self) -> None:
        with self._condition:
            me = threading.get_ident()
            self._waiting.append(me)
            self._running -= 1
            self._draw()
            assert self._condition.wait_for(lambda: self._next == me, timeout=30)
            self._next = None
            self._waiting.remove(me)
            self._running += 1

    def leave(self) -> None:
        with self._condition:
            self._running -= 1
            self._draw()

    def _draw(self) -> None:
        if not self._running and self._waiting:
            self._next = self._lots.choice(self._waiting)
            self._condition.notify_all()


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_one_computes_in_whatever_order_they_read_and_write(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    order: list[Interleaving] = []
    read, write = _optuna.study_system_attrs, _optuna.set_study_system_attr

    def slow_read(study: optuna.Study) -> dict[str, Any]:
        order[0].step()
        return read(study)

    def slow_write(study: optuna.Study, key: str, value: object) -> None:
        order[0].step()
        write(study, key, value)

    monkeypatch.setattr(_optuna, "study_system_attrs", slow_read)
    monkeypatch.setattr(_optuna, "set_study_system_attr", slow_write)
    monkeypatch.setattr(compute_once, "Backoff", lambda **kwargs: lambda: None)
    for seed in range(60):
        study = optuna.create_study()
        order[:] = [Interleaving(seed, threads)]
        computed: list[int] = []
        found: list[bytes] = []

        def work(
            number: int,
            study: optuna.Study = study,
            computed: list[int] = computed,
            found: list[bytes] = found,
        ) -> None:
            def compute() -> bytes:
                computed.append(number)
                order[0].step()  # The others go on meanwhile.
                return str(number).encode()

            try:
                found.append(ComputeOnce(study, "value").get(compute))
            finally:
                order[0].leave()

        workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert len(computed) == 1, seed
        assert found == [str(computed[0]).encode()] * threads


def test_a_value_is_computed_once_for_later_runs() -> None:
    study = optuna.create_study()
    assert ComputeOnce(study, "a").read() is None
    assert ComputeOnce(study, "a").get(lambda: b"first") == b"first"
    assert ComputeOnce(study, "a").get(lambda: b"second") == b"first"
    assert ComputeOnce(study, "b").get(lambda: b"") == b""
    assert ComputeOnce(study, "b").read() == b""


# Failures.


def test_a_worker_that_fails_is_replaced_and_has_its_own_error() -> None:
    study = optuna.create_study()
    started, errors = threading.Event(), []

    def fail() -> bytes:
        started.set()
        time.sleep(0.2)
        raise RuntimeError("no")

    def first() -> None:
        try:
            ComputeOnce(study, "a").get(fail)
        except RuntimeError as error:
            errors.append(str(error))

    worker = threading.Thread(target=first)
    worker.start()
    assert started.wait(30)
    assert ComputeOnce(study, "a").offer(lambda: b"other") is None
    assert ComputeOnce(study, "a").get(lambda: b"other") == b"other"
    worker.join(30)
    assert errors == ["no"]


def test_a_killed_process_is_replaced_at_once(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = context.Process(target=value_worker.hold, args=(url, "a", log))
    worker.start()
    deadline = time.monotonic() + 60
    while not lines(log):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    value = ComputeOnce(services.create(url), "a")
    assert value.offer(lambda: b"mine") is None
    worker.kill()
    worker.join(30)
    assert value.get(lambda: b"mine") == b"mine"


FAR = "far-away machine boot namespace|1|1|1"


def claim(study: optuna.Study, name: str, *, position: int, heartbeat: int = 0) -> None:
    """What a worker on another machine writes."""
    value = {"id": "far", "worker": FAR, "position": position, "heartbeat": heartbeat}
    _optuna.set_study_system_attr(study, f"optuna_quant:{name}:claim:far", value)


@pytest.mark.parametrize("position", [0, 1])
def test_a_silent_worker_elsewhere_is_replaced_after_the_timeout(position: int) -> None:
    study = optuna.create_study()
    claim(study, "a", position=position)
    monitor = LeaseMonitor(timeout=0.2)
    started = time.monotonic()
    assert ComputeOnce(study, "a", monitor=monitor).get(lambda: b"mine") == b"mine"
    assert time.monotonic() - started >= 0.2


def test_a_worker_elsewhere_that_writes_heartbeats_is_waited_for() -> None:
    study = optuna.create_study()
    claim(study, "a", position=1)

    def far() -> None:
        for beat in range(1, 25):
            claim(study, "a", position=1, heartbeat=beat)
            time.sleep(0.05)
        write_bytes(study, "a", b"theirs")

    worker = threading.Thread(target=far)
    worker.start()
    monitor = LeaseMonitor(timeout=1.0)
    assert ComputeOnce(study, "a", monitor=monitor).get(lambda: b"mine") == b"theirs"
    worker.join(30)


def test_a_computing_worker_writes_heartbeats() -> None:
    study = optuna.create_study()
    signs: set[int] = set()

    def compute() -> bytes:
        deadline = time.monotonic() + 30
        while len(signs) < 3 and time.monotonic() < deadline:
            (held,) = (
                value
                for key, value in _optuna.study_system_attrs(study).items()
                if ":claim:" in key
            )
            signs.add(held["heartbeat"])
            time.sleep(0.01)
        return b"value"

    ComputeOnce(study, "a", monitor=LeaseMonitor(timeout=0.6)).get(compute)
    assert len(signs) >= 3


def test_time_without_a_look_makes_no_lease_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monitor = LeaseMonitor(timeout=60.0)
    held = {"id": "far", "worker": FAR, "position": 1, "heartbeat": 0}
    assert monitor.is_alive(held)
    now[0] += 3600  # The storage was away.
    assert monitor.is_alive(held)
    now[0] += 19
    assert monitor.is_alive(held)
    now[0] += 20
    assert monitor.is_alive({**held, "heartbeat": 1})
    for _ in range(2):
        now[0] += 20
        assert monitor.is_alive({**held, "heartbeat": 1})
    now[0] += 20
    assert not monitor.is_alive({**held, "heartbeat": 1})


def test_a_value_survives_a_claim_that_cannot_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    write = _optuna.set_study_system_attr

    def refuse(study: optuna.Study, key: str, value: object) -> None:
        if value is None:
            raise OSError("no storage")
        write(study, key, value)

    monkeypatch.setattr(_optuna, "set_study_system_attr", refuse)
    assert ComputeOnce(study, "a").get(lambda: b"value") == b"value"
    assert ComputeOnce(study, "a").read() == b"value"


def test_bytes_of_any_length_are_kept(url: str) -> None:
    study = services.create(url)
    for size in (0, 1, 200_000):
        data = random.Random(size).randbytes(size)
        ComputeOnce(study, f"bytes{size}").get(lambda data=data: data)
        assert ComputeOnce(services.create(url), f"bytes{size}").read() == data
