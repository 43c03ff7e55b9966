"""The end of a trial, as a sampler writes it: the baseline, and the criterion as a constraint."""

from __future__ import annotations

from dataclasses import replace
import time
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import propose_baseline
from optuna_quant.study.criterion import is_other_criterion
from optuna_quant.study.criterion import warn_of_other_criterion
from optuna_quant.study.foreign import warn_of_other_parameters
from optuna_quant.study.judgement import Judgement
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import StoredTrialWriter
from optuna_quant.workers.backoff import Backoff
from optuna_quant.workers.identity import is_this_process
from optuna_quant.workers.identity import this_worker


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.samplers._engine.session import StudySession
    from optuna_quant.space.config import QuantConfig


_logger = get_logger(__name__)

_BASELINE_TIMEOUT_SECONDS = 600.0


def conclude(
    study: optuna.Study,
    trial: FrozenTrial,
    state: TrialState,
    values: Sequence[float] | None,
    *,
    session: StudySession,
    constrains: Callable[[optuna.Study], bool],
) -> None:
    """Write what a trial's end says: that it failed, what the baseline is, or a constraint.

    May have to wait for the baseline.

    Args:
        study:
            The study.
        trial:
            The trial that ends.
        state:
            How it ends.
        values:
            What it found.
        session:
            The session of the sampler in the study; the trial's heartbeats end.
        constrains:
            Whether missing the criterion makes trials of a study infeasible.
    """
    try:
        config = _conclude(study, trial, state, values, session)
        if config is not None and values and constrains(study):
            _judge(study, trial, config, values[0], session)
        elif session.criterion is not None and session.gives_up_baseline(
            study, trial, state, values
        ):
            session.say_once("no baseline", lambda: _warn_of_no_baseline(study, session))
    finally:
        # Not before: it may have had to wait for the baseline.
        session.end(trial.number)


def _conclude(
    study: optuna.Study,
    trial: FrozenTrial,
    state: TrialState,
    values: Sequence[float] | None,
    session: StudySession,
) -> QuantConfig | None:
    """Write that a trial failed, or what the baseline is.

    Returns:
        The configuration of which it has found the metric; :obj:`None` if it has not.
    """
    space = session.space
    claimed = session.take_config(trial.number)
    if state == TrialState.FAIL:
        _optuna.set_trial_system_attr(study, trial, record.FAILED, True)
    key = space.key_from_params(trial.params)
    if state != TrialState.COMPLETE:
        return None
    if key is None or not values:
        if claimed is not None:
            session.say_once(
                "other parameters", lambda: warn_of_other_parameters(study, trial, space)
            )
        return None
    if key == space.fp32().key:
        propose_baseline(study, Baseline(values[0], trial.number))
    if claimed is not None and claimed.key == key:
        return claimed
    return space.config_from_params(trial.params)


def _judge(
    study: optuna.Study,
    trial: FrozenTrial,
    config: QuantConfig,
    metric: float,
    session: StudySession,
) -> None:
    """Write the criterion as a constraint if it is not there.

    A trial that cannot be judged is infeasible for Optuna, which would take it for the best.
    """
    # All trials have the same number of constraints: Optuna's GPSampler wants that.
    judgement = Judgement(is_quantized=bool(config.quantized_ops))
    criterion = session.criterion
    view = TrialView(trial)
    if criterion is not None and view.violation is None:
        baseline = _await_baseline(study, session)
        if baseline is None:
            judgement = replace(judgement, is_unjudged=True)
            if not session.owes_baseline():
                session.say_once("no baseline", lambda: _warn_of_no_baseline(study, session))
        else:
            violation = criterion.violation(metric, baseline.value)
            judgement = replace(judgement, violation=violation)
        if not view.is_judged and is_other_criterion(study, criterion):
            session.say_once("criterion", lambda: warn_of_other_criterion(study, criterion))
            judgement = replace(judgement, judged_by=criterion)
    write_judgement(judgement, StoredTrialWriter(study, trial))


def _warn_of_no_baseline(study: optuna.Study, session: StudySession) -> None:
    _logger.warning(
        f"No trial of the study {study.study_name!r} can be held against the criterion, so none "
        f"is feasible: it has no baseline, since {session.why_no_baseline(study)} "
        "optuna_quant.selection.best_met_trial then judges all trials, study.best_trial those "
        "that end afterwards."
    )


def _await_baseline(study: optuna.Study, session: StudySession) -> Baseline | None:
    """The baseline; waits while another worker that lives measures it.

    A thread of this process that has asked for it may itself wait for this one: not for ever.
    """
    deadline = time.monotonic() + _BASELINE_TIMEOUT_SECONDS
    backoff = Backoff()
    while (baseline := get_baseline(study)) is None:
        worker = session.who_measures(study)
        # What this very thread has asked for and not told cannot end while we wait.
        late = time.monotonic() > deadline
        if worker in (None, this_worker()) or (late and is_this_process(worker)):
            return get_baseline(study) or _baseline_of_record(study, session)
        backoff()
    return baseline


def _baseline_of_record(study: optuna.Study, session: StudySession) -> Baseline | None:
    """The baseline as another sampler's trial of the FP32 model has found it, now the study's."""
    found = session.history.fp32
    if found is None or found.value is None:
        return None
    return propose_baseline(study, Baseline(found.value, found.number))
