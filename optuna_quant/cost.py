"""How much a search has evaluated: in full-evaluation equivalents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant import record


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def full_evaluations(trials: Iterable[FrozenTrial]) -> float:
    """The samples that were run through models, over the number of evaluation samples.

    Args:
        trials:
            The trials of a study. One that took over another one's result counts nothing, one
            that was evaluated in full 1, the FP32 baseline included, and one that was stopped
            before counts for the part of the samples that it has seen itself.
    """
    return sum(map(_cost, trials))


def _cost(trial: FrozenTrial) -> float:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return 0.0
    evidence = trial.user_attrs.get(record.EVIDENCE)
    if evidence is not None:
        return float(evidence.get("evaluated", evidence["samples"]) / evidence["of"])
    return 0.0 if record.REUSED_FROM in trial.user_attrs else 1.0
