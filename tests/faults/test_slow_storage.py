"""A storage that answers slowly, sometimes for longer than others wait: nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from faults.promises import check
from optuna.trial import TrialState
import pytest
from samplers.parallel_worker import Log
import services
from zygote import Zygote


@pytest.fixture
def url(storage: str, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(storage, tmp_path) as url:
        yield url


@pytest.mark.parametrize(
    ("storage", "name"),
    [
        ("journal", "random"),
        ("postgresql", "basic"),
        pytest.param("journal", "basic", marks=pytest.mark.slow),
        pytest.param("postgresql", "random", marks=pytest.mark.slow),
    ],
)
def test_four_slow_workers_do_nothing_twice(
    zygote: Zygote, url: str, tmp_path: Path, name: str
) -> None:
    log = Log(tmp_path / "log")
    workers = [
        zygote.start(
            "faults.fault_worker:work",
            url=url,
            log=str(log.path),
            name=name,
            # One pause in twenty is longer than others wait for a trial that says nothing.
            slow=(0.005, 0.05, 0.1),
            options={"grace_period": 0.07},
        )
        for _ in range(4)
    ]
    zygote.join(*workers)
    trials = check(url, log, name)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({line["pid"] for line in log.read("begin")}) > 1
