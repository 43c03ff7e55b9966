"""Several processes on one study: nothing twice, the same work as one process, kill and resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import optuna
from optuna.trial import TrialState
import pytest
import services
from spaces import keys
from spaces import make_space

from optuna_quant import record
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.space import TuningSpace


WORKER = """
import sys
sys.path.insert(0, {tests!r})
from samplers.parallel_worker import work
work({url!r}, {name!r}, seconds={seconds!r}, when_blocked={when_blocked!r})
"""


def start(url: str, name: str, *, seconds: float, when_blocked: str = "wait") -> subprocess.Popen:
    tests = str(Path(__file__).parent.parent)
    code = WORKER.format(
        tests=tests, url=url, name=name, seconds=seconds, when_blocked=when_blocked
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def join(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors


@pytest.fixture(params=services.STORAGES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(request.param, tmp_path) as url:
        yield url


def undisturbed(name: str) -> list[str]:
    from samplers.parallel_worker import metric
    from samplers.parallel_worker import sampler_of

    space, sampler = sampler_of(name)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(lambda trial: metric(space.suggest(trial)), n_trials=1)
    return keys(study, space)


@pytest.mark.parametrize("name", ["basic", "exhaustive", "random"])
def test_four_processes_evaluate_what_one_does(name: str, url: str) -> None:
    from samplers.parallel_worker import sampler_of

    study = services.create(url)
    join([start(url, name, seconds=0.02) for _ in range(4)])
    space, sampler = sampler_of(name)
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    counts = Counter(space.key_from_params(trial.params) for trial in complete)
    assert set(counts.values()) == {1}
    assert set(undisturbed(name)) <= set(counts)
    workers = {record.claim_of(trial).worker for trial in complete}
    assert len(workers) == 4
    assert sampler.is_exhausted(study)


def test_waiting_workers_evaluate_nothing_else(url: str) -> None:
    study = services.create(url)
    join([start(url, "basic", seconds=0.02) for _ in range(4)])
    wanted = set(undisturbed("basic"))
    from samplers.parallel_worker import sampler_of

    space, _ = sampler_of("basic")
    extra = (record.EXHAUSTED_STAGE, record.SPARE_STAGE)
    strategy = [t for t in study.trials if record.claim_of(t).stage not in extra]
    assert {space.key_from_params(trial.params) for trial in strategy} == wanted


def test_kill_and_resume_gives_the_same_record(url: str) -> None:
    study = services.create(url)
    from samplers.parallel_worker import sampler_of

    space, _ = sampler_of("basic")
    for complete in (3, 9):
        worker = start(url, "basic", seconds=0.4)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            trials = study.get_trials(deepcopy=False)
            running = [t for t in trials if t.state == TrialState.RUNNING and t.params]
            if len(trials) > complete and running:
                break
            time.sleep(0.02)
        # A process that is killed while it writes leaves the journal's lock behind, which costs
        # Optuna half a minute; that is tested elsewhere.
        time.sleep(0.1)
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
    join([start(url, "basic", seconds=0.0)])
    done = [t for t in study.trials if t.state == TrialState.COMPLETE]
    order = [space.key_from_params(trial.params) for trial in done]
    assert order == undisturbed("basic")
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 2
    assert not any(t.state == TrialState.RUNNING for t in study.trials)


def test_a_trial_of_this_process_is_not_taken_for_dead(tmp_path: Path) -> None:
    space = make_space(3)
    study = optuna.create_study(direction="maximize", sampler=ExhaustiveQuantSampler(space))
    first = study.ask()
    study.sampler = ExhaustiveQuantSampler(space)
    study.ask()
    assert study.trials[first.number].state == TrialState.RUNNING


SAMPLERS: dict[str, type[QuantSampler]] = {
    "basic": BasicQuantSampler,
    "exhaustive": ExhaustiveQuantSampler,
    "random": RandomQuantSampler,
}


def test_worker_module_covers_all_samplers() -> None:
    from samplers.parallel_worker import sampler_of

    for name, kind in SAMPLERS.items():
        space, sampler = sampler_of(name)
        assert isinstance(space, TuningSpace)
        assert isinstance(sampler, kind)
