"""Evaluations that hang, in one of several processes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from itertools import product
import os
from pathlib import Path
import signal
import time

import optuna
from optuna.trial import TrialState
import pytest
from samplers.parallel_worker import Log
import services
from zygote import Zygote

from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


WORKER = "faults.hanging_worker:work"
BEST = ["b", "d"]
REASON = "it took longer than evaluation_timeout=0.3 s"
STORAGES = ["journal", "sqlite", "postgresql"]


@pytest.fixture
def url(storage: str, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(storage, tmp_path) as url:
        yield url


def on_all_storages(**hangs: str) -> pytest.MarkDecorator:
    """Every hang on every storage; among the fast tests, each storage with the hang given here."""
    found = [
        pytest.param(storage, hang, marks=[] if hang == hangs.get(storage) else pytest.mark.slow)
        for storage, hang in product(STORAGES, sorted({*hangs.values()}))
    ]
    return pytest.mark.parametrize(("storage", "hang"), found)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hung_trial(url: str) -> optuna.trial.FrozenTrial:
    study = optuna.load_study(storage=services.open_as_users_do(url), study_name="study")
    (trial,) = study.get_trials(states=(TrialState.FAIL,))
    return trial


@on_all_storages(journal="sleep", sqlite="lock", postgresql="child")
def test_candidate_that_hangs_is_ended_and_both_workers_find_the_answer(
    zygote: Zygote, url: str, tmp_path: Path, hang: str
) -> None:
    log = Log(tmp_path / "log")
    first = zygote.start(WORKER, url=url, log=str(log.path), hang=hang, timeout=0.3)
    wait_for(lambda: log.read("hangs"))
    second = zygote.start(WORKER, url=url, log=str(log.path))
    assert zygote.join(first, second) == [0, 0]
    results = log.read("result")
    assert [(line["met"], line["ops"]) for line in results] == 2 * [(True, BEST)]
    trial = hung_trial(url)
    assert trial.user_attrs[record.FAILURE] == f"Not evaluated: EvaluationTimeout: {REASON}"
    # It is not tried again.
    assert len(log.read("hangs")) == 1


@on_all_storages(journal="mutex")
def test_worker_that_does_not_react_holds_up_no_other(
    zygote: Zygote, url: str, tmp_path: Path, hang: str
) -> None:
    log = Log(tmp_path / "log")
    first = zygote.start(WORKER, url=url, log=str(log.path), hang=hang, timeout=0.3)
    wait_for(lambda: log.read("hangs"))
    second = zygote.start(WORKER, url=url, log=str(log.path))
    assert zygote.join(second) == [0]
    (result,) = log.read("result")
    assert (result["met"], result["ops"]) == (True, BEST)
    assert not zygote.has_ended(first)  # Nothing can end it from within.
    trial = hung_trial(url)
    assert trial.user_attrs[record.FAILURE] == f"Not evaluated: {REASON}"
    assert trial.user_attrs[record.FAILURE_IS_FINAL]
    assert len(log.read("evaluation", key=TrialView(trial).claim.key)) == 1  # type: ignore[union-attr]
    os.kill(first, signal.SIGKILL)
    assert zygote.join(first) == [-signal.SIGKILL]


@on_all_storages(sqlite="mutex", journal="sleep")
def test_fp32_model_that_hangs_with_one_worker_is_measured_by_another(
    zygote: Zygote, url: str, tmp_path: Path, hang: str
) -> None:
    log = Log(tmp_path / "log")
    first = zygote.start(WORKER, url=url, log=str(log.path), hang=hang, at="fp32", timeout=0.3)
    wait_for(lambda: log.read("hangs"))
    second = zygote.start(WORKER, url=url, log=str(log.path))
    assert zygote.join(second) == [0]
    (result,) = log.read("result")
    assert (result["met"], result["ops"]) == (True, BEST)
    if hang == "sleep":
        assert zygote.join(first) == [0]
        (error,) = log.read("error")
        assert error["text"] == (
            f"The FP32 model could not be evaluated: EvaluationTimeout: {REASON}"
        )
    else:
        os.kill(first, signal.SIGKILL)
        assert zygote.join(first) == [-signal.SIGKILL]


@on_all_storages(journal="sleep")
def test_thread_that_hangs_holds_up_neither_other_threads_nor_other_workers(
    zygote: Zygote, url: str, tmp_path: Path, hang: str
) -> None:
    log = Log(tmp_path / "log")
    first = zygote.start(WORKER, url=url, log=str(log.path), hang=hang, timeout=0.3, n_jobs=2)
    wait_for(lambda: log.read("hangs"))
    second = zygote.start(WORKER, url=url, log=str(log.path))
    assert zygote.join(second) == [0]
    (result,) = log.read("result")
    assert (result["met"], result["ops"]) == (True, BEST)
    os.kill(first, signal.SIGKILL)
    assert zygote.join(first) == [-signal.SIGKILL]
