"""Measure the FP32 model, once per study."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
import math
import sys
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant.backends.base import ShowsInputs
from optuna_quant.backends.base import native_of
from optuna_quant.evaluation.asked_between_batches import AskedBetweenBatches
from optuna_quant.evaluation.backend_checks import check_built
from optuna_quant.evaluation.baseline_scores import measure_baseline
from optuna_quant.evaluation.data_checks import SeenInputs
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.given_scores import GivenScores
from optuna_quant.evaluation.user_code import shown
from optuna_quant.evaluation.value import as_metric
from optuna_quant.evaluation.value import for_fp32
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import ahead_of
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import propose_baseline
from optuna_quant.study.data_warnings import keep_warnings
from optuna_quant.study.errors import BaselineError


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Model
    from optuna_quant.evaluation.continued_study import ContinuedStudies
    from optuna_quant.evaluation.guarded import GuardedEvaluation
    from optuna_quant.evaluation.setup import ObjectiveSetup
    from optuna_quant.evaluation.study_samples import StudySamples
    from optuna_quant.evaluation.trial_record import TrialRecord
    from optuna_quant.study.waiting import Waiting


_logger = get_logger(__name__)


class BaselineMeasurement:
    """Measures the baseline of a study in one trial, while the others wait.

    Args:
        setup:
            What evaluates the FP32 model.
        samples:
            The samples of the studies.
        guarded:
            Runs evaluations.
        studies:
            Checks that the baseline which a study has is that of this evaluation.
    """

    def __init__(
        self,
        setup: ObjectiveSetup,
        samples: StudySamples,
        guarded: GuardedEvaluation,
        studies: ContinuedStudies,
    ) -> None:
        self._setup = setup
        self._samples = samples
        self._guarded = guarded
        self._studies = studies
        self._error: BaselineError | None = None

    @property
    def error(self) -> BaselineError | None:
        """Why the FP32 model could not be evaluated, if so."""
        return self._error

    def of_fp32(self, trial: optuna.Trial, written: TrialRecord, waiting: Waiting) -> float:
        """The metric of a trial whose own configuration is FP32.

        Args:
            trial:
                The trial.
            written:
                What it writes down.
            waiting:
                Says whether to wait.
        """
        value = self.value(trial, waiting, written=written)
        measured = get_baseline(trial.study)
        if measured is not None and measured.trial not in (None, trial.number):
            trial.set_user_attr(record.REUSED_FROM, measured.trial)
        return value

    def value(
        self,
        trial: optuna.Trial,
        waiting: Waiting,
        *,
        block: bool = True,
        written: TrialRecord | None = None,
    ) -> float:
        """The baseline; measured by this trial if it is elected.

        Args:
            trial:
                The trial that needs it.
            waiting:
                Says whether to wait.
            block:
                Whether to wait. Otherwise NaN if another trial is at it.
            written:
                What the trial writes down, if FP32 is its own configuration.

        Raises:
            BaselineError:
                If the FP32 model cannot be evaluated.
        """
        study = trial.study
        while True:
            baseline = get_baseline(study)
            if baseline is not None:
                self._studies.check_evaluation(study)
                return baseline.value
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if not waiting.is_for(ahead_of(trial.number, running, self._setup.fp32.key)):
                # Who measured it may have ended between the two looks.
                if get_baseline(study) is not None:
                    continue
                return self._measure(trial, written)
            if not block:
                return math.nan
            waiting.pause()

    def _measure(self, trial: optuna.Trial, written: TrialRecord | None) -> float:
        _logger.info("Measuring the baseline: the metric of the FP32 model.")
        setup, study = self._setup, trial.study
        model: Model | None = None
        try:
            model = built = setup.backend.quantize(setup.fp32)
            check_built(setup.backend, built)
            returned, population = self._guarded.run(
                trial,
                lambda check: self._evaluate(trial, built, check),
                can_be_asked=self._samples.can_stop(study),
                of_baseline=True,
            )
        except Exception as error:
            hint = _hint_of_arrays(error) or self._hint_of_model(error, model)
            self._error = BaselineError(
                f"The FP32 model could not be evaluated: {shown(error)}{hint}"
            )
            raise self._error from error
        value = self._checked(returned)
        if written is not None:
            written.describe(built)

        keep_warnings(study, getattr(setup.evaluate, "warnings", ()))

        def begin() -> None:
            self._samples.measured_here(study)
            self._studies.begin(study)

        measured = Baseline(value, trial.number, population)
        kept = propose_baseline(study, measured, before=begin)
        if kept is measured:
            self._studies.started(study)
        _logger.info(f"The metric of the FP32 model is {kept.value}.")
        return kept.value

    def _hint_of_model(self, error: Exception, model: Model | None) -> str:
        """What to do where a function takes what it is given for a model; empty otherwise."""
        is_of_types = isinstance(error, TypeError | AttributeError)
        if not is_of_types or not isinstance(self._setup.evaluate, FunctionEvaluation):
            return ""
        kind = type(native_of(model)).__name__
        if model is None or kind not in str(error):
            return ""
        return (
            f" (evaluate gets the {kind} that runs the model, and not the model itself: use it as "
            "it is.)"
        )

    def _checked(self, returned: object) -> float:
        criterion = self._setup.criterion
        try:
            value = as_metric(
                returned,
                higher_is_better=criterion.higher_is_better,
                what="The evaluation of the FP32 model",
            )
            criterion.check_baseline(value)
        except ValueError as error:
            raise BaselineError(str(error)) from None
        return value

    def _evaluate(
        self, trial: optuna.Trial, model: Model, check: Callable[[], None]
    ) -> tuple[Any, str | None]:
        """The metric, and the key under which the study keeps the scores of single samples."""
        evaluation: Any = for_fp32(self._setup.evaluate)
        if isinstance(evaluation, FunctionEvaluation):
            seen = SeenInputs()
            shown = model.showing_inputs(seen) if isinstance(model, ShowsInputs) else nullcontext()
            with shown:
                evaluation = evaluation.see_fp32(model)
            keep_warnings(trial.study, seen.warnings(self._setup.backend))
            if not isinstance(evaluation, GivenScores):
                return evaluation, None
            evaluation.warn(wants_bounds=self._samples.are_wanted)
        samples = self._samples.of(trial.study)  # Of a function it is known only now.
        if samples is None:
            is_given = isinstance(evaluation, GivenScores)
            return evaluation.mean if is_given else evaluation(model), None
        return measure_baseline(
            trial,
            model,
            AskedBetweenBatches(evaluation, check),
            self._setup.criterion,
            error_probability=samples.error_probability,
            method=samples.method,
            seed=self._setup.seed,
            watch=self._setup.watch,
        )


def _hint_of_arrays(error: Exception) -> str:
    """What to do where a function of torch was given arrays; empty if it is not that."""
    text = str(error)
    is_of_types = isinstance(error, TypeError | AttributeError) and "ndarray" in text
    if not is_of_types or "torch" not in sys.modules:
        return ""
    return (
        " (Outputs and labels are NumPy arrays: torch.from_numpy(...) makes a tensor of one, and "
        ".numpy() makes scores of a tensor.)"
    )
