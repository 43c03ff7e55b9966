"""The objective function: build the model, evaluate it unless that was done, judge it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import TypeVar

from optuna.exceptions import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError

from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.evaluation.arguments import check_arguments
from optuna_quant.evaluation.baseline_measurement import BaselineMeasurement
from optuna_quant.evaluation.candidate_measurement import CandidateMeasurement
from optuna_quant.evaluation.continued_study import ContinuedStudies
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.guarded import GuardedEvaluation
from optuna_quant.evaluation.model_reuse import ModelReuse
from optuna_quant.evaluation.running_trials import RunningTrials
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.sample_evaluation import Watch
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.evaluation.setup import ObjectiveSetup
from optuna_quant.evaluation.study_samples import StudySamples
from optuna_quant.evaluation.trial_evaluation import TrialEvaluation
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.study.gone import check_file


if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.sequential import EarlyStopping
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore
    from optuna_quant.study.errors import BaselineError


_Result = TypeVar("_Result")


class QuantObjective:
    """Objective function of a study: the metric of the quantized model that a trial asks for.

    A trial's model is built and evaluated, unless another trial has built the same model: then
    that trial's result is taken over (or waited for, while it runs), and the trial says so. The
    result is held against the baseline, and the criterion is written to the trial as the
    constraints ``accuracy`` and ``quantized``, so that ``study.best_trial`` has the best metric
    among the models that are quantized and good enough. The cheapest of them is
    :func:`~optuna_quant.selection.best_met_trial`. A study with several objectives is for
    :class:`~optuna_quant.ParetoObjective`.

    The baseline, the FP32 model's metric, is measured once per study: by the trial that a sampler
    of this package has given the FP32 configuration, otherwise by the first trial, before its
    own. A failed evaluation fails the trial, with the reason as its user attribute ``failure``,
    and the search continues; a failed evaluation of the FP32 model ends it.

    Example:

        .. code-block:: python

            space = backend.tuning_space()
            objective = QuantObjective(backend, space, evaluate, criterion)
            study = optuna.create_study(
                direction=criterion.direction, sampler=BasicQuantSampler(space)
            )
            study.optimize(objective, callbacks=[ExitPolicy(criterion)])

    Args:
        backend:
            Builds the models.
        space:
            The tuning space.
        evaluate:
            Gives the metric of a model, or the scores of its samples, see
            :class:`~optuna_quant.evaluation.function.FunctionEvaluation`. A function gets the
            runtime's own object of the model, such as an ``onnxruntime.InferenceSession``. Or it
            is a :class:`~optuna_quant.evaluation.sample_evaluation.SampleEvaluation`, which gets
            the model and gives the scores of some samples.
        criterion:
            When a metric is good enough.
        stopping:
            When the evaluation of a candidate ends early, where ``evaluate`` gives the scores of
            samples: the trial is pruned then, with the reason as its user attribute ``evidence``.
            The study keeps the scores. Default: every model is evaluated on all samples, and no
            scores are kept. The study's pruner has no say in it.
        seed:
            The seed of the order in which samples are evaluated. The first worker's counts.
        watch:
            Called with an
            :class:`~optuna_quant.evaluation.sample_evaluation.EvaluationProgress` while a model is
            evaluated, at most ten times a second.
        started:
            Called with the study, the number of a trial and its configuration when it starts.
        wait_timeout:
            How long, in seconds, to wait for another worker's trial that measures the baseline or
            evaluates the same model and gives no heartbeat, before doing so oneself. If trials
            take longer than that, three times the longest one.
        grace_period:
            How long, in seconds, to wait for an earlier trial that has not built its model yet.
        artifact_store:
            Where workers share what calibration gives. Default: in the study itself.
        evaluation_timeout:
            After how many seconds the evaluation of a model is ended. A candidate's trial fails
            then and is not tried again; of the FP32 model it is an error. An evaluation that does
            not stop, because it is in a call that does not return, has its trial marked as failed,
            so that other workers continue. Default: never; a line is logged if an evaluation takes
            much longer than others.
        on_stuck:
            Called with a message, in a thread of its own, when an evaluation did not react: the
            thread that runs it is lost.
        costs:
            Gives what a configuration costs by measure, as
            :meth:`KnownObjective.measures_of <optuna_quant.costs.KnownObjective.measures_of>`
            does; each trial records it. Default: the ops in fallback and the size only.
        constrain:
            Whether models that do not meet the criterion, or have no quantized op, are
            infeasible. Without, ``study.best_trials`` of a study with several objectives has
            these as well.
        annotate:
            Called with each trial at its end, when it has a result or was stopped early, to add
            user attributes: they are written with the rest. It must not raise.
        on_met:
            Called with a trial and its model, as it is deployed, when the model meets the
            criterion: to keep the model, which is otherwise built again when it is wanted. That
            is before ``annotate``, and while the trial still runs. It must not raise.

    Raises:
        TypeError:
            If an argument has another type.
        ValueError:
            If ``wait_timeout`` or ``grace_period`` is negative, or ``evaluation_timeout`` is not
            positive.
    """

    def __init__(
        self,
        backend: Backend,
        space: TuningSpace,
        evaluate: Evaluate | SampleEvaluation,
        criterion: AccuracyCriterion,
        *,
        stopping: EarlyStopping | None = None,
        seed: int = 0,
        watch: Watch | None = None,
        started: Callable[[optuna.Study, int, QuantConfig], None] | None = None,
        wait_timeout: float = 600.0,
        grace_period: float = 5.0,
        artifact_store: ArtifactStore | None = None,
        evaluation_timeout: float | None = None,
        on_stuck: Callable[[str], None] | None = None,
        costs: Callable[[QuantConfig], Mapping[str, float]] | None = None,
        constrain: bool = True,
        annotate: Callable[[optuna.Trial], None] | None = None,
        on_met: Callable[[optuna.Trial, Model], None] | None = None,
    ) -> None:
        check_arguments("QuantObjective", backend, space, evaluate, criterion)
        _check_direction(evaluate, criterion)
        if isinstance(backend, TrainsCandidates):
            backend.trains(space.default())  # It says what it lacks.
        self._running = RunningTrials(wait_timeout=wait_timeout, grace_period=grace_period)
        refer_to = getattr(evaluate, "refer_to", None)
        if refer_to is not None:
            refer_to(lambda: backend.quantize(space.fp32()))
        if not isinstance(evaluate, SampleEvaluation):
            evaluate = FunctionEvaluation(evaluate, higher_is_better=criterion.higher_is_better)
        setup = ObjectiveSetup(
            backend=backend,
            space=space,
            evaluate=evaluate,
            criterion=criterion,
            stopping=stopping,
            seed=seed,
            watch=watch,
            artifact_store=artifact_store,
            costs=costs,
        )
        self._setup = setup
        self._annotate = annotate or (lambda trial: None)
        self._guarded = GuardedEvaluation(evaluation_timeout, on_stuck=on_stuck)
        self._samples = StudySamples(setup)
        self._studies = ContinuedStudies(
            setup, self._samples, self._guarded, wait_timeout=wait_timeout
        )
        self._baseline = BaselineMeasurement(setup, self._samples, self._guarded, self._studies)
        self._reuse = ModelReuse()
        self._trials = TrialEvaluation(
            setup,
            self._baseline,
            CandidateMeasurement(setup, self._samples, self._guarded, self._baseline, self._reuse),
            self._running,
            judged_by=self._studies.judged_by,
            constrain=constrain,
            started=started,
            on_met=on_met,
        )
        self._lost: list[int] = []

    @property
    def space(self) -> TuningSpace:
        """The tuning space."""
        return self._setup.space

    @property
    def baseline_error(self) -> BaselineError | None:
        """Why the FP32 model could not be evaluated, if so."""
        return self._baseline.error

    def __call__(self, trial: optuna.Trial, *, again: bool = False) -> float:
        """Run one trial.

        Args:
            trial:
                The trial.
            again:
                Whether to evaluate its model even if another configuration gave the same one.

        Returns:
            The metric; NaN, which Optuna records as a failed trial, if there is none.

        Raises:
            BaselineError:
                If the FP32 model cannot be evaluated.
            TrainingError:
                If the user's function that trains models fails before it has trained any.
            StudyGoneError:
                If the file of the study was removed.
            optuna.exceptions.UpdateFinishedTrialError:
                If another worker has ended the trial meanwhile.
            ValueError:
                If the study's direction contradicts the criterion, or it has several objectives.
        """
        count = len(trial.study.directions)
        if count > 1:
            raise ValueError(
                f"The study {trial.study.study_name!r} has {count} objectives, but a "
                "QuantObjective gives one value, the metric. Use ParetoObjective, which gives the "
                "metric and costs, or create the study with "
                f"direction={self._setup.criterion.direction!r}. An objective of your own gets "
                "the metric, as one of several values, from metric_of(trial)."
            )
        return self.metric_of(trial, again=again)

    def metric_of(self, trial: optuna.Trial, *, again: bool = False) -> float:
        """What a call does, also in a study with several objectives, of which it is the first.

        Args:
            trial:
                The trial.
            again:
                As for a call.
        """
        check_file(trial.study)
        self._setup.criterion.check_direction(trial.study)
        self.check_continued(trial.study)
        try:
            # In one transaction and late: until then, its claim says what it evaluates.
            with self._running.at_work(trial), buffered_writes(trial, attributes=True):
                try:
                    value = self._trials.run(trial, again=again)
                except TrialPruned:
                    self._annotate(trial)
                    raise
                self._annotate(trial)
                return value
        except UpdateFinishedTrialError:
            self._lost.append(trial.number)
            raise

    def check_continued(self, study: optuna.Study) -> None:
        """Refuse a study that was started with something else; each trial does so as well.

        What is compared: the model, the tuning space, the calibration data and the backend's
        options; then the evaluation: its data, metric and code. Where only code differs, or the
        study does not say, the FP32 model and the best candidate are measured again, and the
        study goes on if they have the metrics that it holds.

        Raises:
            DamagedRecordError:
                If the study's record was edited or damaged.
            ChangedError:
                If the calibration data or the backend's options are others.
            ChangedEvaluationError:
                If the metrics that the study holds are not those of this evaluation.
            BaselineError:
                If the FP32 model cannot be evaluated.
            ValueError:
                If it is about another model or tuning space, or goes the other way; or if the
                study's sampler or pruner judges by another criterion.
        """
        self._studies.check(study)

    def forget(self, study: optuna.Study) -> None:
        """Forget what is known of a study, because another one has taken its name."""
        for part in (self._studies, self._samples, self._running, self._reuse):
            part.forget(study)

    def take_lost(self) -> list[int]:
        """The trials that another worker has ended since this was last asked.

        That happens to a process that stood still for longer than the others waited for a sign of
        life. Whatever such a trial found is not in the study.
        """
        lost, self._lost = self._lost, []
        return lost

    def interrupt(self) -> None:
        """End the evaluations of all other threads, as Ctrl-C ends that of the main thread.

        They stay ended until :meth:`resume`.
        """
        self._guarded.interrupt()

    def resume(self) -> None:
        """Let evaluations run again."""
        self._guarded.resume()

    def limited(
        self,
        study: optuna.Study,
        evaluate: Callable[[], _Result],
        *,
        what: str,
        give_up: Callable[[str], None] | None = None,
    ) -> _Result:
        """Run an evaluation that is not of a trial, as :meth:`GuardedEvaluation.run_outside`."""
        return self._guarded.run_outside(study, evaluate, what=what, give_up=give_up)


def _check_direction(evaluate: object, criterion: AccuracyCriterion) -> None:
    """Refuse an evaluation whose metric goes the other way."""
    natural = getattr(evaluate, "higher_is_better", criterion.higher_is_better)
    if natural != criterion.higher_is_better:
        better = "higher" if natural else "lower"
        raise ValueError(
            f"For the metric {getattr(evaluate, 'name', evaluate)!r} {better} is better: use "
            f"AccuracyCriterion(higher_is_better={natural})."
        )
