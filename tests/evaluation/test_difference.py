"""How far a model is from its simulation."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from optuna_quant.backends.base.model import Feed
from optuna_quant.evaluation import difference
from optuna_quant.evaluation.difference import compare


class Clock:
    """The time, which passes while models run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(difference, "time", SimpleNamespace(monotonic=lambda: self.now))


class SlowModel:
    """Takes some seconds for each run, and more for the first one."""

    inputs = ()
    outputs = ("y",)

    def __init__(self, clock: Clock, seconds: float, *, first: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._first = first

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[Any]:
        self._clock.now += self._seconds + self._first
        self._first = 0.0
        return [feed["x"]]


@pytest.mark.parametrize(
    ("seconds", "first", "samples"),
    [
        (0.01, 0.0, 256),
        (0.01, 60.0, 256),  # It is converted at its first run, which is not counted.
        (6.0, 0.0, 96),  # At 18 s, after 12 s that count, it is enough.
    ],
)
def test_samples_are_compared_until_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, seconds: float, first: float, samples: int
) -> None:
    clock = Clock(monkeypatch)
    quick = SlowModel(clock, 0.0, first=0.0)
    slow = SlowModel(clock, seconds, first=first)
    feeds = [{"x": np.ones((32, 4), np.float32)} for _ in range(8)]
    assert compare(quick, slow, feeds, seconds=10.0).samples == samples
