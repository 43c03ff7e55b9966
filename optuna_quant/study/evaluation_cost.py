"""Count how much a search has evaluated, in full-evaluation equivalents."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant._optuna import study_system_attrs
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.blobs import find_bytes
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views


if TYPE_CHECKING:
    import optuna


def full_evaluations(study: optuna.Study) -> float:
    """The samples that were run through models, over the number of evaluation samples.

    Args:
        study:
            The study. A trial that took over another one's result counts nothing, one that was
            evaluated in full 1, the FP32 baseline included, and one that was stopped before
            counts for the part of the samples that it has seen itself. What failed does not
            count. A model that was simulated first counts for both. The second evaluation of an
            answer counts as well (:func:`second_evaluations`), and so does what the sensitivities
            of the default strategy have run (:func:`sensitivity_evaluations`).
    """
    trials = views(study)
    baseline = get_baseline(study)
    total = sum(map(_cost, trials))
    if baseline is not None and baseline.trial is not None:
        view = trials[baseline.trial]
        is_its_own = view.is_baseline or view.is_constrained_as_fp32
        total += not is_its_own  # Measured beside the trial's own configuration.
    return total + second_evaluations(study) + sensitivity_evaluations(study)


def sensitivity_evaluations(study: optuna.Study) -> float:
    """What the sensitivities of ops in their options have cost, in full-evaluation equivalents.

    Args:
        study:
            The study. Each forward and each backward pass of a sample counts as one sample; where
            the number of evaluation samples is not known (``evaluate`` gives one number), nothing
            is counted.
    """
    found = (view.evidence for view in views(study))
    samples = max((evidence.of for evidence in found if evidence is not None), default=0)
    return sensitivity_passes(study) / samples if samples else 0.0


def sensitivity_passes(study: optuna.Study) -> float:
    """How many samples were run through models to score ops in their options."""
    found = [*_stored(study, record.OPTION_SCORES), *_stored(study, record.RECIPE_CHOICE)]
    return float(sum(json.loads(value)["passes"] for value in found))


def second_evaluations(study: optuna.Study) -> float:
    """What evaluating answers a second time has cost, in full-evaluation equivalents.

    Args:
        study:
            The study. Where a few samples have shown that nothing is random, they are all that
            counts.
    """
    found = _stored(study, record.SECOND_EVALUATION)
    return float(sum(json.loads(value)["evaluated"] for value in found))


def _stored(study: optuna.Study, prefix: str) -> list[bytes]:
    """The values that a study keeps under names with a prefix and a digest."""
    attrs = study_system_attrs(study)
    pattern = re.compile(rf"optuna_quant:({prefix}:[0-9a-f]+)")
    names = [found[1] for found in map(pattern.fullmatch, attrs) if found]
    values = (find_bytes(attrs, name) for name in names)
    return [value for value in values if value is not None]


def _cost(view: TrialView) -> float:
    if view.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return 0.0
    evidence = view.evidence
    if evidence is not None:
        return evidence.cost + view.simulated_evaluations
    return 0.0 if view.reused_from is not None else 1.0 + view.simulated_evaluations
