"""Run a search in a study."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import optuna

from optuna_quant._common.steps import doing
from optuna_quant._common.steps import listening
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Progress
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.display import Display
from optuna_quant.callbacks.open_display import open_display
from optuna_quant.callbacks.publishing import annotate_all
from optuna_quant.callbacks.publishing import publishers
from optuna_quant.costs.search_problem import SearchProblem
from optuna_quant.costs.search_problem import check_can_be_known
from optuna_quant.costs.study_costs import StudyCosts
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.batches import Batches
from optuna_quant.evaluation.batches import SampleDependence
from optuna_quant.evaluation.holdout_split import HoldoutSplit
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.metrics.criterion import note_of
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.samplers._engine.contract import claim_timeout_of
from optuna_quant.samplers._fp32_only import FP32OnlySampler
from optuna_quant.storages.errors import storage_errors
from optuna_quant.storages.open import open_storage
from optuna_quant.study.compatibility import signature_of_models
from optuna_quant.study.data_warnings import keep_warnings
from optuna_quant.study.gone import StudyGoneError
from optuna_quant.study.gone import named_if_gone
from optuna_quant.study.names import find_name
from optuna_quant.study.names import model_of
from optuna_quant.study.others import is_searched
from optuna_quant.study.others import running_elsewhere
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.repeated_failures import try_again
from optuna_quant.tuning.conclude import conclude
from optuna_quant.tuning.deciding import decide_for
from optuna_quant.tuning.direction import ask_for_direction
from optuna_quant.tuning.errors import OutputError
from optuna_quant.tuning.finalists import measure_finalists
from optuna_quant.tuning.findings import keep_findings
from optuna_quant.tuning.holdout import with_holdout
from optuna_quant.tuning.measured_once import measured_once
from optuna_quant.tuning.opening import MOST_RENEWALS
from optuna_quant.tuning.opening import StudyOpener
from optuna_quant.tuning.opening import is_new
from optuna_quant.tuning.opening import was_replaced
from optuna_quant.tuning.optimize import optimize
from optuna_quant.tuning.options.search import SearchOptions
from optuna_quant.tuning.output import SaveBest
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import storage_file
from optuna_quant.tuning.promising import finish_promising
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.second_evaluation import with_second_evaluation
from optuna_quant.tuning.usual_recipes import started_with
from optuna_quant.tuning.warm_start import WarmStart
from optuna_quant.tuning.warm_start import warm_start
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.costs import Costs
    from optuna_quant.costs import KnownObjective
    from optuna_quant.costs import Objective
    from optuna_quant.costs import OpGain
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.sequential import EarlyStopping
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.open import Storage
    from optuna_quant.tuning.call import Call
    from optuna_quant.tuning.earlier_study import FromStudy


_DEFAULT_STUDY_STEM = "optuna_quant"


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """A search that is ready to run: model, data, options and files were checked.

    Attributes:
        backend:
            Builds the models.
        space:
            The tuning space.
        sampler:
            The strategy.
        criterion:
            When a metric is good enough.
        policy:
            When the search stops.
        measure:
            Gives the metric of a model.
        saver:
            Keeps the best model so far in a file; :obj:`None` if there is none.
        calibration_data:
            What latency is measured on.
        inputs:
            The inputs that are the same for all samples.
        transform:
            What makes inputs of samples.
        holdout:
            Gives the metric of a model on the hold-out set; :obj:`None` if there is none.
        evaluation_timeout:
            After how many seconds the evaluation of a model is ended; :obj:`None` for never.
        split:
            Which of the samples are the hold-out set; :obj:`None` if it is of others, or none.
        batches:
            How models with dynamic quantization are evaluated; :obj:`None` if there are none.
        verify:
            Whether the answer is evaluated a second time.
        objective:
            What is to be small, as the user has said it; :obj:`None` for the default.
        costs:
            What the user has given as costs.
        may_narrow:
            Whether it is left to the library which ops are tuned.
        measure_gain:
            Whether the answer is measured beside the FP32 model.
        with_space:
            Gives the sampler of another tuning space, with an objective that knows its costs.
        other_spaces:
            Tuning spaces with other recipes, of which a study may be continued.
        left_out:
            The ops that the tuning space does not have because of what they cost.
        from_study:
            The earlier study that the search begins from; :obj:`None` if there is none.
        stopping:
            When the evaluation of a model ends early; :obj:`None` if all samples are seen.
        seed:
            The seed of everything random.
        call:
            What has started the search, for its report.
        warnings:
            What is suspicious about the data, as far as it is known before anything is evaluated.
    """

    backend: Backend
    space: TuningSpace
    sampler: BaseSampler
    criterion: AccuracyCriterion
    policy: ExitPolicy
    measure: Evaluate
    saver: SaveBest | None
    calibration_data: CalibrationLike | None
    stopping: EarlyStopping | None
    seed: int
    holdout: Evaluate | None = None
    evaluation_timeout: float | None = None
    inputs: InputValues | None = None
    transform: Transform | None = None
    split: HoldoutSplit | None = None
    batches: Batches | None = None
    verify: bool = True
    objective: Objective | None = None
    costs: Costs | None = None
    may_narrow: bool = False
    measure_gain: bool = True
    with_space: Callable[[TuningSpace, KnownObjective], BaseSampler] | None = None
    other_spaces: tuple[TuningSpace, ...] = ()
    left_out: Mapping[str, OpGain | None] = field(default_factory=dict)
    from_study: FromStudy | None = None
    call: Call | None = None
    warnings: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """What tells the FP32 model from others."""
        return model_of(self.backend, self.space)

    @property
    def _opener(self) -> StudyOpener:
        return StudyOpener(
            direction=self.criterion.direction,
            sampler=self.sampler,
            split=self.split,
            batches=self.batches,
        )

    @storage_errors()
    def run(
        self,
        *,
        storage: Storage = None,
        study_name: str | None = None,
        options: SearchOptions | None = None,
        on_stuck: Callable[[str], None] | None = None,
    ) -> TuningResult:
        """Open the study and search; for the storage and its study see :func:`optuna_quant.tune`.

        Args:
            storage:
                Where the study is kept.
            study_name:
                Its name.
            options:
                How the search goes about it: workers, callbacks, progress, artifacts.
            on_stuck:
                That of :class:`~optuna_quant.QuantObjective`.

        Returns:
            The result; that of what is in the study if the search was interrupted.

        Raises:
            BaselineError:
                If the FP32 model cannot be evaluated.
            KeyboardInterrupt:
                If it was interrupted before there was a study.
            StudyGoneError:
                If the study was deleted, or its file removed, meanwhile.
            ValueError:
                If the storage cannot be opened, the study that is continued does not fit, or the
                model that was found cannot be built again.
        """
        options = SearchOptions() if options is None else options
        journal = storage_file(storage)
        if self.saver is not None and journal is not None:
            check_output(self.saver.path, inputs={"storage": journal})
        reached = _Reached(self)
        try:
            with open_display(show=options.show_progress) as display, listening(display.doing):
                return self._open(storage, study_name, options, on_stuck, display, reached)
        except KeyboardInterrupt:
            if reached.study is None:
                raise
        return reached.interrupted()

    def check_objective(self) -> None:
        """Refuse an objective that a new study could not know, before one is started or deleted.

        Raises:
            ValueError:
                If the objective needs what is neither given nor measured nor counted.
        """
        signature = signature_of_models(self.backend, self.space)
        costs = StudyCosts(self.backend, self.space, signature=signature, given=self.costs)
        check_can_be_known(self.objective, costs)

    def _open(
        self,
        storage: Storage,
        study_name: str | None,
        options: SearchOptions,
        on_stuck: Callable[[str], None] | None,
        display: Display,
        reached: _Reached,
    ) -> TuningResult:
        """Open the study, decide for what and in which space it is searched, and search."""
        opened = open_storage(storage, heartbeat=False)
        if study_name is None and storage is not None:
            study_name = find_name(opened, _DEFAULT_STUDY_STEM, self.model)
        models = signature_of_models(self.backend, self.space)
        costs_in = partial(
            StudyCosts,
            self.backend,
            signature=models,
            given=self.costs,
            before=partial(
                share_calibration, backend=self.backend, artifact_store=options.artifact_store
            ),
        )
        if self.objective is not None and is_new(opened, study_name):
            check_can_be_known(self.objective, costs_in(self.space))
        with doing("Looking at what ops cost"):
            for attempts_left in reversed(range(MOST_RENEWALS)):
                study = self._opener.open(opened, study_name)
                reached.study = study
                space = started_with(study, (self.space, *self.other_spaces))
                costs = costs_in(space)
                start = warm_start(
                    study,
                    self.from_study,
                    storage=opened,
                    models=models,
                    evaluation=signature_of(self.measure),
                    space=space,
                )
                try:
                    with named_if_gone(study):
                        if start.source is not None:
                            costs.take_over(study, start.source)
                        study, problem = decide_for(
                            study,
                            space=space,
                            objective=self.objective,
                            costs=costs,
                            may_narrow=self.may_narrow,
                            model=self.model,
                        )
                    break
                except StudyGoneError:
                    # This process has done nothing in it yet.
                    if not attempts_left or not was_replaced(opened, study_name):
                        raise
        decided = self._decided(problem)
        if problem.no_gain is not None and self.space.has_fp32 and not is_searched(study):
            decided = decided._without_gain(problem.no_gain)
            options = replace(options, n_jobs=1)
        study.sampler = decided.sampler
        reached.begin(decided, study)
        return decided._search(
            study,
            problem,
            start,
            storage=storage,
            options=options,
            on_stuck=on_stuck,
            display=display,
            reached=reached,
        )

    def _decided(self, problem: SearchProblem) -> TuningRun:
        """This search with what its study is to make small, in the space that follows."""
        policy = self.policy.with_objective(problem.objective)
        sampler, saver = self.sampler, self.saver
        if self.with_space is not None:
            sampler = self.with_space(problem.space, problem.objective)
        if saver is not None:
            saver = SaveBest(saver.path, backend=self.backend, space=problem.space, policy=policy)
        return replace(
            self,
            policy=policy,
            sampler=sampler,
            saver=saver,
            space=problem.space,
            left_out=problem.left_out,
        )

    def _without_gain(self, message: str) -> TuningRun:
        """This search where it is not worth starting: the FP32 model, and what was enqueued."""
        sampler = FP32OnlySampler(
            self.space,
            criterion=self.criterion,
            seed=self.seed,
            claim_timeout=claim_timeout_of(self.sampler),
        )
        return replace(self, policy=self.policy.without_gain(message), sampler=sampler)

    def _search(
        self,
        study: optuna.Study,
        problem: SearchProblem,
        start: WarmStart,
        *,
        storage: Storage,
        options: SearchOptions,
        on_stuck: Callable[[str], None] | None,
        display: Display,
        reached: _Reached,
    ) -> TuningResult:
        progress = Progress(self.policy, display=display, left_out=len(self.left_out))
        shown = [progress] if options.show_progress else []
        saved = [self.saver] if self.saver else []
        objective = QuantObjective(
            self.backend,
            self.space,
            self.measure,
            self.criterion,
            stopping=self.stopping,
            seed=self.seed,
            watch=progress.watch if display.is_live else None,
            started=progress.start if display.is_live else None,
            artifact_store=options.artifact_store,
            evaluation_timeout=self.evaluation_timeout,
            on_stuck=on_stuck,
            costs=problem.objective.measures_of,
            annotate=annotate_all(options.callbacks),
        )
        study = self._opener.fitting(study, objective, storage)
        reached.begin(self, study)
        start.keep(study)  # It may be a new one.
        keep_warnings(study, self.warnings)
        problem.keep(study)
        if not running_elsewhere(study):
            try_again(study, self.space)
        with named_if_gone(study):
            return self._run(study, objective, [*shown, *saved], options)

    def _run(
        self,
        study: optuna.Study,
        objective: QuantObjective,
        first: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
        options: SearchOptions,
    ) -> TuningResult:
        """Search in a study that fits."""
        observers = [*first, *options.callbacks]
        if isinstance(self.measure, DataEvaluation) and this_rank().is_leader:
            observers.append(
                SampleDependence(self.measure, lambda: self.backend.quantize(self.space.fp32()))
            )
        stop = optimize(
            study,
            objective,
            self.policy,
            observers,
            n_jobs=options.n_jobs,
        )
        if stop.reason not in (StopReason.MET, StopReason.INTERRUPTED):
            stop = finish_promising(study, objective, observers, stop, policy=self.policy)
        measure = partial(
            measured_once,
            study,
            measure=partial(measure_finalists, backend=self.backend, space=self.space),
        )
        with doing("Measuring the answer beside FP32"):
            result = conclude(
                TuningResult,
                study,
                stop,
                self.policy,
                backend=self.backend,
                space=self.space,
                measure=measure if self.measure_gain else None,
                left_out=self.left_out,
            )
        result = replace(result, note=note_of(self.measure), call=self.call)
        ask_for_direction(result, self.measure)
        if result.depends_on_batch:
            result = replace(result, batches=self.batches)
        if self.verify:
            limited = partial(objective.limited, study, what="The second evaluation of the answer")
            with doing("Evaluating the answer a second time"):
                result = with_second_evaluation(result, self.measure, limited=limited)
        if self.saver is not None and result.trial is not None and not result.is_reproducible:
            self.saver.discard(result.trial)
        for publisher in publishers(options.callbacks):
            publisher.finish(study)
        unwritten = _write(self.saver, result)
        if self.holdout is not None:
            limited = partial(objective.limited, study, what="The evaluation of the hold-out set")
            with doing("Evaluating the hold-out set"):
                result = with_holdout(result, self.holdout, limited=limited)
        keep_findings(result)
        if unwritten is not None:
            raise OutputError(unwritten, result)
        return result


class _Reached:
    """How far a search has come, for its result if it is interrupted.

    Args:
        run:
            The search.
    """

    def __init__(self, run: TuningRun) -> None:
        self._run = run
        self._decided = False
        self.study: optuna.Study | None = None

    def begin(self, run: TuningRun, study: optuna.Study) -> None:
        """The search in the space and for the objective that were decided, in its study."""
        self._run, self.study, self._decided = run, study, True

    def interrupted(self) -> TuningResult:
        """What the study holds; nothing is measured or evaluated for it."""
        assert self.study is not None
        study, run, space, when = self.study, self._run, self._run.space, ""
        sampler = study.sampler
        if not self._decided:
            when = " while it looked at what ops cost"
            # What was started earlier may leave out ops, or have other recipes: the sampler is not
            # of that space yet.
            study.sampler = optuna.samplers.RandomSampler()
            with contextlib.suppress(ValueError):
                space = recorded_space(study, space.prefix)
        try:
            result = conclude(
                TuningResult,
                study,
                Stop(StopReason.INTERRUPTED, f"The search was interrupted{when}."),
                run.policy,
                backend=run.backend,
                space=space,
                left_out=run.left_out,
            )
        finally:
            study.sampler = sampler
        return replace(result, note=note_of(run.measure), call=run.call)


def _write(saver: SaveBest | None, result: TuningResult) -> str | None:
    """Write the model that was found; why it could not be written, if so."""
    if saver is None or not result.met or result.trial is None:
        return None
    try:
        saver.write(result.trial)
    except OSError as error:
        return f"The output {str(saver.path)!r} could not be written: {error}"
    return None
