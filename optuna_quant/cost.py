"""How much a search has evaluated: in full-evaluation equivalents."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant import record
from optuna_quant._optuna import study_system_attrs
from optuna_quant.texts import find_bytes


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def full_evaluations(study: optuna.Study) -> float:
    """The samples that were run through models, over the number of evaluation samples.

    Args:
        study:
            The study. A trial that took over another one's result counts nothing, one that was
            evaluated in full 1, the FP32 baseline included, and one that was stopped before
            counts for the part of the samples that it has seen itself. What failed does not
            count. The second evaluation of an answer counts as well.
    """
    trials = study.get_trials(deepcopy=False)
    baseline = record.get_baseline(study)
    total = sum(map(_cost, trials))
    if baseline is not None and baseline.trial is not None:
        trial = trials[baseline.trial]
        is_its_own = record.is_baseline(trial) or trial.constraints.get(record.QUANTIZED, 0.0) > 0
        total += not is_its_own  # Measured beside the trial's own configuration.
    return total + _second_evaluations(study)


def _second_evaluations(study: optuna.Study) -> float:
    attrs = study_system_attrs(study)
    pattern = re.compile(rf"optuna_quant:({record.SECOND_EVALUATION}:[0-9a-f]+)")
    names = [found[1] for found in map(pattern.fullmatch, attrs) if found]
    values = (find_bytes(attrs, name) for name in names)
    return float(sum(json.loads(value)["evaluated"] for value in values if value is not None))


def _cost(trial: FrozenTrial) -> float:
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return 0.0
    evidence = trial.user_attrs.get(record.EVIDENCE)
    if evidence is not None:
        return float(evidence.get("evaluated", evidence["samples"]) / evidence["of"])
    return 0.0 if record.REUSED_FROM in trial.user_attrs else 1.0
