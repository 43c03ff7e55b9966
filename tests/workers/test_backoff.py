"""Pauses grow while nothing changes; the clock is ours here."""

from __future__ import annotations

from pathlib import Path

import pytest

import optuna_quant
from optuna_quant.workers import backoff
from optuna_quant.workers.backoff import Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backoff, "time", clock)
    return clock


def test_pauses_grow_to_the_longest(clock: Clock) -> None:
    pause = Backoff(first=1.0, longest=5.0, factor=2.0, spread=(1.0, 1.0))
    for _ in range(5):
        pause()
    assert clock.slept == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_pauses_of_workers_differ(clock: Clock) -> None:
    pause = Backoff(first=1.0, longest=1.0, spread=(0.8, 1.2))
    for _ in range(50):
        pause()
    assert min(clock.slept) >= 0.8
    assert max(clock.slept) <= 1.2
    assert len(set(clock.slept)) > 25


def test_a_queue_that_moves_starts_with_the_first_pause(clock: Clock) -> None:
    pause = Backoff(first=1.0, longest=8.0, factor=2.0, spread=(1.0, 1.0))
    for ahead in (2, 2, 2, 1):
        pause(ahead=ahead)
    assert clock.slept == [1.0, 2.0, 4.0, 1.0]


def test_who_is_far_behind_sleeps_for_half_of_the_way(clock: Clock) -> None:
    pause = Backoff(first=0.001, longest=0.001, spread=(1.0, 1.0))
    pause(ahead=101)
    assert clock.slept == [pytest.approx(0.5 * 0.02 * 100)]
    pause(ahead=100_000)
    assert clock.slept[1] == 10.0


SLEEPERS = {
    "workers/backoff.py",
    "evaluation/timeout.py",  # Looks for trials that are over their time at a steady rate.
    "storages/idle_connections.py",  # Sleeps once, until connections have been idle for long.
}


def test_only_the_backoff_sleeps() -> None:
    package = Path(optuna_quant.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "time.sleep(" in path.read_text()
    }
    assert found == SLEEPERS
