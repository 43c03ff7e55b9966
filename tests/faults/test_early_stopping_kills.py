"""Workers that are killed while they evaluate sample by sample: only that trial is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
import signal
from typing import Any

import optuna
from optuna.trial import TrialState
import pytest
from sample_models import CRITERION
from sample_models import DAMAGE
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import answers
from sample_models import backend_of
from sample_models import sampler_of
from sample_models import search
from samplers.parallel_worker import LEARNING
from samplers.parallel_worker import Log
import services
from zygote import Zygote

from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.study import record


pytestmark = pytest.mark.slow


STRATEGIES = ["basic", "auto", "random"]


@pytest.fixture(params=["sqlite", "journal"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with services.storage_url(request.param, tmp_path) as url:
        yield url


def study_of(name: str, storage: Any = None) -> optuna.Study:
    backend = backend_of()
    return optuna.create_study(
        storage=storage,
        study_name="study",
        direction="maximize",
        sampler=sampler_of(name, backend),
        load_if_exists=True,
    )


def alone(name: str) -> set[str]:
    """The answers of one worker that nothing befalls."""
    backend = backend_of()
    study = study_of(name)
    evaluation = SampleScores(DAMAGE)
    objective = QuantObjective(
        backend, backend.tuning_space(), evaluation, CRITERION, stopping=STOPPING
    )
    search(study, objective)
    return answers(study, backend)


def repeated(log: Log, dead: set[int]) -> Counter[tuple[str, int]]:
    """How often samples of models were evaluated by workers that still lived."""
    return Counter(
        (line["model"], index)
        for line in log.read("samples")
        if line["pid"] not in dead
        for index in line["indices"]
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_worker_loses_only_its_trial(
    zygote: Zygote, url: str, tmp_path: Path, name: str
) -> None:
    log = Log(tmp_path / "log")
    dead = set()
    # One after the other, each in the middle of some trial.
    for kill_at in (100, 200, 300):
        pid = zygote.start(
            "sample_models:work", url=url, log=str(log.path), name=name, kill_at=kill_at
        )
        assert zygote.join(pid) == [-signal.SIGKILL]
        dead.add(pid)
    last = zygote.start("sample_models:work", url=url, log=str(log.path), name=name)
    assert zygote.join(last) == [0]
    study = study_of(name, services.open_storage(url))
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert len(failed) == len(dead)
    # Of what the dead have evaluated only their last trial is evaluated again.
    samples = Counter(
        (line["model"], index) for line in log.read("samples") for index in line["indices"]
    )
    lost = {trial.user_attrs[record.FINGERPRINT] for trial in failed}
    twice = {model for (model, _), count in samples.items() if count > 1}
    assert twice <= lost
    assert max(samples.values()) <= 1 + len(dead)
    assert max(repeated(log, dead).values()) == 1
    assert answers(study, backend_of()) == alone(name)
    assert study.sampler.is_exhausted(study)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_others_go_on(zygote: Zygote, url: str, tmp_path: Path, name: str) -> None:
    log = Log(tmp_path / "log")
    common: dict[str, Any] = {"url": url, "log": str(log.path), "name": name, "seconds": 0.002}
    dying = [zygote.start("sample_models:work", **common, kill_at=at) for at in (150, 600)]
    living = [zygote.start("sample_models:work", **common) for _ in range(2)]
    statuses = zygote.join(*dying)
    assert set(statuses) <= {0, -signal.SIGKILL}  # The others may have left them nothing.
    dead = {pid for pid, status in zip(dying, statuses, strict=True) if status}
    assert zygote.join(*living) == [0, 0]
    study = study_of(name, services.open_storage(url))
    # A guess may have died after the others had found that nothing is left.
    assert study.sampler.is_exhausted(study)  # type: ignore[union-attr]
    assert sum(trial.state == TrialState.FAIL for trial in study.trials) == len(dead)
    assert max(repeated(log, dead).values()) == 1
    found = answers(study, backend_of())
    # What a strategy that learns tries depends on who else is at work.
    assert len(found) == 1 if name in LEARNING else found == alone(name)
