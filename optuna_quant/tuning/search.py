"""A search, in two steps: everything that was given is checked, then it runs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
import logging
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import cast

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.logging import get_logger
from optuna.pruners import NopPruner

from optuna_quant.backends.base import HasConstantInputs
from optuna_quant.backends.default import make_backend
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Progress
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.exit_policy import keep_reason
from optuna_quant.callbacks.tuning_criterion import TuningCriterion
from optuna_quant.costs.decision import Decision
from optuna_quant.costs.decision import decide
from optuna_quant.costs.given import CostsLike
from optuna_quant.costs.given import as_costs
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import as_objective
from optuna_quant.costs.study_costs import StudyCosts
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.data.loaders import kept_in_memory
from optuna_quant.evaluation.batches import Batches
from optuna_quant.evaluation.batches import SampleDependence
from optuna_quant.evaluation.batches import batches_of
from optuna_quant.evaluation.batches import check_batches
from optuna_quant.evaluation.batches import warn_of_batches
from optuna_quant.evaluation.data_checks import warn_of_data
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.holdout_split import HoldoutSplit
from optuna_quant.evaluation.holdout_split import as_fraction
from optuna_quant.evaluation.holdout_split import check_split
from optuna_quant.evaluation.holdout_split import split_holdout
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.labelled import check_count
from optuna_quant.evaluation.metrics.criterion import check_tolerance
from optuna_quant.evaluation.metrics.criterion import criterion_for
from optuna_quant.evaluation.metrics.criterion import note_of
from optuna_quant.evaluation.metrics.library import library_metric_names
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.named import metrics
from optuna_quant.evaluation.metrics.output_choice import check_outputs
from optuna_quant.evaluation.metrics.sample_metrics import Metric
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.sampled import SampleEvaluation
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.evaluation.timeout import check_evaluation_timeout
from optuna_quant.samplers._fp32_only import FP32OnlySampler
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.selection.answer import partial_candidates
from optuna_quant.sequential import EarlyStopping
from optuna_quant.sequential.methods import METHODS
from optuna_quant.sequential.population import is_bounded
from optuna_quant.storages.errors import storage_errors
from optuna_quant.storages.open import open_storage
from optuna_quant.study.compatibility import signature_of_models
from optuna_quant.study.drain import await_last_trials
from optuna_quant.study.drain import others_running
from optuna_quant.study.enqueued import is_for_space
from optuna_quant.study.enqueued import only_enqueued
from optuna_quant.study.enqueued import take_out_misfits
from optuna_quant.study.enqueued import waiting
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.gone import named_if_gone
from optuna_quant.study.names import find_name
from optuna_quant.study.names import model_of
from optuna_quant.study.names import model_of_study
from optuna_quant.study.others import has_results
from optuna_quant.study.others import is_searched
from optuna_quant.study.others import running_elsewhere
from optuna_quant.study.renewal import renew
from optuna_quant.study.repeated_failures import try_again
from optuna_quant.study.space_signature import check_protocol
from optuna_quant.study.space_signature import check_space
from optuna_quant.tuning.earlier_study import check_from_study
from optuna_quant.tuning.errors import OutputError
from optuna_quant.tuning.finalists import measure_finalists
from optuna_quant.tuning.holdout import check_other_data
from optuna_quant.tuning.holdout import with_holdout
from optuna_quant.tuning.output import SaveBest
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import storage_file
from optuna_quant.tuning.quiet import without_repeated_lines
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.result import conclude
from optuna_quant.tuning.second_evaluation import with_second_evaluation
from optuna_quant.tuning.strategies import check_begins_from
from optuna_quant.tuning.strategies import choose_strategy
from optuna_quant.tuning.strategies import make_sampler
from optuna_quant.tuning.strategies import takes_costs
from optuna_quant.tuning.warm_start import WarmStart
from optuna_quant.tuning.warm_start import warm_start
from optuna_quant.workers.cores import available_cores
from optuna_quant.workers.launch import this_rank
from optuna_quant.workers.thread_interrupts import passed_on


if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.costs import Costs
    from optuna_quant.costs import KnownObjective
    from optuna_quant.costs import Objective
    from optuna_quant.costs import OpGain
    from optuna_quant.space.narrowing import OpDict
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore
    from optuna_quant.storages.open import Storage
    from optuna_quant.tuning.earlier_study import FromStudy


_logger = get_logger(__name__)

_LAST_TRIALS_SECONDS = 180.0
_MOST_FINISHED = 3
_MOST_RENEWALS = 3
# Quantization does not make a model so much better, as a part of the FP32 model's metric.
_SUSPICIOUS_GAIN = 0.2
_DEFAULT_STUDY_STEM = "optuna_quant"


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search that can run: model, data, options and files were accepted.

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
        left_out:
            The ops that the tuning space does not have because of what they cost.
        from_study:
            The earlier study that the search begins from; :obj:`None` if there is none.
        stopping:
            When the evaluation of a model ends early; :obj:`None` if all samples are seen.
        seed:
            The seed of everything random.
    """

    backend: Backend
    space: TuningSpace
    sampler: BaseSampler
    criterion: AccuracyCriterion
    policy: ExitPolicy
    measure: Evaluate
    saver: SaveBest | None
    calibration_data: Any
    stopping: EarlyStopping | None
    seed: int
    holdout: Evaluate | None = None
    evaluation_timeout: float | None = None
    inputs: Mapping[str, Any] | None = None
    transform: Callable[[Any], Any] | None = None
    split: HoldoutSplit | None = None
    batches: Batches | None = None
    verify: bool = True
    objective: Objective | None = None
    costs: Costs | None = None
    may_narrow: bool = False
    measure_gain: bool = True
    with_space: Callable[[TuningSpace, KnownObjective], BaseSampler] | None = None
    left_out: Mapping[str, OpGain | None] = field(default_factory=dict)
    from_study: FromStudy | None = None

    @property
    def model(self) -> str:
        """What tells the FP32 model from others."""
        return model_of(self.backend, self.space)

    @storage_errors()
    def run(
        self,
        *,
        storage: Storage = None,
        study_name: str | None = None,
        callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]] = (),
        show_progress: bool = False,
        n_jobs: int = 1,
        artifact_store: ArtifactStore | None = None,
        on_stuck: Callable[[str], None] | None = None,
    ) -> TuningResult:
        """Open the study and search; for the arguments see :func:`optuna_quant.tune`.

        ``on_stuck`` is that of :class:`~optuna_quant.QuantObjective`.

        Raises:
            BaselineError:
                If the FP32 model cannot be evaluated.
            StudyGoneError:
                If the study was deleted, or its file removed, meanwhile.
            ValueError:
                If the storage cannot be opened, the study that is continued does not fit, or the
                model that was found cannot be built again.
        """
        journal = storage_file(storage)
        if self.saver is not None and journal is not None:
            check_output(self.saver.path, inputs={"storage": journal})
        opened = open_storage(storage, heartbeat=False)
        if study_name is None and storage is not None:
            study_name = find_name(opened, _DEFAULT_STUDY_STEM, self.model)
        study = self._open(opened, study_name)
        models = signature_of_models(self.backend, self.space)
        start = warm_start(
            study,
            self.from_study,
            storage=opened,
            models=models,
            evaluation=signature_of(self.measure),
            space=self.space,
        )
        costs = StudyCosts(
            self.backend,
            self.space,
            signature=models,
            given=self.costs,
            before=partial(share_calibration, backend=self.backend, artifact_store=artifact_store),
        )
        with named_if_gone(study):
            if start.source is not None:
                costs.take_over(study, start.source)
            study, decision = self._decide(study, costs)
        decided = self._decided(decision)
        if decision.no_gain is not None and self.space.has_fp32 and not is_searched(study):
            decided, n_jobs = decided._without_gain(decision.no_gain), 1
        study.sampler = decided.sampler
        return decided._search(
            study,
            decision,
            start,
            storage=storage,
            callbacks=callbacks,
            show_progress=show_progress,
            n_jobs=n_jobs,
            artifact_store=artifact_store,
            on_stuck=on_stuck,
        )

    def _decide(self, study: optuna.Study, costs: StudyCosts) -> tuple[optuna.Study, Decision]:
        """What the study is to make small, and it; a new one for other ops, if it has no results.

        Where FP32 was the answer one may well ask for other ops next.
        """
        decision = self._decision(study, costs)
        if (
            not decision.is_other_space
            or has_results(study)
            or self.model != model_of_study(study)
        ):
            return study, decision
        check_protocol(study)
        try:
            check_space(study, self.space)
        except ValueError as error:
            study = renew(study, ChangedError(str(error)))
        return study, self._decision(study, costs)

    def _decision(self, study: optuna.Study, costs: StudyCosts) -> Decision:
        return decide(
            study,
            objective=self.objective,
            space=self.space,
            costs=costs,
            may_narrow=self.may_narrow,
        )

    def _decided(self, decision: Decision) -> Search:
        """This search with what its study is to make small, in the space that follows."""
        policy = self.policy.with_objective(decision.objective)
        sampler, saver = self.sampler, self.saver
        if self.with_space is not None:
            sampler = self.with_space(decision.space, decision.objective)
        if saver is not None:
            saver = SaveBest(saver.path, backend=self.backend, space=decision.space, policy=policy)
        return replace(
            self,
            policy=policy,
            sampler=sampler,
            saver=saver,
            space=decision.space,
            left_out=decision.left_out,
        )

    def _without_gain(self, message: str) -> Search:
        """This search where it is not worth beginning: the FP32 model, and what was enqueued."""
        sampler = FP32OnlySampler(
            self.space,
            criterion=self.criterion,
            seed=self.seed,
            claim_timeout=getattr(self.sampler, "claim_timeout", _LAST_TRIALS_SECONDS),
        )
        return replace(self, policy=self.policy.without_gain(message), sampler=sampler)

    def _search(
        self,
        study: optuna.Study,
        decision: Decision,
        start: WarmStart,
        *,
        storage: Storage,
        callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
        show_progress: bool,
        n_jobs: int,
        artifact_store: ArtifactStore | None,
        on_stuck: Callable[[str], None] | None,
    ) -> TuningResult:
        progress = Progress(self.policy) if show_progress else None
        shown = [] if progress is None else [progress]
        saved = [self.saver] if self.saver else []
        objective = QuantObjective(
            self.backend,
            self.space,
            self.measure,
            self.criterion,
            stopping=self.stopping,
            seed=self.seed,
            watch=None if progress is None else progress.watch,
            artifact_store=artifact_store,
            evaluation_timeout=self.evaluation_timeout,
            on_stuck=on_stuck,
            costs=decision.objective.measures_of,
        )
        study = self._fitting(study, objective, storage)
        start.keep(study)  # It may be a new one.
        decision.keep(study)
        if not running_elsewhere(study):
            try_again(study, self.space)
        with named_if_gone(study):
            return self._run(study, objective, saved, shown, callbacks, show_progress, n_jobs)

    def _open(self, storage: BaseStorage, study_name: str | None) -> optuna.Study:
        return optuna.create_study(
            storage=storage,
            study_name=study_name,
            direction=self.criterion.direction,
            sampler=self.sampler,
            pruner=NopPruner(),
            load_if_exists=study_name is not None,
        )

    def _fitting(
        self, study: optuna.Study, objective: QuantObjective, storage: Storage
    ) -> optuna.Study:
        """The study, or the one that took its place because it had no results."""
        for _ in range(_MOST_RENEWALS):
            try:
                try:
                    self._check_continued(study, objective)
                except ChangedError as changed:
                    study = renew(study, changed)
                else:
                    return study
            except KeyError:
                # Another process is putting a new one in its place at this moment.
                if storage is None:
                    raise
                study = self._open(open_storage(storage, heartbeat=False), study.study_name)
            objective.forget(study)
        self._check_continued(study, objective)
        return study

    def _check_continued(self, study: optuna.Study, objective: QuantObjective) -> None:
        """Refuse a study that was begun with something else."""
        try:
            objective.check_continued(study)
        except ChangedError:
            check_split(study, self.split)  # Other samples are kept aside: that is the reason.
            raise
        check_split(study, self.split)
        check_batches(study, self.batches)

    def _run(
        self,
        study: optuna.Study,
        objective: QuantObjective,
        saved: Sequence[SaveBest],
        shown: Sequence[Progress],
        callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
        show_progress: bool,
        n_jobs: int,
    ) -> TuningResult:
        """Search in a study that fits."""
        observers: list[Callable[[optuna.Study, FrozenTrial], None]] = []
        observers += [*shown, *saved, *callbacks]
        if isinstance(self.measure, DataEvaluation) and this_rank().is_leader:
            observers.append(
                SampleDependence(self.measure, lambda: self.backend.quantize(self.space.fp32()))
            )
        stop = _optimize(
            study,
            objective,
            self.policy,
            observers,
            show_progress=show_progress,
            n_jobs=n_jobs,
        )
        if stop.reason not in (StopReason.MET, StopReason.INTERRUPTED):
            stop = self._finish_promising(study, objective, observers, stop)
        measure = partial(measure_finalists, backend=self.backend, space=self.space)
        result = conclude(
            study,
            stop,
            self.policy,
            backend=self.backend,
            space=self.space,
            measure=measure if self.measure_gain else None,
            left_out=self.left_out,
        )
        result = replace(result, note=note_of(self.measure))
        _ask_for_direction(result, self.measure)
        if result.depends_on_batch:
            result = replace(result, batches=self.batches)
        if self.verify:
            limited = partial(objective.limited, study, what="The second evaluation of the answer")
            result = with_second_evaluation(result, self.measure, limited=limited)
        if self.saver is not None and result.trial is not None and not result.is_reproducible:
            self.saver.discard(result.trial)
        unwritten = self._write(result)
        if self.holdout is not None:
            limited = partial(objective.limited, study, what="The evaluation of the hold-out set")
            result = with_holdout(result, self.holdout, limited=limited)
        if unwritten is not None:
            raise OutputError(unwritten, result)
        return result

    def _write(self, result: TuningResult) -> str | None:
        """Write the model that was found; why it could not be written, if so."""
        if self.saver is None or not result.met or result.trial is None:
            return None
        try:
            self.saver.write(result.trial)
        except OSError as error:
            return f"The output {str(self.saver.path)!r} could not be written: {error}"
        return None

    def _finish_promising(
        self,
        study: optuna.Study,
        objective: QuantObjective,
        observers: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
        stop: Stop,
    ) -> Stop:
        """Evaluate to the end what looked good when the search had to stop, if nothing is met.

        Up to three models, those with the fewest ops in fallback first.
        """
        tried: set[int] = set()
        found = best_met_trial(study, self.criterion, self.policy.objective)
        while found is None and len(tried) < _MOST_FINISHED:
            promising = [
                candidate
                for candidate in partial_candidates(study, self.criterion)
                if candidate.violation <= 0 and candidate.trial.number not in tried
            ]
            if not promising:
                break
            first = min(promising, key=lambda c: c.order(self.policy.objective))
            same = [c for c in promising if c.trial.params == first.trial.params]
            tried |= {candidate.trial.number for candidate in same}
            study.enqueue_trial(first.trial.params)
            try:
                _optimize_once(study, objective, observers, 1, n_trials=1)
            except KeyboardInterrupt:
                stop = Stop(StopReason.INTERRUPTED, "The search was interrupted.")
                keep_reason(study, stop)
                break
            found = best_met_trial(study, self.criterion, self.policy.objective)
            if found is not None:
                told = stop.message.removesuffix("No quantized model meets the criterion.")
                stop = Stop(
                    stop.reason,
                    f"{told}What looked best was then evaluated to its end: trial {found.number} "
                    "meets the criterion.",
                )
                keep_reason(study, stop)
        return stop


def prepare(
    model: Any = None,
    *,
    calibration_data: Any = None,
    evaluate: Evaluate | None = None,
    data: Any = None,
    metric: Metric | None = None,
    metric_bounds: tuple[float, float] | None = None,
    output_names: str | Sequence[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
    batch_size: int | None = None,
    evaluation_threads: int | None = None,
    evaluation_timeout: float | None = None,
    evidence: str | None = None,
    error_probability: float = 1e-3,
    holdout: Any = None,
    verify: bool = True,
    approach: str | None = None,
    quant_level: str | int | None = None,
    accuracy_criterion: AccuracyCriterion | None = None,
    tuning_criterion: TuningCriterion | None = None,
    op_types: Sequence[str] | str = "default",
    op_type_dict: OpDict | None = None,
    op_name_dict: OpDict | None = None,
    calibration_sizes: Sequence[int] | None = None,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    providers: Sequence[Any] | None = None,
    session_options: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
    backend: Backend | None = None,
    costs: CostsLike | None = None,
    measure_gain: bool = True,
    from_study: FromStudy | None = None,
) -> Search:
    """Check all that a search is given, before any study is opened.

    No model is evaluated for it; the FP32 model runs on a few samples.

    For the arguments see :func:`optuna_quant.tune`.

    Raises:
        TypeError:
            If an argument has the wrong type.
        ValueError:
            If an argument is not valid.
    """
    if inputs is None and isinstance(backend, HasConstantInputs):
        inputs = backend.inputs
    tuning = TuningCriterion() if tuning_criterion is None else tuning_criterion
    if accuracy_criterion is not None:
        _check_type("accuracy_criterion", accuracy_criterion, AccuracyCriterion)
    _check_type("tuning_criterion", tuning, TuningCriterion)
    strategy = choose_strategy(quant_level, tuning.strategy)
    if from_study is not None:
        check_from_study(from_study)
        check_begins_from(strategy, tuning.strategy_kwargs or {})
    check_evaluation_timeout(evaluation_timeout)
    threads = evaluation_threads
    if threads is not None:
        check_count("evaluation_threads", threads)
    else:
        is_ours = session_options is None and providers is None and backend is None
        threads = _usual_threads() if is_ours else 1
    measured = partial(
        _measure,
        metric=metric,
        criterion=accuracy_criterion,
        metric_bounds=metric_bounds,
        output_names=output_names,
        inputs=inputs,
        transform=transform,
        batch_size=batch_size,
        threads=threads,
    )
    measure = measured(evaluate, data)
    of_data = measure.sample_metric if isinstance(measure, DataEvaluation) else None
    accuracy = criterion_for(of_data, accuracy_criterion)
    check_tolerance(accuracy)
    if evaluation_threads is not None and data is None:
        raise ValueError(
            f"evaluation_threads={evaluation_threads!r} goes with data, not with evaluate."
        )
    if isinstance(calibration_data, Iterator):
        calibration_data = kept_in_memory(calibration_data, "the calibration data")
    held_out: Evaluate | None = None
    split = None
    fraction = as_fraction(holdout)
    if holdout is not None and fraction is None:
        held_out = _measure_holdout(holdout, evaluate, data, measured)
    stopping = _stopping(measure, evidence=evidence, error_probability=error_probability)
    if output is not None:
        given = {"model": model, "calibration data": calibration_data, "data": data}
        given["hold-out set"] = holdout
        check_output(output, inputs={k: v for k, v in given.items() if _is_path(v)})
    policy = ExitPolicy(
        accuracy,
        timeout=tuning.timeout,
        max_trials=tuning.max_trials,
        objective=OPS if tuning.objective is None else tuning.objective,
        stop_at_first=tuning.stop_at_first,
    )
    options = {
        "approach": approach,
        "calibration_data": calibration_data,
        "calibration_sizes": calibration_sizes,
        "inputs": inputs or None,
        "transform": transform,
        "providers": providers,
        "session_options": session_options,
        "cache_dir": cache_dir,
    }
    if backend is None:
        backend = make_backend(model, **options)
    else:
        _check_backend_alone(model, {**options, "inputs": None, "transform": None})
    space = backend.tuning_space(
        op_types=op_types, op_type_dict=op_type_dict, op_name_dict=op_name_dict
    )
    _check_quantizes(space, op_type_dict=op_type_dict, op_name_dict=op_name_dict)
    scored = None
    on_data = any(isinstance(each, DataEvaluation) for each in (measure, held_out))
    fp32 = backend.quantize(space.fp32()) if on_data else None
    if fraction is not None:
        if isinstance(measure, DataEvaluation):
            measure.check(fp32)  # The model tells a list of batches from one of samples.
        measure, held_out, split = split_holdout(measure, fraction, seed=seed)
    for each in (measure, held_out):
        if isinstance(each, DataEvaluation) and fp32 is not None:
            each.check(fp32)
            if each is measure:
                scored = check_outputs(each, fp32, backend=backend, space=space)
    given_costs = None if costs is None else as_costs(costs, space)
    sampler_of = partial(
        make_sampler,
        strategy,
        criterion=accuracy,
        seed=seed,
        kwargs=tuning.strategy_kwargs or {},
        backend=backend,
        outputs=scored,
        first_ops=_default_ops(backend) if op_types == "all" else (),
    )
    sampler = sampler_of(space)

    def with_space(chosen: TuningSpace, known: KnownObjective) -> BaseSampler:
        if chosen == space and not takes_costs(strategy):
            return sampler
        return sampler_of(chosen, costs=known.table)

    if isinstance(measure, DataEvaluation) and this_rank().is_leader:
        measure.tell_unused(fp32)
    warn_of_data(backend, measure, lambda: fp32)
    batches = batches_of(measure, space, fp32)
    if this_rank().is_leader:
        warn_of_batches(measure, batches)
    saver = None
    if output is not None:
        saver = SaveBest(output, backend=backend, space=space, policy=policy)
    return Search(
        backend=backend,
        space=space,
        sampler=sampler,
        criterion=accuracy,
        policy=policy,
        measure=measure,
        saver=saver,
        calibration_data=calibration_data,
        stopping=stopping,
        seed=seed,
        holdout=held_out,
        evaluation_timeout=evaluation_timeout,
        inputs=inputs,
        transform=transform,
        split=split,
        batches=batches,
        verify=verify,
        objective=None if tuning.objective is None else as_objective(tuning.objective),
        costs=given_costs,
        may_narrow=op_types == "default" and not op_type_dict and not op_name_dict,
        measure_gain=measure_gain,
        with_space=with_space,
        from_study=from_study,
    )


def _ask_for_direction(result: TuningResult, measure: Evaluate) -> None:
    """Warn if a function of the user's is so much better than FP32 that it may be an error."""
    named = {*metrics(), *library_metric_names()}
    is_named = isinstance(measure, DataEvaluation) and measure.metric in named
    if is_named or not result.met or result.metric is None or not result.baseline:
        return
    better = (result.metric - result.baseline) / abs(result.baseline)
    if abs(better) < _SUSPICIOUS_GAIN or (better > 0) != result.criterion.higher_is_better:
        return
    more, less = ("higher", "lower") if better > 0 else ("lower", "higher")
    option = "" if better < 0 else " (--lower-is-better)"
    _logger.warning(
        f"The metric of the quantized model is {result.metric:.6g}, and {result.baseline:.6g} in "
        f"FP32: is {more} really better? If {less} is better, use "
        f"AccuracyCriterion(higher_is_better={better < 0}){option}."
    )


def _optimize(
    study: optuna.Study,
    objective: QuantObjective,
    policy: ExitPolicy,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    *,
    show_progress: bool,
    n_jobs: int,
) -> Stop:
    """Run trials until the policy has enough; what was found before counts as well."""
    try:
        last = None
        take_out_misfits(study, objective.space)
        while True:
            stop = policy.decide(study)
            if stop is None:
                with without_repeated_lines(progress=show_progress):
                    while not _optimize_once(study, objective, [*callbacks, policy], n_jobs):
                        pass
                stop = policy.decide(study)
            if stop is None:
                stop = Stop(StopReason.CALLBACK, "A callback stopped the search.")
                break
            if _run_enqueued(study, objective, policy, callbacks, stop):
                continue
            # What others are still at may change the answer.
            last = others_running(study) if last is None else last
            timeout = getattr(study.sampler, "claim_timeout", _LAST_TRIALS_SECONDS)
            if not await_last_trials(study, last, timeout=timeout):
                break
    except KeyboardInterrupt:
        stop = Stop(StopReason.INTERRUPTED, "The search was interrupted.")
    stop = _with_queue(stop, study)
    keep_reason(study, stop)
    return stop


def _run_enqueued(
    study: optuna.Study,
    objective: QuantObjective,
    policy: ExitPolicy,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    stop: Stop,
) -> bool:
    """Evaluate what waits in the queue though the search has its answer: somebody asked for it.

    The limits of time and trials hold for it as well.

    Returns:
        Whether there was anything.
    """
    ran = False
    while stop.reason in (StopReason.MET, StopReason.EXHAUSTED, StopReason.NO_GAIN):
        take_out_misfits(study, objective.space)
        if 0 in (policy.trials_left(study), policy.seconds_left(study)):
            break
        if not any(is_for_space(trial, objective.space) for trial in waiting(study)):
            break
        only = only_enqueued(objective)
        ran = _optimize_once(study, objective, callbacks, 1, n_trials=1, function=only) or ran
    return ran


def _with_queue(stop: Stop, study: optuna.Study) -> Stop:
    """The decision to stop, which says how many trials are left in the queue."""
    left = len(waiting(study))
    if not left or stop.reason == StopReason.INTERRUPTED:
        return stop
    told = "1 enqueued trial was" if left == 1 else f"{left} enqueued trials were"
    return Stop(stop.reason, f"{stop.message} {told} not evaluated.")


def _optimize_once(
    study: optuna.Study,
    objective: QuantObjective,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    n_jobs: int,
    n_trials: int | None = None,
    function: Callable[[optuna.Trial], float] | None = None,
) -> bool:
    """Run trials; :obj:`False` if there are more to run, because one was lost to other workers."""
    threads = passed_on(objective.interrupt) if n_jobs != 1 else contextlib.nullcontext()
    try:
        with threads:
            study.optimize(
                function or objective, n_trials=n_trials, callbacks=callbacks, n_jobs=n_jobs
            )
    except (UpdateFinishedTrialError, ValueError, AssertionError) as error:
        if objective.baseline_error is not None:
            raise objective.baseline_error from objective.baseline_error.__cause__
        # Optuna cannot tell a trial that has ended: it says so with a ValueError, or stumbles.
        lost = objective.take_lost()
        if not lost and not _is_about_an_ended_trial(error):
            raise
        which = f"trial {', '.join(map(str, lost))}" if lost else "trial"
        _logger.warning(
            f"Other workers have ended this process's {which} as stale; it goes on with another "
            "one. It wrote no heartbeat for too long, because it was suspended or could not reach "
            "the storage."
        )
        return False
    finally:
        objective.resume()
    return True


def _is_about_an_ended_trial(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, UpdateFinishedTrialError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _measure(
    evaluate: Evaluate | None,
    data: Any,
    metric: Metric | None,
    criterion: AccuracyCriterion | None,
    *,
    metric_bounds: tuple[float, float] | None,
    output_names: str | Sequence[str] | None,
    inputs: Mapping[str, Any] | None,
    transform: Callable[[Any], Any] | None,
    batch_size: int | None,
    threads: int,
) -> Evaluate:
    """What gives the metric of a model."""
    if evaluate is not None and data is None:
        of_data = {
            "metric": metric,
            "output_names": output_names,
        }
        for name, value in of_data.items():
            if value is not None:
                raise ValueError(f"{name}={value!r} goes with data, not with evaluate.")
        if not callable(evaluate):
            raise TypeError(f"evaluate must be a function, but got {evaluate!r}.")
        return FunctionEvaluation(
            evaluate,
            metric_bounds=metric_bounds,
            higher_is_better=criterion is None or criterion.higher_is_better,
            batch_size=batch_size,
        )
    if data is None or evaluate is not None:
        given = "both" if evaluate is not None else "neither"
        raise ValueError(
            "Either evaluate (a function that gives the metric of a model) or data (labelled data "
            f"for a metric) is needed, but got {given}."
        )
    if metric is not None and not isinstance(metric, str):
        says = criterion is not None and criterion.says_direction
        higher = criterion.higher_is_better if criterion is not None and says else None
        metric = as_metric_of(metric, bounds=metric_bounds, higher_is_better=higher)
        metric_bounds = None
    return DataEvaluation(
        data,
        "accuracy" if metric is None else metric,
        batch_size=batch_size,
        threads=threads,
        metric_bounds=metric_bounds,
        output_names=output_names,
        inputs=inputs,
        transform=transform,
    )


def _stopping(
    measure: Evaluate, *, evidence: str | None, error_probability: float
) -> EarlyStopping | None:
    """When enough samples were seen; :obj:`None` if all are, as there is nothing to go by."""
    if evidence not in (None, "off", *METHODS):
        raise ValueError(
            f"evidence must be one of {', '.join(METHODS)} or off, but got {evidence!r}."
        )
    method = "paired" if evidence in (None, "off") else evidence
    stopping = EarlyStopping(method=method, error_probability=error_probability)
    in_full = isinstance(measure, FunctionEvaluation) and not measure.in_parts
    if in_full and evidence not in (None, "off"):
        raise ValueError(
            f"evidence={evidence!r} needs data and a metric of single samples, or a function "
            "evaluate(session, indices) that gives the scores of those that it is asked for; "
            "evaluate has no parameter named indices."
        )
    if evidence == "off":
        return None
    if not isinstance(measure, DataEvaluation):  # The first call tells what there is to go by.
        return stopping
    if measure.bounds is not None and not is_bounded(measure.bounds):
        if this_rank().is_leader:
            level = logging.WARNING if evidence in ("paired", "unpaired") else logging.INFO
            _logger.log(
                level,
                f"A configuration is given up once it certainly fails, as with evidence='exact', "
                f"because the metric {measure.name!r} has no bound on how bad the score of a "
                "sample can be. If you know one, metric_bounds=(lowest, highest) decides sooner.",
            )
        return stopping
    if measure.bounds is None:
        why = (
            "has no bounds: give metric_bounds=(lowest, highest), between which the score of each "
            "sample is"
            if measure.is_mean
            else "is no mean over samples"
        )
        if this_rank().is_leader:
            _logger.warning(
                f"Every configuration is evaluated on all samples, because the metric "
                f"{measure.name!r} {why}."
            )
        return None
    return stopping


def _measure_holdout(
    holdout: Any,
    evaluate: Evaluate | None,
    data: Any,
    measured: Callable[[Evaluate | None, Any], Evaluate],
) -> Evaluate:
    """What gives the metric of a model on the hold-out set."""
    if evaluate is None:
        check_other_data(data, holdout, what="data")
        return measured(None, holdout)
    check_other_data(evaluate, holdout, what="evaluate")
    if not callable(holdout):
        raise TypeError(
            "With evaluate, holdout must be a second function, which gives the metric of a model "
            f"on other samples, but got {holdout!r}. Labelled data go with data."
        )
    is_evaluation = isinstance(holdout, SampleEvaluation)
    return cast("Evaluate", holdout) if is_evaluation else measured(holdout, None)


def _usual_threads() -> int:
    """How many batches are run at once: two, which was faster than one at a time on all cores.

    More would be run ahead in vain once a model is given up.
    """
    return min(2, available_cores())


def _check_backend_alone(model: Any, options: Mapping[str, Any]) -> None:
    given = [name for name, value in {"model": model, **options}.items() if value is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: a backend that is given has its own; give them to the backend."
        )


def _check_type(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of the type {kind.__name__}, but got {value!r}.")


def _check_quantizes(space: TuningSpace, **dicts: OpDict | None) -> None:
    if any(tunable.quantized for tunable in space.tunables):
        return
    given = [name for name, op_dict in dicts.items() if op_dict]
    if not given:
        raise ValueError("The tuning space has no quantized option, so there is nothing to tune.")
    leave = "leaves" if len(given) == 1 else "leave"
    raise ValueError(
        f"{' and '.join(given)} {leave} no op any quantized option, so there is nothing to tune: "
        "allow a quantized mode for one op at least."
    )


def _default_ops(backend: Backend) -> Collection[str]:
    """The ops of the default space, which are searched before all others."""
    return [op.name for op in backend.capability().ops if op.default]


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)
