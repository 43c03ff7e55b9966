"""One trial, from its configuration to the judgement: what was found is written to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna_quant.evaluation.candidate_measurement import CandidateError
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.trial_record import TrialRecord
from optuna_quant.evaluation.trial_record import fail
from optuna_quant.study.enqueued import why_not
from optuna_quant.study.judgement import judge
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.started_trial import StartedTrial
from optuna_quant.study.trial_writer import RunningTrialWriter


if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from optuna_quant.backends.base import Model
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.baseline_measurement import BaselineMeasurement
    from optuna_quant.evaluation.candidate_measurement import CandidateMeasurement
    from optuna_quant.evaluation.running_trials import RunningTrials
    from optuna_quant.evaluation.setup import ObjectiveSetup
    from optuna_quant.space.config import QuantConfig


class TrialEvaluation:
    """Evaluates what trials ask for, the FP32 model or a candidate, and judges them.

    Args:
        setup:
            The settings of the objective.
        baseline:
            Measures the baseline.
        candidates:
            Measures candidates.
        running:
            The trials of this process.
        judged_by:
            Gives the criterion that trials of a study note, if it is not the study's.
        constrain:
            Whether what does not meet the criterion is infeasible.
        started:
            Called with the study, the number of a trial and its configuration when it starts.
        on_met:
            Called with a trial and its model, as it is deployed, when it meets the criterion.
    """

    def __init__(
        self,
        setup: ObjectiveSetup,
        baseline: BaselineMeasurement,
        candidates: CandidateMeasurement,
        running: RunningTrials,
        *,
        judged_by: Callable[[optuna.Study], AccuracyCriterion | None],
        constrain: bool,
        started: Callable[[optuna.Study, int, QuantConfig], None] | None,
        on_met: Callable[[optuna.Trial, Model], None] | None,
    ) -> None:
        self._setup = setup
        self._baseline = baseline
        self._candidates = candidates
        self._running = running
        self._judged_by = judged_by
        self._constrain = constrain
        self._started = started
        self._on_met = on_met
        self._kept_calibrations: set[str] = set()

    def run(self, trial: optuna.Trial, *, again: bool) -> float:
        """Evaluate what a trial asks for, and write what was found to the trial.

        Args:
            trial:
                The trial.
            again:
                Whether to evaluate its model even if another configuration gave the same one.

        Returns:
            The metric; NaN if there is none, with the reason in the trial.

        Raises:
            BaselineError:
                If the FP32 model cannot be evaluated.
            optuna.TrialPruned:
                If its evaluation ended early.
        """
        setup, study = self._setup, trial.study
        config = self._configuration(trial)
        if config is None:
            return math.nan
        if self._started is not None:
            self._started(study, trial.number, config)
        written = TrialRecord(trial, config, setup.costs)
        written.begin()
        waiting = self._running.waiting(study)
        if config == setup.fp32:
            value = self._baseline.of_fp32(trial, written, waiting)
            self._judge(trial, value, self._baseline.value(trial, waiting), is_quantized=False)
            return value
        # First, if no other worker does: a wrong evaluation shows at once.
        baseline = self._baseline.value(trial, waiting, block=False)
        # Not inside the trial's own errors: unusable calibration data end the search.
        share_calibration(
            study,
            setup.backend,
            config=config,
            artifact_store=setup.artifact_store,
            kept=self._kept_calibrations,
        )
        try:
            found = self._candidates.measure(trial, config, written, waiting, again=again)
        except CandidateError as error:
            written.fail(str(error), final=error.final)
            return math.nan
        if math.isnan(baseline):
            baseline = self._baseline.value(trial, waiting)
        # What was built counts: a backend may not have done what was asked.
        is_fp32 = written.fingerprint == setup.backend.fingerprint(setup.fp32)
        is_quantized = bool(config.quantized_ops) and not is_fp32
        met = self._judge(trial, found.metric, baseline, is_quantized=is_quantized)
        if met and found.model is not None and self._on_met is not None:
            self._on_met(trial, found.model)
        return found.metric

    def _configuration(self, trial: optuna.Trial) -> QuantConfig | None:
        """What the trial asks for; :obj:`None`, with the reason in the trial, if there is none."""
        try:
            return self._setup.space.suggest(trial)
        except ValueError:
            fixed = StartedTrial.of_running(trial).fixed_params
            reason = why_not(fixed, self._setup.space)
            if reason is None:
                raise
            fail(trial, reason, final=True)
            return None

    def _judge(
        self, trial: optuna.Trial, value: float, baseline: float, *, is_quantized: bool
    ) -> bool:
        """Write the judgement; whether the trial meets the criterion."""
        judgement = judge(
            value,
            baseline,
            self._setup.criterion,
            is_quantized=is_quantized,
            judged_by=self._judged_by(trial.study),
        )
        write_judgement(judgement, RunningTrialWriter(trial), constrain=self._constrain)
        return judgement.met is True
