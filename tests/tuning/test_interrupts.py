"""Ctrl-C in any phase of a search."""

from __future__ import annotations

from typing import Any

from costed_backend import CostedBackend
from fake_backend import FakeModel
import optuna
import pytest

from optuna_quant.callbacks import StopReason
from optuna_quant.costs import Costs
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.space.space import TuningSpace
from optuna_quant.tuning import prepare as prepare_module
from optuna_quant.tuning import run as run_module
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.errors import TuningInterrupted


DAMAGE = {"a": 0.2, "b": 0.0, "c": 0.3}
TIMES = {"a": 0.5, "b": 0.5, "c": 0.5}
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


class Interrupted(CostedBackend):
    """Is interrupted while it measures what ops cost, the first time."""

    def costs(self, space: TuningSpace) -> Costs:
        found = super().costs(space)
        if self.calls["costs"] == 1:
            raise KeyboardInterrupt
        return found


def accuracy(model: FakeModel) -> float:
    return model.accuracy


def search(backend: CostedBackend, storage: optuna.storages.BaseStorage, **given: Any) -> Any:
    return tune(
        backend=backend,
        evaluate=accuracy,
        accuracy_criterion=CRITERION,
        storage=storage,
        measure_gain=False,
        **given,
    )


def test_an_interrupt_while_costs_are_measured_has_a_result() -> None:
    storage, backend = optuna.storages.InMemoryStorage(), Interrupted(DAMAGE, TIMES)
    with pytest.raises(TuningInterrupted, match="no model that meets the criterion") as raised:
        search(backend, storage)
    result = raised.value.result
    assert result is not None
    assert result.stopped_because == StopReason.INTERRUPTED
    assert result.trial is None
    assert not result.met
    told = str(result)
    assert told.startswith("NOT MET: no quantized model was evaluated.")
    assert "stopped: The search was interrupted while it looked at what ops cost." in told
    # The Python that shows it shows one frame of ours, and no cause.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    # The same call goes on.
    assert search(backend, storage).met


def test_an_interrupted_search_tells_what_an_earlier_one_has_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, backend = optuna.storages.InMemoryStorage(), CostedBackend(DAMAGE, TIMES)
    found = search(backend, storage)

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "optimize", interrupt)
    with pytest.raises(TuningInterrupted, match="had found a model") as raised:
        search(backend, storage)
    result = raised.value.result
    assert result is not None
    assert result.met
    assert result.trial == found.trial
    assert str(result).endswith("stopped: The search was interrupted.")


def test_a_study_that_leaves_out_ops_is_told_of_before_its_space_is_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, backend = optuna.storages.InMemoryStorage(), CostedBackend(DAMAGE, TIMES | {"c": 3.0})
    found = search(backend, storage, study_name="s")
    assert list(found.left_out) == ["c"]

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "decide_for", interrupt)
    with pytest.raises(TuningInterrupted) as raised:
        search(backend, storage, study_name="s")
    result = raised.value.result
    assert result is not None
    assert result.met
    assert result.config == found.config


def test_an_interrupt_before_there_is_a_study_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "as_objective", interrupt)
    with pytest.raises(TuningInterrupted, match="interrupted before it had started") as raised:
        search(
            CostedBackend(DAMAGE, TIMES), optuna.storages.InMemoryStorage(), objective="latency"
        )
    assert raised.value.result is None
