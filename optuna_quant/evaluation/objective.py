"""What one trial does: build the model, evaluate it unless that has been done, judge it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
from functools import cached_property
from functools import partial
import math
import threading
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias
from typing import TypeVar

import numpy as np
from optuna.exceptions import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant._optuna import fail_trial
from optuna_quant._optuna import frozen_trial
from optuna_quant._optuna import running_trial_id
from optuna_quant._optuna import set_trial_user_attr
from optuna_quant._optuna import stored_system_attrs
from optuna_quant.backends.base import ModelLoadError
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.criteria import check_one_criterion
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.function import GivenScores
from optuna_quant.evaluation.rebuild import fingerprint_of
from optuna_quant.evaluation.same_evaluation import check_evaluation
from optuna_quant.evaluation.same_evaluation import find_difference
from optuna_quant.evaluation.same_evaluation import keep_evaluation
from optuna_quant.evaluation.sampled import SampledTrial
from optuna_quant.evaluation.sampled import SampleEvaluation
from optuna_quant.evaluation.sampled import Watch
from optuna_quant.evaluation.sampled import furthest
from optuna_quant.evaluation.sampled import measure_baseline
from optuna_quant.evaluation.shared_calibration import share_calibration
from optuna_quant.evaluation.signature import signature_of
from optuna_quant.evaluation.timeout import AskedBetweenBatches
from optuna_quant.evaluation.timeout import EvaluationTimeout
from optuna_quant.evaluation.timeout import EvaluationWatch
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.evaluation.value import as_metric
from optuna_quant.evaluation.value import for_fp32
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.sequential.population import is_bounded
from optuna_quant.storages.write_buffer import buffered_writes
from optuna_quant.storages.write_buffer import unbuffered
from optuna_quant.study import record
from optuna_quant.study.compatibility import check_continued
from optuna_quant.study.enqueued import why_not
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.errors import ChangedEvaluationError
from optuna_quant.study.gone import check_file
from optuna_quant.study.record_check import check_fallback_ops
from optuna_quant.study.record_check import check_record
from optuna_quant.study.sample_record import copy_scores
from optuna_quant.study.sample_record import read_population
from optuna_quant.study.slow_trials import suspicious_after
from optuna_quant.study.waiting import Waiting


if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.artifacts import ArtifactStore


_logger = get_logger(__name__)

# How the data of a continued study are told from others: the scores of so many samples may differ
# by this part of the range, but for a few.
_COMPARED = 32
_SAME = 0.1
_MOST_DIFFERENT = 0.25

_Result = TypeVar("_Result")

Evaluate: TypeAlias = Callable[[Any], Any]


class QuantObjective:
    """Objective function of a study: the metric of the quantized model that a trial asks for.

    A trial's model is built and evaluated, unless another trial has built the same model: then
    that trial's result is taken over (or waited for, while it runs), and the trial says so. The
    result is held against the baseline, and the criterion is written to the trial as the
    constraints ``accuracy`` and ``quantized``, so that ``study.best_trial`` is the best model
    among those that are quantized and good enough.

    The baseline, the FP32 model's metric, is measured once per study: by the trial that a sampler
    of this package has given the FP32 configuration, otherwise by the first trial, before its
    own. A failed evaluation fails the trial, with the reason as its user attribute ``failure``,
    and the search goes on; a failed evaluation of the FP32 model ends it.

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
            Gives the metric of a model that ``backend.quantize`` has built, or the scores of its
            samples, see :class:`~optuna_quant.evaluation.function.FunctionEvaluation`; or it is a
            :class:`~optuna_quant.evaluation.sampled.SampleEvaluation`, which gives the scores of
            some samples. If then the study's pruner is an
            :class:`~optuna_quant.pruners.AccuracyPruner`, a model is evaluated only until its
            fate is known; the trial is pruned, with the reason as its user attribute
            ``evidence``.
        criterion:
            When a metric is good enough.
        seed:
            The seed of the order in which samples are evaluated. The first worker's counts.
        watch:
            Called with a :class:`~optuna_quant.evaluation.sampled.Seen` while a model is
            evaluated, at most ten times a second.
        wait_timeout:
            How long, in seconds, to wait for another worker's trial that measures the baseline or
            evaluates the same model and writes no heartbeat, before doing so oneself. If trials
            take longer than that, three times the longest one.
        grace_period:
            How long, in seconds, to wait for an earlier trial that has not built its model yet.
        artifact_store:
            Where workers share what calibration gives. Default: in the study itself.
        evaluation_timeout:
            After how many seconds the evaluation of a model is ended. A candidate's trial fails
            then and is not tried again; of the FP32 model it is an error. An evaluation that does
            not react, because it is in a call that does not come back, has its trial marked as
            failed, so that other workers go on. Default: never; a line is logged if an evaluation
            takes much longer than others.
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

    Raises:
        TypeError:
            If ``evaluation_timeout`` is no number.
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
        seed: int = 0,
        watch: Watch | None = None,
        wait_timeout: float = 600.0,
        grace_period: float = 5.0,
        artifact_store: ArtifactStore | None = None,
        evaluation_timeout: float | None = None,
        on_stuck: Callable[[str], None] | None = None,
        costs: Callable[[QuantConfig], Mapping[str, float]] | None = None,
        constrain: bool = True,
    ) -> None:
        natural = getattr(evaluate, "higher_is_better", criterion.higher_is_better)
        if natural != criterion.higher_is_better:
            better = "higher" if natural else "lower"
            raise ValueError(
                f"Of the metric {getattr(evaluate, 'name', evaluate)!r} {better} is better: use "
                f"AccuracyCriterion(higher_is_better={natural})."
            )
        for name, value in (("wait_timeout", wait_timeout), ("grace_period", grace_period)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, but got {value}.")
        refer_to = getattr(evaluate, "refer_to", None)
        if refer_to is not None:
            refer_to(lambda: backend.quantize(space.fp32()))
        if not isinstance(evaluate, SampleEvaluation):
            evaluate = FunctionEvaluation(evaluate, higher_is_better=criterion.higher_is_better)
        self._backend = backend
        self._space = space
        self._evaluate = evaluate
        self._criterion = criterion
        self._wait_timeout = wait_timeout
        self._grace_period = grace_period
        self._artifact_store = artifact_store
        self._seed = seed
        self._costs = costs
        self._constrain = constrain
        self._watch = watch
        # What this process knows of trials that were not told yet, by study and trial number.
        self._values: dict[tuple[str, int], float] = {}
        self._has_measured: set[str] = set()
        self._populations: dict[str, Population | None] = {}
        # The studies that were begun with the same things, and those whose metrics are ours.
        self._fitting: set[str] = set()
        self._comparable: set[str] = set()
        self._judged_anew: set[str] = set()  # By another criterion than they were begun with.
        self._check_lock = threading.RLock()
        self._lost: list[int] = []
        self._at_work: set[tuple[str, int]] = set()
        self._given_up: dict[str, set[tuple[int, bool]]] = {}
        self._evaluations = EvaluationWatch(evaluation_timeout, on_stuck=on_stuck)
        self._baseline_error: BaselineError | None = None

    @property
    def space(self) -> TuningSpace:
        """The tuning space."""
        return self._space

    def __call__(self, trial: optuna.Trial, *, anew: bool = False) -> float:
        """Run one trial.

        Args:
            trial:
                The trial.
            anew:
                Whether to evaluate its model even if another configuration gave the same one.

        Returns:
            The metric; NaN, which Optuna records as a failed trial, if there is none.

        Raises:
            BaselineError:
                If the FP32 model cannot be evaluated.
            StudyGoneError:
                If the file of the study was removed.
            optuna.exceptions.UpdateFinishedTrialError:
                If another worker has ended the trial meanwhile.
            ValueError:
                If the study's direction contradicts the criterion.
        """
        check_file(trial.study)
        self._criterion.check_direction(trial.study)
        self.check_continued(trial.study)
        place = (trial.study.study_name, trial.number)
        self._at_work.add(place)
        try:
            # In one transaction and late: until then, its claim says what it evaluates.
            with buffered_writes(trial, attributes=True):
                return self._run(trial, anew=anew)
        except UpdateFinishedTrialError:
            self._lost.append(trial.number)
            raise
        finally:
            self._at_work.discard(place)

    def forget(self, study: optuna.Study) -> None:
        """Forget what is known of a study, because another one has taken its name."""
        name = study.study_name
        for names in (self._has_measured, self._fitting, self._comparable, self._judged_anew):
            names.discard(name)
        self._populations.pop(name, None)
        self._given_up.pop(name, None)
        self._values = {key: value for key, value in self._values.items() if key[0] != name}

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
        self._evaluations.interrupt()

    def resume(self) -> None:
        """Let evaluations run again."""
        self._evaluations.resume()

    def limited(
        self,
        study: optuna.Study,
        evaluate: Callable[[], _Result],
        *,
        what: str,
        give_up: Callable[[str], None] | None = None,
    ) -> _Result:
        """Run an evaluation that is not of a trial; it may take as long as one of a trial.

        Args:
            study:
                The study.
            evaluate:
                Evaluates.
            what:
                What is evaluated, for messages.
            give_up:
                Called with the reason, in another thread, if it cannot be ended.

        Raises:
            EvaluationTimeout:
                If it took longer.
        """
        with exits_are_errors(what):
            return self._evaluations.run(
                lambda check: evaluate(),
                what=what,
                give_up=give_up,
                usual_seconds=lambda: suspicious_after(study.get_trials(deepcopy=False)),
            )

    @property
    def baseline_error(self) -> BaselineError | None:
        """Why the FP32 model could not be evaluated, if so."""
        return self._baseline_error

    def _run(self, trial: optuna.Trial, *, anew: bool) -> float:
        study = trial.study
        try:
            config = self._space.suggest(trial)
        except ValueError:
            reason = why_not(stored_system_attrs(trial).get("fixed_params", {}), self._space)
            if reason is None:
                raise
            self._fail(trial, reason, final=True)
            return math.nan
        with unbuffered(trial):  # A sign that it has begun.
            trial.set_user_attr(record.FALLBACK_OPS, len(config.fallback_ops))
        self._record_costs(trial, config)
        if config == self._space.fp32():
            value = self._fp32_metric(trial)
            return self._judge(trial, config, value, self._waiting(study), math.nan)
        waiting = self._waiting(study)
        # First, if nobody else does: what is wrong with the evaluation shows at once.
        baseline = self._baseline(trial, waiting, block=False)
        # Not inside the trial's own errors: unusable calibration data end the search.
        share_calibration(study, self._backend, artifact_store=self._artifact_store)
        found = self._metric(trial, config, waiting, anew=anew)
        return math.nan if found is None else self._judge(trial, config, found, waiting, baseline)

    def _judge(
        self,
        trial: optuna.Trial,
        config: QuantConfig,
        value: float,
        waiting: Waiting,
        baseline: float,
    ) -> float:
        """Hold a metric against the baseline (NaN: not known yet), and write down the verdict."""
        if math.isnan(baseline):
            baseline = self._baseline(trial, waiting, block=True)
        violation = self._criterion.violation(value, baseline)
        # What was built counts: a backend may not have done what was asked.
        built = trial.user_attrs.get(record.FINGERPRINT)
        quantized = bool(config.quantized_ops) and built != self._backend.fingerprint(
            self._space.fp32()
        )
        if self._constrain:
            trial.set_constraint(record.ACCURACY, violation)
            trial.set_constraint(record.QUANTIZED, 0.0 if quantized else 1.0)
        trial.set_user_attr(record.LOSS, self._criterion.loss(value, baseline))
        if trial.study.study_name in self._judged_anew:
            trial.storage.set_trial_system_attr(
                running_trial_id(trial), record.JUDGED_BY, asdict(self._criterion)
            )
        if quantized:
            trial.set_user_attr(record.MET, violation <= 0)
        return value

    # The baseline.

    def _fp32_metric(self, trial: optuna.Trial) -> float:
        value = self._baseline(trial, self._waiting(trial.study), block=True, own=True)
        measured = record.get_baseline(trial.study)
        if measured is not None and measured.trial not in (None, trial.number):
            trial.set_user_attr(record.REUSED_FROM, measured.trial)
        return value

    def _baseline(
        self, trial: optuna.Trial, waiting: Waiting, *, block: bool, own: bool = False
    ) -> float:
        """The baseline, which one trial measures while the others wait.

        A trial whose sampler has given it the baseline comes first, then the lowest number.

        Args:
            trial:
                The trial that needs it.
            waiting:
                Says whether to wait.
            block:
                Whether to wait. Otherwise NaN if another trial is at it.
            own:
                Whether FP32 is the trial's own configuration.
        """
        while True:
            baseline = record.get_baseline(trial.study)
            if baseline is not None:
                self._check_evaluation(trial.study)
                return baseline.value
            running = _running(trial.study)
            mine = [_turn(t) for t in running if t.number == trial.number]
            if not waiting.is_for([t for t in running if [_turn(t)] < mine]):
                # Who measured it may have ended between the two looks.
                if record.get_baseline(trial.study) is not None:
                    continue
                return self._measure_baseline(trial, own=own)
            if not block:
                return math.nan
            waiting.pause()

    def _measure_baseline(self, trial: optuna.Trial, *, own: bool) -> float:
        _logger.info("Measuring the baseline: the metric of the FP32 model.")
        fp32 = self._space.fp32()
        try:
            model = self._backend.quantize(fp32)
            returned, population = self._run_evaluation(
                trial,
                lambda check: self._evaluate_baseline(trial, model, check),
                of_baseline=True,
            )
        except Exception as error:
            self._baseline_error = BaselineError(
                f"The FP32 model could not be evaluated: {_reason(error)}"
            )
            raise self._baseline_error from error
        try:
            value = as_metric(
                returned,
                higher_is_better=self._criterion.higher_is_better,
                what="The evaluation of the FP32 model",
            )
            self._criterion.check_baseline(value)
        except ValueError as error:
            raise BaselineError(str(error)) from None
        if own:
            _describe(trial, model, self._fingerprint(model, fp32))
            self._record_costs(trial, fp32)
        measured = record.get_baseline(trial.study)
        if measured is None:
            measured = record.Baseline(value, trial.number, population)
            self._has_measured.add(trial.study.study_name)
            keep_evaluation(trial.study, self._signature)
            record.set_baseline(trial.study, measured)
            self._comparable.add(trial.study.study_name)
        _logger.info(f"The metric of the FP32 model is {measured.value}.")
        return measured.value

    def _evaluate_baseline(
        self,
        trial: optuna.Trial,
        model: Any,
        check: Callable[[], None],
    ) -> tuple[Any, str | None]:
        """The metric, and the key under which the study keeps the scores of single samples."""
        evaluation: Any = for_fp32(self._evaluate)
        if isinstance(evaluation, FunctionEvaluation):
            evaluation = evaluation.see_fp32(model)
            if not isinstance(evaluation, GivenScores):
                return evaluation, None
            evaluation.warn(wants_bounds=isinstance(trial.study.pruner, AccuracyPruner))
        samples = self._samples(trial.study)  # Of a function it is known only now.
        if samples is None:
            is_given = isinstance(evaluation, GivenScores)
            return evaluation.mean if is_given else evaluation(model), None
        return measure_baseline(
            trial,
            model,
            AskedBetweenBatches(evaluation, check),
            self._criterion,
            error_probability=samples.error_probability,
            method=samples.method,
            seed=self._seed,
            watch=self._watch,
        )

    # A candidate.

    def _metric(
        self, trial: optuna.Trial, config: QuantConfig, waiting: Waiting, *, anew: bool
    ) -> float | None:
        """The metric of a candidate; :obj:`None`, with the reason in the trial, if it failed."""
        is_first = getattr(trial.study.sampler, "is_first", None)
        known = is_first is None or not is_first(trial.study, trial.number)
        twin = self._same_parameters(trial) if known else None
        sampled = None
        if twin is None:
            try:
                model = self._backend.quantize(config)
                fingerprint = self._fingerprint(model, config)
            except Exception as error:
                self._fail(trial, f"Not built: {_reason(error)}", final=True)
                return None
            _describe(trial, model, fingerprint)
            self._record_costs(trial, config)
            twin = None if anew else self._same_model(trial, fingerprint, waiting)
            sampled = self._sampled(trial, waiting) if twin is None else None
        if twin is not None:
            value = self._take_over(trial, *twin)
            self._record_costs(trial, config)
            return value
        try:
            if sampled is None:
                returned = self._run_evaluation(trial, lambda check: self._measured(model))
            else:
                returned = self._evaluate_samples(trial, model, fingerprint, *sampled)
        except TrialPruned:
            raise
        except KeyboardInterrupt:
            trial.set_user_attr(record.INTERRUPTED, True)  # It is no failure of the model.
            raise
        except Exception as error:
            if (unloaded := _load_error(error)) is not None:
                self._fail(trial, f"Not loaded: {_reason(unloaded)}", final=True)
            else:
                late = isinstance(error, EvaluationTimeout)
                self._fail(trial, f"Not evaluated: {_reason(error)}", final=late)
            return None
        full = self._with_samples(trial, waiting) if isinstance(returned, GivenScores) else None
        try:
            if isinstance(returned, GivenScores):
                returned = returned.mean if full is None else full.see_all(model, returned)
            value = as_metric(returned, higher_is_better=self._criterion.higher_is_better)
        except ValueError as error:
            self._fail(trial, str(error), final=True)
            return None
        self._values[(trial.study.study_name, trial.number)] = value
        return value

    def _run_evaluation(
        self,
        trial: optuna.Trial,
        evaluate: Callable[[Callable[[], None]], _Result],
        *,
        of_baseline: bool = False,
    ) -> _Result:
        """Run what the user has given: it neither ends this process nor holds it for ever."""
        study = trial.study
        what = f"The evaluation of trial {trial.number}"

        def give_up(reason: str) -> None:
            # Not by the trial, which holds back what it writes until it ends.
            frozen = frozen_trial(trial)
            set_trial_user_attr(study, frozen, record.FAILURE, f"Not evaluated: {reason}")
            if not of_baseline:
                set_trial_user_attr(study, frozen, record.FAILURE_IS_FINAL, True)
            fail_trial(study, frozen)

        with exits_are_errors("The evaluation"):
            return self._evaluations.run(
                evaluate,
                what=f"{what} (the FP32 model)" if of_baseline else what,
                give_up=give_up,
                usual_seconds=lambda: suspicious_after(study.get_trials(deepcopy=False)),
                can_be_asked=(found := self._samples(study)) is not None and found.in_parts,
            )

    def _call(self, model: Any) -> Any:
        return self._evaluate(model)  # type: ignore[operator]

    def _measured(self, model: Any) -> Any:
        """The metric of a model, or the scores that a function gives for all samples."""
        evaluate = self._evaluate
        if isinstance(evaluate, FunctionEvaluation):
            return evaluate.measure(model)
        return self._call(model)

    # Sample by sample.

    def _samples(self, study: optuna.Study) -> _Samples | None:
        """How samples are evaluated one by one; :obj:`None` if models are evaluated in full."""
        evaluation, pruner = self._evaluate, study.pruner
        if not isinstance(pruner, AccuracyPruner):
            return None
        if isinstance(evaluation, FunctionEvaluation) and not evaluation.is_known:
            found = read_population(study)
            if found is not None:
                evaluation.adopt(found.samples, found.bounds)
        if not isinstance(evaluation, SampleEvaluation) or evaluation.bounds is None:
            return None
        method = pruner.method if is_bounded(evaluation.bounds) else "exact"
        return _Samples(evaluation, pruner.error_probability, method)

    def _sampled(
        self, trial: optuna.Trial, waiting: Waiting
    ) -> tuple[SampleEvaluation, SampledTrial] | None:
        """What evaluates a candidate until enough is known; :obj:`None` if it is in full."""
        if not _in_parts(self._evaluate):
            return None
        sampled = self._with_samples(trial, waiting)
        samples = self._samples(trial.study)
        return None if sampled is None or samples is None else (samples.evaluation, sampled)

    def _with_samples(self, trial: optuna.Trial, waiting: Waiting) -> SampledTrial | None:
        """What keeps the scores of a candidate; :obj:`None` if none are kept."""
        samples = self._samples(trial.study)
        is_open = isinstance(self._evaluate, FunctionEvaluation) and not self._evaluate.is_known
        if samples is None and not (is_open and isinstance(trial.study.pruner, AccuracyPruner)):
            return None
        # Nothing can be judged before the baseline is known, which tells what a function gives.
        baseline = self._baseline(trial, waiting, block=True)
        samples = self._samples(trial.study)
        population = None if samples is None else self._population(trial.study, samples)
        if population is None:
            return None
        goal, caution = record.goal_of(stored_system_attrs(trial), trial.number)
        return SampledTrial(
            trial, population, self._criterion, baseline, goal=goal, caution=caution
        )

    def check_continued(self, study: optuna.Study) -> None:
        """Refuse a study that was begun with something else; each trial does so as well.

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
        check_one_criterion(
            objective=self._criterion,
            sampler=getattr(study.sampler, "criterion", None),
            pruner=getattr(study.pruner, "criterion", None),
        )
        name = study.study_name
        if name in self._fitting:
            return
        with self._check_lock:
            if name in self._fitting:
                return
            check_record(study)
            check_continued(study, self._backend, self._space, self._criterion)
            check_fallback_ops(study, self._space)
            self._check_evaluation(study)
            if study.user_attrs.get(record.CRITERION) != asdict(self._criterion):
                self._judged_anew.add(name)
            self._fitting.add(name)

    @cached_property
    def _signature(self) -> dict[str, str]:
        return signature_of(self._evaluate)

    def _check_evaluation(self, study: optuna.Study) -> None:
        """Make sure that the metrics of the study are those of this evaluation."""
        if study.study_name in self._comparable:
            return
        with self._check_lock:
            if study.study_name in self._comparable:
                return
            samples = self._samples(study)
            if samples is not None and record.get_baseline(study) is not None:
                self._population(study, samples)

            def differs() -> str | None:
                return find_difference(
                    study,
                    backend=self._backend,
                    space=self._space,
                    criterion=self._criterion,
                    evaluate=self._call,
                    samples=None if samples is None else samples.evaluation,
                    calibrate=lambda: share_calibration(
                        study, self._backend, artifact_store=self._artifact_store
                    ),
                    limited=partial(self.limited, study, what="Measuring a model once more"),
                )

            if check_evaluation(study, self._signature, differs, timeout=self._wait_timeout):
                self._comparable.add(study.study_name)

    def _population(self, study: optuna.Study, samples: _Samples) -> Population | None:
        name = study.study_name
        if name not in self._populations:
            found = read_population(study)
            self._check_population(samples, found, is_own=name in self._has_measured)
            self._populations[name] = found
        return self._populations[name]

    def _check_population(
        self, samples: _Samples, population: Population | None, *, is_own: bool
    ) -> None:
        evaluation = samples.evaluation
        if population is None:
            _logger.warning(
                "The study's baseline was measured without single samples, so every model is "
                "evaluated in full. For fewer evaluations begin a new study."
            )
            return
        name = str(getattr(evaluation, "name", ""))
        if name != population.metric_name:
            began, used = _shown_metric(population.metric_name), _shown_metric(name)
            raise ChangedEvaluationError(
                f"The study was begun with {began}, but here it is {used}. Use the same metric, "
                "or another study name or storage."
            )
        if population.samples != evaluation.samples or population.bounds != evaluation.bounds:
            raise ChangedEvaluationError(
                f"The study was begun with {population.samples} evaluation samples and scores "
                f"from {population.bounds[0]:g} to {population.bounds[1]:g}, but here there are "
                f"{_shown(evaluation)}. Use the same data and metric, or another study name or "
                "storage."
            )
        is_asked = _in_parts(evaluation) and not is_own  # In full it would cost as much as FP32.
        if is_asked and not self._gives_the_same(evaluation, population):
            raise ChangedEvaluationError(
                "The FP32 model has other scores here than in the study: it was begun with other "
                "evaluation data. Use the same data, in the same order, or another study name or "
                "storage."
            )
        method = population.method, population.error_probability
        if method != (samples.method, samples.error_probability):
            _logger.warning(
                f"The study was begun with the method {method[0]!r} and the error probability "
                f"{method[1]:g}, which are kept; {samples.method!r} and "
                f"{samples.error_probability:g} take effect in a new study."
            )

    def _gives_the_same(self, evaluation: SampleEvaluation, population: Population) -> bool:
        """Whether the FP32 model has the scores that the study keeps, by the easiest samples.

        A few may differ: other processors round in other ways.
        """
        some = population.order.indices[-_COMPARED:]
        model = self._backend.quantize(self._space.fp32())
        found = for_fp32(evaluation).scores(model, some.copy())
        scores = np.concatenate([np.array(each) for each in found])
        differ = np.abs(scores - population.baseline[some]) > _SAME * population.scale
        return bool(differ.mean() <= _MOST_DIFFERENT)

    def _evaluate_samples(
        self,
        trial: optuna.Trial,
        model: Any,
        fingerprint: str,
        evaluation: SampleEvaluation,
        sampled: SampledTrial,
    ) -> float:
        before = furthest(trial.study.get_trials(deepcopy=False), fingerprint, sampled.population)
        if before is None or not sampled.take_over(before):
            self._run_evaluation(
                trial,
                lambda check: sampled.evaluate(
                    model, AskedBetweenBatches(evaluation, check), self._watch
                ),
            )
        return sampled.conclude()

    def _fingerprint(self, model: Any, config: QuantConfig) -> str:
        return fingerprint_of(model, config, self._backend)

    def _fail(self, trial: optuna.Trial, reason: str, *, final: bool) -> None:
        _logger.warning(f"Trial {trial.number} failed. {reason}")
        trial.set_user_attr(record.FAILURE, reason)
        if final:
            trial.set_user_attr(record.FAILURE_IS_FINAL, True)

    def _record_costs(self, trial: optuna.Trial, config: QuantConfig) -> None:
        """Write down what the model costs, with its real size once it was built."""
        found = {OPS: float(len(config.fallback_ops))}
        if self._costs is not None:
            found |= self._costs(config)
        if record.MODEL_BYTES in trial.user_attrs:
            found[SIZE] = float(trial.user_attrs[record.MODEL_BYTES])
        trial.set_user_attr(record.COSTS, found)

    # One model, one evaluation.

    def _same_parameters(self, trial: optuna.Trial) -> tuple[FrozenTrial, float] | None:
        """A complete trial of the same configuration, which needs not even be built."""
        params = trial.params
        for other in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if other.params == params:
                return other, other.values[0]
        return None

    def _same_model(
        self, trial: optuna.Trial, fingerprint: str, waiting: Waiting
    ) -> tuple[FrozenTrial, float] | None:
        """The first trial that has evaluated the same model; waits if an earlier one does."""
        name = trial.study.study_name
        while True:
            # One look for both: a trial that ends between two looks would be in neither.
            trials = trial.study.get_trials(deepcopy=False)
            for other in trials:
                if other.state != TrialState.COMPLETE:
                    continue
                if other.user_attrs.get(record.FINGERPRINT) == fingerprint:
                    return other, other.values[0]
            begun: list[FrozenTrial] = []
            silent: list[FrozenTrial] = []
            for other in trials:
                if other.state != TrialState.RUNNING:
                    continue
                theirs = other.user_attrs.get(record.FINGERPRINT)
                if theirs == fingerprint and (name, other.number) in self._values:
                    return other, self._values[(name, other.number)]
                if other.number < trial.number:
                    if theirs == fingerprint:
                        begun.append(other)
                    elif theirs is None and not record.is_baseline(other):
                        # What it is building may turn out to be the same.
                        builds = record.FALLBACK_OPS in other.user_attrs
                        (begun if builds else silent).append(other)
            if not waiting.is_for(begun, silent):
                return None
            waiting.pause()

    def _take_over(self, trial: optuna.Trial, other: FrozenTrial, value: float) -> float:
        number = other.user_attrs.get(record.REUSED_FROM, other.number)
        _logger.info(
            f"Trial {trial.number} has the same model as trial {number} and takes over its result."
        )
        trial.set_user_attr(record.REUSED_FROM, number)
        for name in (record.FINGERPRINT, record.MODEL_BYTES, record.DEPENDS_ON_BATCH):
            if name in other.user_attrs and name not in trial.user_attrs:
                trial.set_user_attr(name, other.user_attrs[name])
        # Read again: it may have ended since.
        copy_scores(trial, trial.study.get_trials(deepcopy=False)[other.number])
        return value

    def _waiting(self, study: optuna.Study) -> Waiting:
        def timeout() -> float:
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            times = (t.duration.total_seconds() for t in finished if t.duration)
            return max(self._wait_timeout, 3 * max(times, default=0.0))

        return Waiting(
            is_at_work=lambda number: (study.study_name, number) in self._at_work,
            timeout=timeout,
            grace_period=self._grace_period,
            given_up=self._given_up.setdefault(study.study_name, set()),
        )


@dataclass(frozen=True)
class _Samples:
    """How samples are evaluated one by one."""

    evaluation: SampleEvaluation
    error_probability: float
    method: str

    @property
    def in_parts(self) -> bool:
        """Whether candidates can be evaluated on some of the samples."""
        return _in_parts(self.evaluation)


def _shown_metric(name: str) -> str:
    return f"the metric {name!r}" if name else "a metric without a name"


def _in_parts(evaluation: Any) -> bool:
    return bool(getattr(evaluation, "in_parts", True))


def _shown(evaluation: SampleEvaluation) -> str:
    low, high = evaluation.bounds or (math.nan, math.nan)
    return f"{evaluation.samples} with scores from {low:g} to {high:g}"


def _describe(trial: optuna.Trial, model: Any, fingerprint: str) -> None:
    """Write down which model was built, and its size."""
    with unbuffered(trial):
        trial.set_user_attr(record.FINGERPRINT, fingerprint)
    size = getattr(model, "nbytes", None)
    if size is not None:
        trial.set_user_attr(record.MODEL_BYTES, int(size))
    if getattr(model, "depends_on_batch", False) is True:
        trial.set_user_attr(record.DEPENDS_ON_BATCH, True)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _turn(trial: FrozenTrial) -> tuple[bool, int]:
    """Sorts trials by who measures the baseline."""
    return not record.is_baseline(trial), trial.number


def _load_error(error: BaseException | None) -> ModelLoadError | None:
    """The failure to load the model that is behind an error of the evaluation, if there is one."""
    while error is not None and not isinstance(error, ModelLoadError):
        error = error.__cause__ or error.__context__
    return error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
