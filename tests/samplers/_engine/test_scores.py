"""Sensitivities are computed by one worker; another takes over if that one fails."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import pickle
import threading

import optuna
import pytest
from spaces import make_space

from optuna_quant import _optuna
from optuna_quant.samplers._engine.requests import Scoring
from optuna_quant.samplers._engine.scores import SensitivityCache
from optuna_quant.space.config import QuantConfig


CONFIG = make_space(2).default()
WANTED = Scoring(CONFIG, tuple(CONFIG.ops))
SCORES = {"op0": 1.0, "op1": 2.5}


class Slow:
    """A sensitivity that takes until it may end."""

    def __init__(self, error: str | None = None) -> None:
        self.started, self.may_end = threading.Event(), threading.Event()
        self._error = error

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        self.started.set()
        assert self.may_end.wait(60)
        if self._error:
            raise RuntimeError(self._error)
        return SCORES


def never(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    raise AssertionError("computed twice")


def at_work(study: optuna.Study, sensitivity: Slow) -> Callable[[], list[object]]:
    """Let another worker compute; what is returned lets it end and gives what came of it."""
    came: list[object] = []

    def work() -> None:
        try:
            came.append(SensitivityCache("mine", sensitivity).compute(study, WANTED))
        except RuntimeError as error:
            came.append(str(error))

    worker = threading.Thread(target=work)
    worker.start()
    assert sensitivity.started.wait(60)

    def end() -> list[object]:
        sensitivity.may_end.set()
        worker.join(60)
        return came

    return end


@pytest.fixture(params=["memory", "sqlite"])
def study(request: pytest.FixtureRequest, tmp_path: object) -> optuna.Study:
    url = None if request.param == "memory" else f"sqlite:///{tmp_path}/study.db"
    return optuna.create_study(storage=url)


def test_no_worker_waits_inside_for_another(study: optuna.Study) -> None:
    cache = SensitivityCache("mine", never)
    end = at_work(study, Slow())
    assert not cache.compute(study, WANTED)
    assert cache.read(study, WANTED) is None
    assert end() == [True]
    assert cache.compute(study, WANTED)
    assert cache.read(study, WANTED) == SCORES


def test_who_fails_is_replaced_at_once(study: optuna.Study) -> None:
    cache = SensitivityCache("mine", lambda config, ops: SCORES)
    end = at_work(study, Slow("no"))
    assert not cache.compute(study, WANTED)
    assert end() == ["no"]
    assert cache.compute(study, WANTED)
    assert cache.read(study, WANTED) == SCORES


def test_strategies_and_options_have_their_own_scores(study: optuna.Study) -> None:
    class Sensitivity:
        def __init__(self, key: str, score: float) -> None:
            self.key = key
            self._score = score

        def __call__(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
            return dict.fromkeys(ops, self._score)

    caches = [
        SensitivityCache("mine", Sensitivity("a", 1.0)),
        SensitivityCache("mine", Sensitivity("b", 2.0)),
        SensitivityCache("other", Sensitivity("a", 3.0)),
    ]
    for cache in caches:
        assert cache.compute(study, WANTED)
    assert [cache.read(study, WANTED)["op0"] for cache in caches] == [1.0, 2.0, 3.0]


def test_a_cache_that_has_seen_others_can_be_sent_to_another_process(
    study: optuna.Study,
) -> None:
    cache = SensitivityCache("mine", None)
    place = cache._place(study, WANTED)
    held = {"id": "far", "worker": "far b c d|1|1|1", "position": 1, "heartbeat": 0}
    _optuna.set_study_system_attr(study, f"optuna_quant:{place.name}:claim:far", held)
    other = SensitivityCache("mine", dict)
    assert not other.compute(study, WANTED)
    copy = pickle.loads(pickle.dumps(other))
    assert not copy.compute(study, WANTED)
