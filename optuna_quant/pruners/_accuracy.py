"""Stop evaluating a candidate that cannot, or very likely will not, meet the criterion."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
import math
import threading
from typing import TYPE_CHECKING
from typing import Any
import weakref

from optuna.logging import get_logger
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.criteria import check_is_criterion
from optuna_quant.pruners._scores import UnitScores
from optuna_quant.pruners._trial_test import Reference
from optuna_quant.pruners._trial_test import TrialTest
from optuna_quant.pruners._watched import Watched
from optuna_quant.sequential import Decision
from optuna_quant.sequential.methods import check_error_probability
from optuna_quant.sequential.methods import check_method
from optuna_quant.sequential.uniform_threshold import PartialSum
from optuna_quant.sequential.uniform_threshold import mean_bounds
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.evidence import Evidence
from optuna_quant.study.judgement import Judgement
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import StoredTrialWriter


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


_logger = get_logger(__name__)

_CACHED_TRIALS = 64


_NO_BASELINE = (
    "the study has no baseline, the metric of the FP32 model, to compare with. The samplers of "
    "optuna_quant evaluate it first; with another one, evaluate space.fp32() in a trial and keep "
    "it with optuna_quant.study.baseline.set_baseline(study, Baseline(value, trial=number))."
)
_NO_REPORTS = (
    "the trial of the baseline has reported nothing to compare with. Report the mean so far for "
    "the FP32 model as well."
)


class AccuracyPruner(BasePruner):
    """Prune a trial of an objective that reports, once it does not meet the criterion.

    For objectives of your own; :class:`~optuna_quant.QuantObjective` does not report, and takes
    an :class:`~optuna_quant.EarlyStopping` instead, which tests single samples in an order of its
    own (:class:`~optuna_quant.sequential.WeightedThresholdTest`). Here the test is
    :class:`~optuna_quant.sequential.uniform_threshold.UniformThresholdTest`.

    For metrics that are a mean over samples of a score between two known bounds, such as
    accuracy. The objective reports the mean so far after each batch::

        trial.report(mean_so_far, step=samples_seen)
        if trial.should_prune():
            raise optuna.TrialPruned

    How many samples there are it learns from the baseline, which must have been reported in the
    same way, to its last sample; without it, nothing is pruned.

    A trial is pruned in two cases. First, if it could not meet the criterion even if every
    sample that is left had the best score there is; that is never wrong. Second, unless
    ``method`` is ``"exact"``, if the scores so far would be too unlikely for a candidate that
    meets it. A candidate that meets the criterion is pruned with at most the error probability,
    over all looks together, however often it reports. This holds if the samples come **in one
    uniformly shuffled order**, the same in all trials, and for each candidate that was not
    chosen for how it does on the first samples of that order; data sorted by class must be
    shuffled once, or pruned with ``"exact"``. With smaller groups between reports
    it decides earlier. Report means as they are: rounded ones may be pruned wrongly.

    The pruned trial says why in its user attribute ``"evidence"``, a dict: ``decision``
    (``"fails"``), ``samples`` seen ``of`` all, the mean over them (``estimate``), ``bounds`` of
    the final metric (a lower and an upper one, each wrong with at most the error probability),
    ``method``, ``error_probability`` (0 if it could not meet the criterion any more), and the
    ``reason`` in words.

    Args:
        criterion:
            When a metric is good enough.
        error_probability:
            The probability to prune a candidate that meets the criterion: above 0 and below 1.
        method:
            ``"paired"``: bet on the candidate's scores and on their differences to the
            baseline's, over the samples after which both have reported. ``"unpaired"``: on the
            candidate's alone. ``"exact"``: only the bound that is never wrong.
        bounds:
            The worst and the best score that a sample can have; either order. Default: 0 and 1.

    Raises:
        TypeError:
            If the error probability is not a number.
        ValueError:
            If the bounds are equal or not finite, the error probability is out of its range, or
            the method is unknown.
    """

    def __init__(
        self,
        criterion: AccuracyCriterion,
        *,
        error_probability: float = 1e-3,
        method: str = "paired",
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        check_is_criterion(criterion)
        try:
            low, high = sorted(map(float, bounds))
        except (TypeError, ValueError):
            raise ValueError(
                f"bounds must be two different finite numbers, but got {bounds!r}."
            ) from None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"bounds must be two different finite numbers, but got {bounds}.")
        check_error_probability(error_probability)
        check_method(method)
        self._criterion: AccuracyCriterion = criterion
        self._error_probability: float = float(error_probability)
        self._method: str = method
        self._scores = UnitScores(float(low), float(high), criterion.higher_is_better)
        self._forget()

    @property
    def criterion(self) -> AccuracyCriterion:
        """When a metric is good enough."""
        return self._criterion

    @property
    def error_probability(self) -> float:
        """The probability to prune a candidate that meets the criterion."""
        return self._error_probability

    @property
    def method(self) -> str:
        """``"paired"``, ``"unpaired"`` or ``"exact"``."""
        return self._method

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what can be computed again from the study."""
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_tests", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with nothing computed."""
        vars(self).update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._tests: OrderedDict[int, TrialTest] = OrderedDict()
        self._known: _KnownReference | None = None
        self._has_told = False

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial does not meet the criterion, as far as its reports tell.

        Raises:
            ValueError:
                If a reported value is out of the bounds, or no mean over all samples so far.
        """
        step = trial.last_step
        if step is None or math.isnan(trial.intermediate_values[step]):
            return False
        baseline = get_baseline(study)
        if baseline is None:
            self._tell(study, trial, _NO_BASELINE)
        if baseline is None or TrialView(trial).is_baseline or trial.number == baseline.trial:
            return False
        reference = self._reference(study, baseline)
        if reference is None:
            self._tell(study, trial, _NO_REPORTS)
        if reference is None or not 0 < step <= reference.size:
            return False
        mean = trial.intermediate_values[step]
        scaled = self._scores.of_report(mean, step, trial.number)
        best = self._scores.best_outcome(mean, step, reference.size)
        if not self._criterion.meets(best, baseline.value):
            history = [PartialSum(step, scaled * step)]
            reason = (
                f"even if each of the {reference.size - step} samples that are left had the best "
                f"score, the metric would be {best:.6g}"
                if step < reference.size
                else f"the metric over all {step} samples is {mean:.6g}"
            )
        elif self._method == "exact":
            return False
        else:
            test = self._test(
                trial, reference, self._scores.threshold(self._criterion, baseline.value)
            )
            if not test.rejects(self._error_probability):
                return False
            history, reason = test.history, ""
        self._keep_evidence(study, trial, reference, baseline, history, reason)
        return True

    def _tell(self, study: optuna.Study, trial: FrozenTrial, why: str) -> None:
        """Say once why nothing can be pruned, when another trial has ended before this one."""
        if self._has_told or TrialView(trial).is_baseline:
            return
        done = (TrialState.COMPLETE,)
        if not study.get_trials(deepcopy=False, states=done):
            return
        self._has_told = True
        _logger.warning(f"AccuracyPruner prunes nothing in the study {study.study_name!r}: {why}")

    def watch(self, trial: optuna.Trial) -> Watched:
        """What decides in the objective itself; also in studies with several objectives.

        There ``trial.report`` raises. Use this in its place, for the baseline as well::

            watched = pruner.watch(trial)
            ...
            if watched.report(mean_so_far, step=samples_seen):
                raise optuna.TrialPruned

        The first objective is the one that the criterion is about.

        Args:
            trial:
                The trial that runs.
        """
        return Watched(self, trial)

    # What is computed from the study, and kept as long as the study says the same.

    def _reference(self, study: optuna.Study, baseline: Baseline) -> Reference | None:
        """What the baseline's trial has reported; :obj:`None` if nothing."""
        if baseline.trial is None:
            return None
        storage, study_id = _optuna.study_identity(study)
        known = self._known
        key = (study_id, baseline.trial)
        if known is not None and known.storage() is storage and known.key == key:
            return known.reference
        view = TrialView(study.get_trials(deepcopy=False)[baseline.trial])
        reports = view.reports
        if not reports:
            return None
        size = max(reports)
        totals: dict[int, float] = {}
        mean = None
        if self._method == "paired":
            totals = {
                step: step * self._scores.of_report(value, step, view.number)
                for step, value in reports.items()
                if step > 0 and not math.isnan(value)
            }
            if size in totals and len(totals) > 1:
                mean = totals[size] / size
        reference = Reference(size, mean, totals if mean is not None else {})
        if view.is_finished:  # From now on it does not change.
            self._known = _KnownReference(weakref.ref(storage), key, reference)
        return reference

    def _test(self, trial: FrozenTrial, reference: Reference, threshold: float) -> TrialTest:
        """The test over all that the trial has reported, started where the last call ended."""
        reports = sorted(
            (step, value)
            for step, value in trial.intermediate_values.items()
            if step > 0 and value == value
        )
        key = _optuna.trial_id(trial)
        with self._lock:  # Taken out, so that no other thread adds to it.
            test = self._tests.pop(key, None)
        if test is None or not test.is_of(reports, reference, threshold):
            test = TrialTest(reference, threshold)
        for step, value in reports[len(test.reports) :]:
            test.add(step, value, self._scores.of_report(value, step, trial.number), trial.number)
        with self._lock:
            self._tests[key] = test
            while len(self._tests) > _CACHED_TRIALS:
                self._tests.popitem(last=False)
        return test

    def _keep_evidence(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        reference: Reference,
        baseline: Baseline,
        history: list[PartialSum],
        reason: str,
    ) -> None:
        if TrialView(trial).evidence is not None or trial.state.is_finished():
            return
        samples, size = history[-1].samples, reference.size
        error_probability = 0.0 if reason else self._error_probability
        estimate = trial.intermediate_values[samples]
        if reason:
            total = history[-1].total
            found = (total / size, (total + size - samples) / size)
        else:
            found = mean_bounds(
                history, size, error_probability=self._error_probability, baseline=reference.mean
            )
        low, high = sorted(map(self._scores.value_of, found))
        if not reason:
            at_best = "most" if self._criterion.higher_is_better else "least"
            likely = high if self._criterion.higher_is_better else low
            reason = (
                f"with error probability {self._error_probability:g}, the metric over all {size} "
                f"samples will be at {at_best} {likely:.6g}; it is {estimate:.6g} over the first "
                f"{samples}"
            )
        threshold = self._criterion.threshold(baseline.value)
        needed = "at least" if self._criterion.higher_is_better else "at most"
        evidence = Evidence(
            decision=Decision.FAILS.value,
            samples=samples,
            of=size,
            estimate=estimate,
            bounds=(low, high),
            reason=f"{reason[0].upper()}{reason[1:]}; the criterion needs {needed} "
            f"{threshold:.6g}.",
            method=self._method,
            error_probability=error_probability,
        )
        # Not that the criterion is missed: whether the trial ends with it is up to its objective.
        judgement = Judgement(evidence=evidence)
        write_judgement(judgement, StoredTrialWriter(study, trial))
        # Optuna gives a running trial's own attributes, not those in the storage.
        trial.user_attrs.update(judgement.user_attrs)


@dataclass(frozen=True)
class _KnownReference:
    storage: weakref.ref[object]
    key: tuple[int, int]
    reference: Reference
