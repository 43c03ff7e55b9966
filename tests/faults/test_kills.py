"""Workers that are killed with SIGKILL, at random moments and at chosen ones."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import random
import signal
import time

from faults.promises import check
from optuna.trial import TrialState
import pytest
from samplers.parallel_worker import Log
import services
from zygote import Zygote

from optuna_quant.study.trial_view import TrialView


pytestmark = pytest.mark.slow


WORKERS = 3
KILLS = 40
STRATEGIES = ["basic", "exhaustive", "auto", "mse_v2", "random", "conservative"]


@pytest.fixture(params=services.STORAGES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(request.param, tmp_path) as url:
        yield url


def test_kills_lose_nothing_and_double_nothing(zygote: Zygote, url: str, tmp_path: Path) -> None:
    rolled = random.Random(0)
    killed = 0
    number = 0
    while killed < KILLS:
        name = STRATEGIES[number % len(STRATEGIES)]
        log = Log(tmp_path / f"log {number}")
        dead = _search(zygote, url, log, name, f"study {number}", KILLS - killed, rolled)
        trials = check(url, log, name, study_name=f"study {number}", dead=dead)
        failed = [t for t in trials if t.state == TrialState.FAIL]
        assert len(failed) <= len(dead)
        assert not any(TrialView(trial).has_failed_itself for trial in failed)
        killed += len(dead)
        number += 1


def _search(
    zygote: Zygote,
    url: str,
    log: Log,
    name: str,
    study_name: str,
    most: int,
    rolled: random.Random,
) -> set[int]:
    """Search with workers that die again and again, to the end; gives those that died."""
    # From outside at a moment, or by itself at a write.
    moments: dict[int, float] = {}
    dead: set[int] = set()
    alive: set[int] = set()
    while True:
        while len(alive) < WORKERS:
            by_itself = rolled.random() < 0.6 and len(dead) < most
            pid = zygote.start(
                "faults.fault_worker:work",
                url=url,
                log=str(log.path),
                name=name,
                study_name=study_name,
                seconds=0.01,
                kill_at=rolled.randint(1, 30) if by_itself else None,
                # A trial that was started by a dead worker and not marked costs everybody this.
                options={"grace_period": 0.3, "max_deaths": 1000},
            )
            alive.add(pid)
            if not by_itself and len(dead) < most:
                moments[pid] = time.monotonic() + rolled.uniform(0.0, 0.5)
        time.sleep(0.005)
        for pid in alive:
            if moments.get(pid, float("inf")) < time.monotonic():
                os.kill(pid, signal.SIGKILL)
                del moments[pid]
        for pid in sorted(alive):
            if not zygote.has_ended(pid):
                continue
            alive.discard(pid)
            (status,) = zygote.join(pid)
            if status == 0:
                # Nothing is left to do: the others come to their end as well, or die.
                return dead | {other for other in alive if zygote.join(other) != [0]}
            assert status == -signal.SIGKILL
            dead.add(pid)
