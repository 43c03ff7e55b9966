"""Check the record of an existing study for damage before it is continued."""

from __future__ import annotations

from collections.abc import Mapping
import math
import re
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant._common.rounding import ROUNDING
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.blobs import find_bytes
from optuna_quant.study.errors import DamagedRecordError
from optuna_quant.study.population_record import read_population
from optuna_quant.study.record_kinds import Check
from optuna_quant.study.record_kinds import are_costs
from optuna_quant.study.record_kinds import are_reports
from optuna_quant.study.record_kinds import has
from optuna_quant.study.record_kinds import is_checkpoint
from optuna_quant.study.record_kinds import is_claim
from optuna_quant.study.record_kinds import is_count
from optuna_quant.study.record_kinds import is_evidence
from optuna_quant.study.record_kinds import is_finite
from optuna_quant.study.record_kinds import is_flag
from optuna_quant.study.record_kinds import is_number
from optuna_quant.study.record_kinds import is_simulation
from optuna_quant.study.record_kinds import is_text
from optuna_quant.study.record_kinds import is_texts
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.sequential import Population
    from optuna_quant.space.space import TuningSpace


_OURS = "optuna_quant:"
_PROTOCOL = "optuna_quant:protocol"
_CONSTRAINTS = "constraints:"
_TEXTS = ("optuna_quant:signature", "optuna_quant:evaluation")
_PIECE = re.compile(r":[0-9a-f]{8}:\d+$")


def check_record(study: optuna.Study) -> None:
    """Refuse a study whose record was damaged.

    Checked are the kinds and ranges of what is read, and that values agree that were written
    together: the baseline with the scores that are kept beside it and with its trial, the metric
    of a trial with the scores of its samples, a decision with its constraint, digests with what
    they are of.

    Raises:
        DamagedRecordError:
            If a value cannot be what was written; it names the study, the attribute and the cure.
    """
    try:
        _check(study)
    except DamagedRecordError:
        # A process that restarts the study at this moment leaves a mixture of two.
        _check(study)


def _check(study: optuna.Study) -> None:
    # First the study: what it refers to is there by then, whatever others write meanwhile.
    user, system = study.user_attrs, _optuna.study_system_attrs(study)
    trials = _optuna.all_trials(study)
    _check_study(study.study_name, user, system, len(trials))
    population = read_population(study)
    for trial in trials:
        _check_trial(_Trial(study.study_name, trial, len(trials), population))
    _check_baseline(study, trials, population)


def check_fallback_ops(study: optuna.Study, space: TuningSpace) -> None:
    """Refuse a study whose trials do not count their ops in fallback right.

    By that number the best is chosen.

    Args:
        study:
            The study.
        space:
            The tuning space that it was started with.

    Raises:
        DamagedRecordError:
            If a number is not that of the trial's parameters.
    """
    for trial in _optuna.all_trials(study):
        recorded = trial.user_attrs.get(record.FALLBACK_OPS)
        if recorded is None or trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        if space.key_from_params(trial.params) is None:  # It is of another space.
            continue
        count = len(space.config_from_params(trial.params).fallback_ops)
        if recorded != count:
            raise DamagedRecordError(
                study.study_name,
                record.FALLBACK_OPS,
                f"is {recorded}, but by its parameters the trial has {count}",
                trial=trial.number,
            )


def _check_study(
    name: str, user: Mapping[str, Any], system: Mapping[str, Any], trials: int
) -> None:
    for attribute in _TEXTS:
        value = user.get(attribute)
        if value is not None and not is_texts(value):
            raise DamagedRecordError(
                name, attribute, f"is not a dictionary of strings: {_shown(value)}"
            )
    criterion = user.get(record.CRITERION)
    if criterion is not None:
        try:
            AccuracyCriterion(**criterion)
        except (TypeError, ValueError) as error:
            raise DamagedRecordError(
                name, record.CRITERION, f"is not a criterion: {_shown(criterion)}"
            ) from error
    baseline = user.get(record.BASELINE)
    if baseline is not None:
        what = _wrong_baseline(baseline, trials)
        if what is not None:
            raise DamagedRecordError(name, record.BASELINE, what)
    for attribute, value in system.items():
        if not attribute.startswith(_OURS) or _PIECE.search(attribute):
            continue
        if attribute == _PROTOCOL:
            fits = has(value, protocol=is_count, version=is_text)
        elif attribute == record.HOLDOUT_SPLIT:
            fits = has(value, fraction=is_finite, seed=is_count, samples=is_count, digest=is_text)
        elif attribute in (record.DYNAMIC_BATCH_SIZE, record.FAILURES_FROM):
            fits = is_count(value)
        elif ":claim:" in attribute:
            fits = value is None or has(
                value, id=is_text, worker=is_text, position=is_count, heartbeat=is_count
            )
        else:
            find_bytes(system, attribute.removeprefix(_OURS), study_name=name)
            fits = True
        if not fits:
            raise DamagedRecordError(name, attribute, f"is {_shown(value)}")


def _wrong_baseline(stored: Any, trials: int) -> str | None:
    if not has(stored, value=is_finite, trial=lambda t: t is None or is_count(t)):
        return f"must hold a finite value and a trial, but is {_shown(stored)}"
    if stored["trial"] is not None and stored["trial"] >= trials:
        return f"names trial {stored['trial']}, but there are {trials}"
    population = stored.get("population")
    if population is not None and not isinstance(population, str):
        return f"names the samples {_shown(population)}"
    digest = stored.get("digest")
    if digest is not None and digest != Baseline.from_attr(stored).digest:
        return (
            f"does not agree with its digest: value {stored['value']}, trial {stored['trial']} "
            "(optuna_quant.study.baseline.set_baseline sets another one)"
        )
    return None


def _check_baseline(
    study: optuna.Study, trials: list[FrozenTrial], population: Population | None
) -> None:
    baseline = get_baseline(study)
    if baseline is None:
        return
    if population is not None:
        mean = float(population.baseline.sum() / population.samples)
        if not _close(mean, baseline.value):
            raise DamagedRecordError(
                study.study_name,
                record.BASELINE,
                f"has the value {baseline.value!r}, but the scores kept beside it have the mean "
                f"{mean!r}",
            )
    if baseline.trial is None or baseline.trial >= len(trials):
        return
    trial = trials[baseline.trial]
    measured = trial.state == TrialState.COMPLETE and TrialView(trial).is_baseline
    if measured and trial.values and not _close(trial.values[0], baseline.value):
        raise DamagedRecordError(
            study.study_name,
            record.BASELINE,
            f"has the value {baseline.value!r}, but trial {trial.number}, which measured it, has "
            f"{trial.values[0]!r}",
        )


class _Trial:
    """One trial, and the values that its attributes must match."""

    def __init__(
        self, study_name: str, trial: FrozenTrial, trials: int, population: Population | None
    ) -> None:
        self.study_name = study_name
        self.trial = trial
        self.trials = trials
        self.population = population

    def damaged(self, attribute: str, what: str) -> DamagedRecordError:
        return DamagedRecordError(self.study_name, attribute, what, trial=self.trial.number)


def _check_trial(one: _Trial) -> None:
    trial = one.trial
    is_trial = lambda n: is_count(n) and n < one.trials  # noqa: E731 (beside its relatives)
    user: dict[str, Check] = {
        record.FINGERPRINT: is_text,
        record.REUSED_FROM: is_trial,
        record.CONTINUES: is_trial,
        record.EVIDENCE: is_evidence,
        record.FALLBACK_OPS: is_count,
        record.MODEL_BYTES: is_number,
        record.SIMULATED: is_simulation,
        record.COSTS: are_costs,
        record.MET: is_flag,
        record.LOSS: is_number,
        record.FAILURE: is_text,
        record.INTERRUPTED: is_flag,
        record.FAILURE_IS_FINAL: is_flag,
    }
    system: dict[str, Check] = {
        record.CLAIM: is_claim,
        record.WORKER: lambda w: has(w, number=is_count, worker=is_text),
        record.HEARTBEAT: lambda count: True,
        record.FAILED: is_flag,
        record.REPORTS: are_reports,
        record.CHECKPOINT: is_checkpoint,
        record.RESUMED: is_trial,
        f"{_CONSTRAINTS}{record.ACCURACY}": is_number,
        f"{_CONSTRAINTS}{record.QUANTIZED}": lambda value: value in (0, 1),
        f"{_CONSTRAINTS}{record.UNJUDGED}": lambda value: value == 1,
    }
    for attrs, checks in ((trial.user_attrs, user), (trial.system_attrs, system)):
        for attribute, check in checks.items():
            value = attrs.get(attribute)
            # A claim that was taken back is empty.
            is_absent = attribute not in attrs or (value is None and attribute == record.CLAIM)
            if not is_absent and (value is None or not check(value)):
                raise one.damaged(attribute, f"is {_shown(value)}")
    if not trial.state.is_finished():  # Its worker may be in the middle of writing them.
        return
    _check_agreement(one)
    if record.SCORES in trial.system_attrs:
        _check_scores(one)


def _check_agreement(one: _Trial) -> None:
    """Values of one trial that were written together."""
    trial = one.trial
    view = TrialView(trial)
    if not view.is_complete:
        return
    met, violation = view.met, view.violation
    if met is not None and violation is not None and met != (violation <= 0):
        raise one.damaged(record.MET, f"is {met}, but the constraint 'accuracy' is {violation!r}")
    quantized = trial.constraints.get(record.QUANTIZED)
    if quantized is None:
        return
    if view.is_baseline and quantized == 0:
        raise one.damaged(record.CLAIM, "is that of the FP32 model, but the model is quantized")
    # Without our objective it is the sampler that says what is quantized, and nothing else.
    if view.is_judged and (met is not None) != (quantized == 0):
        raise one.damaged(
            f"{_CONSTRAINTS}{record.QUANTIZED}",
            f"is {quantized}, which does not agree with the attribute 'met' ({met})",
        )


def _check_scores(one: _Trial) -> None:
    trial, population, view = one.trial, one.population, TrialView(one.trial)
    try:
        scores = view.scores
    except ValueError as error:
        raise one.damaged(record.SCORES, str(error)) from error
    evidence, reused = view.evidence, view.reused_from is not None
    if evidence is not None and not reused and evidence.samples != len(scores):
        raise one.damaged(
            record.EVIDENCE,
            f"is of {evidence.samples} samples, but the trial has seen {len(scores)}",
        )
    if population is None or view.population != population.key:
        return
    low, high = population.bounds
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    if len(scores) > population.samples:
        raise one.damaged(record.SCORES, f"has {len(scores)} of {population.samples} samples")
    if not ((scores >= low - slack) & (scores <= high + slack)).all():
        raise one.damaged(record.SCORES, f"has scores that are not within {low:g} to {high:g}")
    if trial.state == TrialState.COMPLETE and len(scores) == population.samples:
        in_order = np.empty(len(scores))
        in_order[population.order.indices] = scores
        mean = float(in_order.sum() / len(scores))
        if not _close(mean, trial.values[0]):
            raise one.damaged(
                record.SCORES, f"has the mean {mean!r}, but the metric is {trial.values[0]!r}"
            )


def _close(one: float, other: float) -> bool:
    return one == other or math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _shown(value: Any, most: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
