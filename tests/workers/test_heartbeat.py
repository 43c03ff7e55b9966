"""Heartbeats tell who is alive, by the clock of the one that looks."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from optuna_quant.workers import heartbeat
from optuna_quant.workers.heartbeat import HeartbeatMonitor
from optuna_quant.workers.heartbeat import HeartbeatThread
from optuna_quant.workers.heartbeat import heartbeat_interval


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_several_heartbeats_come_within_the_timeout() -> None:
    for timeout in (1.0, 60.0, 180.0, 3600.0):
        assert heartbeat_interval(timeout) * 6 <= timeout
    assert heartbeat_interval(0.001) == 0.05
    assert heartbeat_interval(None) == 30.0


def test_silence_for_the_timeout_is_stale(clock: SimpleNamespace) -> None:
    monitor = HeartbeatMonitor(9.0)
    stale = []
    for clock.now in (0.0, 3.0, 6.0, 8.9, 9.0):
        stale.append(monitor.is_stale("worker", 1))
    assert stale == [False, False, False, False, True]


def test_a_change_starts_the_timeout_again(clock: SimpleNamespace) -> None:
    monitor = HeartbeatMonitor(3.0)
    for clock.now in range(20):
        assert not monitor.is_stale("worker", clock.now)
    clock.now += 1
    assert not monitor.is_stale("worker", 19)


def test_time_without_a_look_does_not_count(clock: SimpleNamespace) -> None:
    monitor = HeartbeatMonitor(9.0)
    monitor.is_stale("worker", 1)
    clock.now = 3600.0
    assert not monitor.is_stale("worker", 1)


def test_sources_are_told_apart_and_forgotten(clock: SimpleNamespace) -> None:
    monitor = HeartbeatMonitor(3.0)
    for clock.now in (0.0, 1.0, 2.0):
        monitor.is_stale("a", 1)
        monitor.is_stale("b", clock.now)
    monitor.forget_all_but(["b"])
    clock.now = 3.0
    assert not monitor.is_stale("a", 1)  # Seen for the first time, again.
    assert not monitor.is_stale("b", 2.0)


def test_thread_goes_on_after_an_error_until_it_is_stopped() -> None:
    calls, done = [], threading.Event()

    def beat() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) < 3:
            raise OSError("The storage is away.")
        done.set()

    thread = HeartbeatThread(beat, interval=0.001, name="beating")
    assert not thread.is_stopped
    thread.start()
    assert done.wait(60)
    thread.stop()
    assert thread.is_stopped
    assert set(calls) == {"beating"}
