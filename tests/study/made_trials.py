"""Trials that are made by hand, in any state and with any attributes."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState
from optuna.trial import create_trial

from optuna_quant.study import record


def trial_with(
    *,
    number: int = 0,
    state: TrialState = TrialState.COMPLETE,
    user: dict[str, Any] | None = None,
    system: dict[str, Any] | None = None,
) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        user_attrs=user or {},
        system_attrs=system or {},
    )
    trial.number = number
    return trial


def claimed(number: int, key: str, *, stage: str = "one", state: TrialState) -> FrozenTrial:
    claim = record.Claim(number, key, stage, f"host|{number}")
    return trial_with(number=number, state=state, system={record.CLAIM: claim.to_attr()})
