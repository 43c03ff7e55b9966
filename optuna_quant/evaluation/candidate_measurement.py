"""Measure a candidate: build it, then reuse a known result or evaluate it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
import re
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

from optuna.exceptions import TrialPruned
from optuna.logging import get_logger

from optuna_quant._common.steps import doing
from optuna_quant.backends.base import ModelLoadError
from optuna_quant.backends.base import SimulatesCandidates
from optuna_quant.backends.base import TrainingFunctionError
from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.evaluation.asked_between_batches import AskedBetweenBatches
from optuna_quant.evaluation.difference import difference_of
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.given_scores import GivenScores
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.rebuild import built
from optuna_quant.evaluation.sampled import furthest
from optuna_quant.evaluation.study_training import StudyTraining
from optuna_quant.evaluation.timeout import EvaluationTimeout
from optuna_quant.evaluation.trial_record import write_failure
from optuna_quant.evaluation.user_code import place
from optuna_quant.evaluation.user_code import shown
from optuna_quant.evaluation.value import as_metric
from optuna_quant.samplers._engine.contract import TellsNewConfigs
from optuna_quant.study import record
from optuna_quant.study.errors import TrainingError
from optuna_quant.study.simulation import Simulation
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import RunningTrialWriter


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    import optuna

    from optuna_quant.backends.base import CandidateModel
    from optuna_quant.backends.base import Model
    from optuna_quant.evaluation.baseline_measurement import BaselineMeasurement
    from optuna_quant.evaluation.guarded import GuardedEvaluation
    from optuna_quant.evaluation.model_reuse import ModelReuse
    from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
    from optuna_quant.evaluation.sampled import SampledTrial
    from optuna_quant.evaluation.setup import ObjectiveSetup
    from optuna_quant.evaluation.study_samples import StudySamples
    from optuna_quant.evaluation.trial_record import TrialRecord
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.study.simulation import OutputDifference
    from optuna_quant.study.waiting import Waiting


_logger = get_logger(__name__)

# Diverged: another configuration may train well.
_NOT_FINITE = re.compile(r"\b(nans?|infs?|infinit\w*|finite|diverge\w*)\b", re.IGNORECASE)


class CandidateError(Exception):
    """A candidate has no metric.

    Args:
        reason:
            Why.
        final:
            Whether evaluating its configuration again would fail in the same way.
    """

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True)
class MeasuredCandidate:
    """What was measured of a candidate.

    Args:
        metric:
            Its metric, over all samples.
        model:
            The model as it is deployed; None if it was not built, because the result is that of
            another trial, or because its simulation is all that was evaluated.
    """

    metric: float
    model: Model | None = None


class CandidateMeasurement:
    """Measures the model that a trial asks for.

    Args:
        setup:
            What builds and evaluates models.
        samples:
            The samples of the studies.
        guarded:
            Runs evaluations.
        baseline:
            Gives the metric of the FP32 model.
        reuse:
            Finds trials of the same model.
    """

    def __init__(
        self,
        setup: ObjectiveSetup,
        samples: StudySamples,
        guarded: GuardedEvaluation,
        baseline: BaselineMeasurement,
        reuse: ModelReuse,
    ) -> None:
        self._setup = setup
        self._samples = samples
        self._guarded = guarded
        self._baseline = baseline
        self._reuse = reuse
        self._can_train = False

    def measure(
        self,
        trial: optuna.Trial,
        config: QuantConfig,
        written: TrialRecord,
        waiting: Waiting,
        *,
        again: bool,
    ) -> MeasuredCandidate:
        """Measure a candidate.

        Args:
            trial:
                The trial.
            config:
                Its configuration.
            written:
                What it writes down.
            waiting:
                Says whether to wait for other trials.
            again:
                Whether to evaluate its model even if another configuration gave the same one.

        Raises:
            CandidateError:
                If it has none.
            TrainingError:
                If the user's training fails before it has trained any model.
            optuna.exceptions.TrialPruned:
                If enough is known before all samples were seen.
        """
        duplicate = self._reuse.same_parameters(trial) if _may_be_known(trial) else None
        if duplicate is not None:
            return MeasuredCandidate(self._reuse.take_over(trial, written, duplicate))
        with self._trained(trial, config) as trained:
            model = self._build(config) if trained is None else trained
            written.describe(model)
            # What is trained is the model of no other trial, so none is waited for.
            if trained is None and not again:
                duplicate = self._reuse.same_model(trial, model.fingerprint, waiting)
            if duplicate is not None:
                return MeasuredCandidate(self._reuse.take_over(trial, written, duplicate))
            metric = self._evaluated(trial, model, waiting)
            found = self._as_built(trial, config, model, metric, waiting)
        self._reuse.keep(trial, found.metric)
        return found

    @contextmanager
    def _trained(
        self, trial: optuna.Trial, config: QuantConfig
    ) -> Iterator[CandidateModel | None]:
        """The model that a trial has trained; None if none is trained for its configuration.

        Checkpoints are kept until the trial has its result.
        """
        backend = self._setup.backend
        if not isinstance(backend, TrainsCandidates) or not backend.trains(config):
            yield None
            return
        found: list[StudyTraining] = []

        def train(check: Callable[[], None]) -> CandidateModel:
            setup = self._setup
            found.append(StudyTraining(trial, setup.space, setup.artifact_store, check))
            return backend.trained(config, found[0])

        try:
            try:
                with doing("Training the model of a trial"):
                    model = self._guarded.run(trial, train, can_be_asked=False)
            except TrialPruned:
                self._can_train = True
                raise
            except KeyboardInterrupt:
                trial.set_user_attr(record.INTERRUPTED, True)  # It is no failure of the model.
                raise
            except Exception as error:
                raise self._why_not_trained(error, trial) from _cause(error)
            self._can_train = True
            yield model
        except TrialPruned:
            found[0].discard()
            raise
        found[0].discard()

    def _why_not_trained(
        self, error: Exception, trial: optuna.Trial
    ) -> CandidateError | TrainingError:
        """Why a model was not trained; the first training tells whether the function works."""
        cause = _cause(error)
        where = f"{shown(cause)}{place(cause)}"
        late = isinstance(cause, EvaluationTimeout)
        is_overflow = isinstance(cause, FloatingPointError | OverflowError)
        diverged = is_overflow or _NOT_FINITE.search(str(cause)) is not None
        is_users = isinstance(error, TrainingFunctionError)
        if self._can_train or late or diverged or not is_users:
            return CandidateError(f"Not trained: {where}", final=late)
        write_failure(RunningTrialWriter(trial), f"Not trained: {where}", final=False)
        return TrainingError(
            f"train, which is to train the model of each trial, failed in the first one: {where}."
        )

    def _build(self, config: QuantConfig) -> CandidateModel:
        backend = self._setup.backend
        try:
            if isinstance(backend, SimulatesCandidates):
                return backend.simulated(config)
            return backend.quantize(config)
        except Exception as error:
            raise CandidateError(f"Not built: {shown(error)}", final=True) from error

    def _as_built(
        self,
        trial: optuna.Trial,
        config: QuantConfig,
        evaluated_model: CandidateModel,
        metric: float,
        waiting: Waiting,
    ) -> MeasuredCandidate:
        """The model itself and its metric, where a simulation of it meets the criterion."""
        backend, criterion = self._setup.backend, self._setup.criterion
        if not isinstance(backend, SimulatesCandidates):
            is_trained = isinstance(backend, TrainsCandidates) and backend.trains(config)
            # What quantize has given, if it was not trained, can be saved.
            deployed = None if is_trained else cast("Model", evaluated_model)
            return MeasuredCandidate(metric, deployed)
        if not criterion.meets(metric, self._baseline.value(trial, waiting)):
            return MeasuredCandidate(metric)
        evidence = TrialView.of_running(trial).evidence
        evaluated = 1.0 if evidence is None else evidence.cost
        try:
            model = built(config, trial.params, backend, self._setup.space)
        except Exception as error:
            raise CandidateError(f"Not built: {shown(error)}", final=True) from error
        difference = self._difference(evaluated_model, model)
        measure = self._setup.evaluate
        if difference is not None and isinstance(measure, DataEvaluation):
            evaluated += 2 * difference.samples / measure.samples
        found = Simulation(metric=metric, evaluated=evaluated, difference=difference)
        trial.set_user_attr(record.SIMULATED, found.to_attr())
        return MeasuredCandidate(self._evaluated(trial, model, waiting, in_full=True), model)

    def _difference(self, simulated: CandidateModel, model: Model) -> OutputDifference | None:
        """How far the model is from its simulation; None if that cannot be told."""
        setup = self._setup
        try:
            return difference_of(simulated, model, measure=setup.evaluate, backend=setup.backend)
        except Exception as error:  # If it is the model's fault, its evaluation says so.
            _logger.info(f"How far the model is from its simulation is not known: {shown(error)}")
            return None

    def _evaluated(
        self,
        trial: optuna.Trial,
        model: CandidateModel,
        waiting: Waiting,
        *,
        in_full: bool = False,
    ) -> float:
        baseline = partial(self._baseline.value, trial, waiting)
        sampled = self._samples.until_known(trial, baseline)
        try:
            if sampled is None:
                returned = self._run(trial, lambda check: self._in_full(model))
            elif in_full:
                evaluation, kept_scores = sampled
                returned = self._run(
                    trial, lambda check: kept_scores.see_all(model, evaluation, report=False)
                )
            else:
                returned = self._by_samples(trial, model, *sampled)
        except TrialPruned:
            raise
        except KeyboardInterrupt:
            trial.set_user_attr(record.INTERRUPTED, True)  # It is no failure of the model.
            raise
        except Exception as error:
            raise _why(error) from error
        kept = self._samples.kept(trial, baseline) if isinstance(returned, GivenScores) else None
        try:
            if isinstance(returned, GivenScores):
                returned = (
                    returned.mean
                    if kept is None
                    else kept[1].see_all(model, returned, report=not in_full)
                )
            return as_metric(returned, higher_is_better=self._setup.criterion.higher_is_better)
        except ValueError as error:
            raise CandidateError(str(error), final=True) from error

    def _in_full(self, model: CandidateModel) -> object:
        """The metric of a model, or the scores that a function gives for all samples."""
        evaluate = self._setup.evaluate
        if isinstance(evaluate, FunctionEvaluation):
            return evaluate.measure(model)
        return self._setup.evaluate_in_full(model)

    def _by_samples(
        self,
        trial: optuna.Trial,
        model: CandidateModel,
        evaluation: SampleEvaluation,
        sampled: SampledTrial,
    ) -> float:
        trials = trial.study.get_trials(deepcopy=False)
        before = furthest(trials, model.fingerprint, sampled.population)
        if before is None or not sampled.take_over(before):
            self._run(
                trial,
                lambda check: sampled.evaluate(
                    model, AskedBetweenBatches(evaluation, check), self._setup.watch
                ),
            )
        return sampled.conclude()

    def _run(self, trial: optuna.Trial, evaluate: Any) -> Any:
        can_be_asked = self._samples.can_stop(trial.study)
        return self._guarded.run(trial, evaluate, can_be_asked=can_be_asked)


def _cause(error: Exception) -> BaseException:
    """What the user's function has raised."""
    is_users = isinstance(error, TrainingFunctionError)
    return error.__cause__ if is_users and error.__cause__ is not None else error


def _may_be_known(trial: optuna.Trial) -> bool:
    """Whether the trial's configuration may have been evaluated before, for all we know."""
    sampler = trial.study.sampler
    return not (
        isinstance(sampler, TellsNewConfigs) and sampler.is_first(trial.study, trial.number)
    )


def _why(error: Exception) -> CandidateError:
    unloaded = _load_error(error)
    if unloaded is not None:
        return CandidateError(f"Not loaded: {shown(unloaded)}", final=True)
    late = isinstance(error, EvaluationTimeout)
    return CandidateError(f"Not evaluated: {shown(error)}", final=late)


def _load_error(error: BaseException | None) -> ModelLoadError | None:
    """The failure to load the model that is behind an error of the evaluation, if there is one."""
    while error is not None and not isinstance(error, ModelLoadError):
        error = error.__cause__ or error.__context__
    return error
