"""A study is opened though other processes put new ones in its place."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from optuna_quant.tuning.opening import StudyOpener


def test_a_study_that_is_replaced_while_it_is_opened_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opener = StudyOpener(
        direction="maximize", sampler=optuna.samplers.RandomSampler(), split=None, batches=None
    )
    storage = optuna.storages.InMemoryStorage()
    real, calls = storage.get_study_directions, []

    def replaced_first(study_id: int) -> Any:
        calls.append(study_id)
        if len(calls) == 1:
            storage.delete_study(study_id)
        return real(study_id)

    monkeypatch.setattr(storage, "get_study_directions", replaced_first)
    assert opener.open(storage, "mine").study_name == "mine"
    assert calls[0] != calls[1]
