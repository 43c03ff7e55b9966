"""Workers on other machines, which no worker can look up: killed, stopped, with other clocks."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import os
from pathlib import Path
import signal
import time

from faults.promises import check
import optuna
from optuna.trial import TrialState
import pytest
from samplers.parallel_worker import Log
import services
from zygote import Zygote

from optuna_quant.study.trial_view import TrialView


pytestmark = pytest.mark.slow


PATIENCE = 2.0
OPTIONS = {"claim_timeout": PATIENCE, "grace_period": 0.5}
HOUR = 3600.0


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(request.param, tmp_path) as url:
        yield url


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def trial_in(log: Log, pid: int) -> int:
    """The trial that a worker evaluates; waits until it does."""
    wait_for(lambda: bool(log.read("begin", pid=pid)), f"worker {pid} evaluates nothing")
    (line,) = log.read("begin", pid=pid)
    number: int = line["number"]
    return number


def states_of(url: str) -> list[TrialState]:
    study = optuna.load_study(storage=services.open_as_users_do(url), study_name="study")
    return [trial.state for trial in study.trials]


@pytest.mark.parametrize("storage", ["journal", "postgresql"], indirect=True)
def test_what_workers_elsewhere_left_is_evaluated_by_others(
    zygote: Zygote, storage: str, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    common = {"url": storage, "log": str(log.path), "name": "basic"}
    victims = [
        zygote.start(
            "faults.fault_worker:work",
            **common,
            seconds=100.0,
            host=f"other{i}",
            # The victims themselves never reap each other's trials.
            options=OPTIONS | {"claim_timeout": PATIENCE if i else 60.0},
        )
        for i in range(2)
    ]
    lost = {trial_in(log, victim) for victim in victims}
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert zygote.join(*victims) == [-signal.SIGKILL] * 2
    begin = time.monotonic()
    others = [
        zygote.start("faults.fault_worker:work", **common, seconds=0.02, options=OPTIONS)
        for _ in range(2)
    ]
    zygote.join(*others)
    assert time.monotonic() - begin >= PATIENCE
    trials = check(storage, log, "basic", dead=victims)
    assert {t.number for t in trials if t.state == TrialState.FAIL} == lost
    again = {TrialView(trials[number]).claim.key for number in lost}
    evaluated = {TrialView(t).claim.key for t in trials if t.state == TrialState.COMPLETE}
    assert again <= evaluated


@pytest.mark.parametrize("storage", ["journal", "postgresql"], indirect=True)
def test_a_worker_that_stood_still_changes_nothing_and_goes_on(
    zygote: Zygote, storage: str, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    common = {"url": storage, "log": str(log.path), "name": "basic", "options": OPTIONS}
    still = zygote.start(
        "faults.fault_worker:work", **common, seconds=0.3, host="other", lost=True
    )
    number = trial_in(log, still)
    os.kill(still, signal.SIGSTOP)
    stopped = zygote.start("faults.fault_worker:work", **common, seconds=0.02)
    wait_for(lambda: states_of(storage)[number] == TrialState.FAIL, "it is not reaped")
    os.kill(still, signal.SIGCONT)
    zygote.join(still, stopped)
    (line,) = log.read("lost")
    assert line["pid"] == still
    # What a plain study.optimize raises: by itself, or where Optuna tells a trial that has ended.
    assert line["kind"] in ("UpdateFinishedTrialError", "ValueError", "AssertionError"), line
    assert not log.read("told", number=number)
    trials = check(storage, log, "basic", dead=[still])
    assert trials[number].state == TrialState.FAIL
    assert trials[number].values is None


@pytest.mark.parametrize("storage", ["journal", "sqlite", "postgresql"], indirect=True)
def test_clocks_may_be_hours_apart(zygote: Zygote, storage: str, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    # Long enough for workers that live on a busy machine.
    options = {"claim_timeout": 6.0, "grace_period": 1.0}
    common = {"url": storage, "log": str(log.path), "name": "mse_v2", "options": options}
    hosts = {"early": -HOUR, "late": HOUR}
    victim = zygote.start(
        "faults.fault_worker:work", **common, seconds=100.0, host="later", clock=2 * HOUR
    )
    lost = trial_in(log, victim)
    workers = [
        zygote.start("faults.fault_worker:work", **common, seconds=0.1, host=host, clock=clock)
        for host, clock in hosts.items()
    ]
    workers += [zygote.start("faults.fault_worker:work", **common, seconds=0.1) for _ in "12"]
    os.kill(victim, signal.SIGKILL)
    assert zygote.join(victim, *workers) == [-signal.SIGKILL, 0, 0, 0, 0]
    trials = check(storage, log, "mse_v2", dead=[victim])
    assert [t.number for t in trials if t.state == TrialState.FAIL] == [lost]
    assert {line["pid"] for line in log.read("begin")} == {victim, *workers}
    # The clocks were apart indeed.
    starts = {t.datetime_start for t in trials if t.datetime_start is not None}
    assert (max(starts) - min(starts)).total_seconds() > 2.9 * HOUR
