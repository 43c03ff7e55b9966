"""Workers that come late, or that do not fit the study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from faults.promises import check
import optuna
import pytest
from samplers.parallel_worker import Log
import services
from zygote import Zygote


@pytest.fixture
def url(storage: str, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(storage, tmp_path) as url:
        yield url


def fast_on(fast: str) -> pytest.MarkDecorator:
    """On every storage; on others than this one among the slow tests."""
    found = [
        pytest.param(storage, marks=[] if storage == fast else pytest.mark.slow)
        for storage in ("journal", "postgresql")
    ]
    return pytest.mark.parametrize("storage", found)


def states(url: str) -> list[str]:
    study = optuna.load_study(storage=services.open_as_users_do(url), study_name="study")
    return [trial.state.name for trial in study.trials]


@fast_on("journal")
def test_who_comes_when_all_is_done_ends_at_once(zygote: Zygote, url: str, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    common = {"url": url, "log": str(log.path), "name": "basic"}
    first = zygote.start("faults.fault_worker:work", **common)
    zygote.join(first)
    before = check(url, log, "basic")
    zygote.join(zygote.start("faults.fault_worker:work", **common))
    after = check(url, log, "basic")
    assert len(after) == len(before)
    assert {line["pid"] for line in log.read("begin")} == {first}


@fast_on("postgresql")
def test_who_comes_late_goes_on_where_the_others_are(
    zygote: Zygote, url: str, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    common = {"url": url, "log": str(log.path), "name": "exhaustive"}
    first = zygote.start("faults.fault_worker:work", **common, seconds=0.04)
    while len(log.read("told", pid=first)) < 4:
        assert not zygote.has_ended(first)
    late = zygote.start("faults.fault_worker:work", **common, seconds=0.0)
    zygote.join(first, late)
    check(url, log, "exhaustive")
    assert log.read("start", pid=late)


@fast_on("journal")
def test_another_space_is_refused_and_disturbs_no_worker(
    zygote: Zygote, url: str, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    common = {"url": url, "log": str(log.path)}
    first = zygote.start("faults.fault_worker:work", **common, name="basic", seconds=0.04)
    while not log.read("told", pid=first):
        assert not zygote.has_ended(first)
    # The space of this strategy has other ops.
    other = zygote.start("faults.fault_worker:work", **common, name="exhaustive")
    with pytest.raises(AssertionError, match="was started with another tuning space: .*op3"):
        zygote.join(other)
    zygote.join(first)
    check(url, log, "basic")


@fast_on("journal")
def test_another_model_is_refused_and_another_criterion_told(
    zygote: Zygote, url: str, tmp_path: Path
) -> None:
    log = Log(tmp_path / "log")
    common = {"url": url, "log": str(log.path)}

    def start(**kwargs: object) -> int:
        return zygote.start("faults.fault_worker:tune_fake", **common, **kwargs)

    zygote.join(start())
    (said,) = log.read("result")
    assert said["warnings"] == []
    count = len(states(url))
    with pytest.raises(AssertionError, match="was started with another model"):
        zygote.join(start(model="another"))
    assert len(states(url)) == count
    late = start(tolerable_loss=0.04)
    zygote.join(late)
    (said,) = log.read("result", pid=late)
    assert any("was started with another criterion" in text for text in said["warnings"])
    # The same search, once more: nothing is left to do.
    count = len(states(url))
    again = start()
    zygote.join(again)
    assert len(states(url)) == count
    assert not log.read("evaluation", pid=again)
