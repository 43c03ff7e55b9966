"""Several processes on one study: nothing twice, the same work and answer as one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.trial import TrialState
import pytest
from samplers.parallel_worker import ENUMERATING
from samplers.parallel_worker import LEARNING
from samplers.parallel_worker import NAMES
from samplers.parallel_worker import OTHERS
from samplers.parallel_worker import WITH_BLOCKS
from samplers.parallel_worker import Log
from samplers.parallel_worker import answer
from samplers.parallel_worker import evaluated
from samplers.parallel_worker import key_of
from samplers.parallel_worker import sampler_of
from samplers.parallel_worker import undisturbed
import services
from zygote import Zygote

from optuna_quant.samplers import strategies
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


pytestmark = pytest.mark.slow


WORKERS = 4
SPECULATING = ["basic"]
# All strategies in a journal; in the others one of each kind, since a strategy knows no storage.
OF_EACH_KIND = ["basic", "random", "auto"]
NAMES_BY_KIND = {kind: OF_EACH_KIND for kind in services.STORAGES} | {"journal": NAMES}


@pytest.fixture(params=services.STORAGES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(kind, tmp_path) as url:
        yield url


def test_every_strategy_is_tested() -> None:
    ours = {n for n, c in strategies().items() if c.__module__.startswith("optuna_quant.")}
    assert {name.removesuffix(WITH_BLOCKS) for name in (*NAMES, *OTHERS)} == ours


def test_four_processes_do_what_one_does(
    zygote: Zygote, kind: str, url: str, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    cases = [(name, "wait") for name in NAMES_BY_KIND[kind]]
    cases += [(name, "speculate") for name in SPECULATING]
    workers = [
        zygote.start(
            "samplers.parallel_worker:work_through",
            url=url,
            log=str(log.path),
            cases=cases,
            workers=WORKERS,
            seconds=0.02,
        )
        for _ in range(WORKERS)
    ]
    zygote.join(*workers)
    storage = services.open_as_users_do(url)
    for name, when_blocked in cases:
        space, sampler = sampler_of(name, when_blocked=when_blocked)
        study = optuna.load_study(
            storage=storage, study_name=f"{name} {when_blocked}", sampler=sampler
        )
        _check_alone(study, log)
        most = _most_at_once(study, log)
        assert most == WORKERS if name in ENUMERATING else most > 1, study.study_name
        done, found = undisturbed(name)
        if name in LEARNING:
            assert len(answer(study, space, sampler)) == len(found), name
        else:
            assert {key_of(space, trial) for trial in study.trials} >= done, name
            if when_blocked == "wait":
                assert evaluated(study, space) == done, name
            assert answer(study, space, sampler) == found, name
        assert sampler.is_exhausted(study)
        assert all(key_of(space, trial) for trial in study.trials)
    assert {line["pid"] for line in log.read("begin")} == set(workers)


def _check_alone(study: optuna.Study, log: Log) -> None:
    """Nothing was evaluated twice."""
    trials = study.get_trials(deepcopy=False)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    last = {t.number for t in trials if TrialView(t).claim.stage == record.EXHAUSTED_STAGE}
    started = log.read("begin", study=study.study_name)
    assert {line["number"] for line in started} == {trial.number for trial in trials}
    counts = Counter(line["key"] for line in started if line["number"] not in last)
    assert set(counts.values()) == {1}, study.study_name


def _most_at_once(study: optuna.Study, log: Log) -> int:
    """How many evaluations ran at the same time, at most."""
    started = log.read("begin", study=study.study_name)
    ends = {line["number"]: line["time"] for line in log.read("end", study=study.study_name)}
    spans = [(line["time"], ends[line["number"]]) for line in started]
    return max(sum(start <= at < end for start, end in spans) for at, _ in spans)
