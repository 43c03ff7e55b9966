"""The end of a trial, as a sampler writes it: the baseline, and the criterion as a constraint."""

from __future__ import annotations

from dataclasses import replace
import time
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import propose_baseline
from optuna_quant.study.judgement import Judgement
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import StoredTrialWriter
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.identity import is_this_process
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.session import StudySession
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_BASELINE_TIMEOUT_SECONDS = 600.0


def conclude(
    study: optuna.Study,
    trial: FrozenTrial,
    state: TrialState,
    values: Sequence[float] | None,
    *,
    space: TuningSpace,
    session: StudySession,
) -> QuantConfig | None:
    """Write what a trial's end says of the study: that it failed, or what the baseline is.

    Args:
        study:
            The study.
        trial:
            The trial that ends.
        state:
            How it ends.
        values:
            What it found.
        space:
            The tuning space.
        session:
            The sampler at work in the study.

    Returns:
        The configuration of which it has found the metric; :obj:`None` if it has not.
    """
    config = session.take_config(trial.number)
    if state == TrialState.FAIL:
        _optuna.set_trial_system_attr(study, trial, record.FAILED, True)
    key = space.key_from_params(trial.params)
    if key is None or state != TrialState.COMPLETE or not values:
        return None
    if config is None or config.key != key:
        config = space.config_from_params(trial.params)
    if key == space.fp32().key:
        propose_baseline(study, Baseline(values[0], trial.number))
    return config


def judge(
    study: optuna.Study,
    trial: FrozenTrial,
    config: QuantConfig,
    metric: float,
    *,
    criterion: AccuracyCriterion | None,
    session: StudySession,
    fp32_key: str,
) -> None:
    """Write the criterion as a constraint if it is not there; may have to wait for the baseline.

    Args:
        study:
            The study.
        trial:
            The trial that ends.
        config:
            What it has evaluated.
        metric:
            What it has found.
        criterion:
            When a metric is good enough; :obj:`None` if the sampler does not know.
        session:
            The sampler at work in the study.
        fp32_key:
            The key of the FP32 configuration.
    """
    # What it does not say of quantized models is said by the objective, or is no constraint.
    judgement = Judgement(is_quantized=None if config.quantized_ops else False)
    if criterion is not None and TrialView(trial).violation is None:
        baseline = _await_baseline(study, session, fp32_key)
        if baseline is not None:
            violation = criterion.violation(metric, baseline.value)
            judgement = replace(judgement, violation=violation)
    write_judgement(judgement, StoredTrialWriter(study, trial))


def _await_baseline(study: optuna.Study, session: StudySession, fp32_key: str) -> Baseline | None:
    """The baseline; waits while another worker that lives measures it.

    A thread of this process that has asked for it may itself wait for this one: not for ever.
    """
    deadline = time.monotonic() + _BASELINE_TIMEOUT_SECONDS
    backoff = Backoff()
    while (baseline := get_baseline(study)) is None:
        worker = session.who_measures(study, fp32_key)
        # What this very thread has asked for and not told cannot end while we wait.
        late = time.monotonic() > deadline
        if worker in (None, this_worker()) or (late and is_this_process(worker)):
            return get_baseline(study)
        backoff()
    return baseline
