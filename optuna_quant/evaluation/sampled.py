"""Evaluate a model sample by sample, until enough is known."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.exceptions import TrialPruned
from optuna.trial import TrialState

from optuna_quant.evaluation.sample_evaluation import EvaluationProgress
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.sample_evaluation import Watch
from optuna_quant.evaluation.sample_evaluation import check_scores
from optuna_quant.evaluation.sample_evaluation import checked_batch
from optuna_quant.sequential import Decision
from optuna_quant.sequential import Population
from optuna_quant.sequential import WeightedThresholdTest
from optuna_quant.sequential.weighted_threshold import bounds
from optuna_quant.study import record
from optuna_quant.study.evidence import COMPLETE
from optuna_quant.study.evidence import Evidence
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity
from optuna_quant.study.judgement import judge_by_samples
from optuna_quant.study.judgement import write_judgement
from optuna_quant.study.sample_record import write_scores
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_writer import RunningTrialWriter


if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import NativeModel
    from optuna_quant.criteria import AccuracyCriterion


_FLOAT64 = np.dtype(np.float64)
# In batches of up to so many samples it is faster to tell which differ from the baseline's.
_FEW = 128
# How often those who watch are shown how far a trial is.
_SECONDS_BETWEEN_LOOKS = 0.1
# How often the metric so far is reported to the storage while a trial runs.
_SECONDS_BETWEEN_REPORTS = 5.0


class SampledTrial:
    """The evaluation of one candidate, continued where earlier trials of the same model stopped.

    Args:
        trial:
            The trial.
        population:
            The samples of the study.
        criterion:
            When a metric is good enough.
        baseline:
            The metric of the FP32 model.
        fidelity:
            How far to evaluate, see :class:`optuna_quant.study.record.Claim`.
        broken_promises:
            How many promises were broken so far.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        population: Population,
        criterion: AccuracyCriterion,
        baseline: float,
        *,
        fidelity: Fidelity,
        broken_promises: int = 0,
    ) -> None:
        self._trial = trial
        self._population = population
        self._samples = population.samples
        self._criterion = criterion
        self._needed = criterion.threshold(baseline)
        self._fidelity = fidelity
        self._test = WeightedThresholdTest(
            population, population.normalized_mean(self._needed), broken_promises=broken_promises
        )
        self._batches: list[bytes] = []  # Of the scores.
        self._seen = 0
        self._evaluated = 0
        self._reports = True
        self._bounded: tuple[int, tuple[float, float]] | None = None  # By the samples seen.

    def take_over(self, other: FrozenTrial) -> bool:
        """Take over the samples that another trial of the same model has seen.

        Returns:
            Whether they are enough.
        """
        view = TrialView(other)
        scores = view.scores
        self._take(scores.tobytes(), len(scores))
        self._test.update(self._population.normalized(scores))
        attr = record.REUSED_FROM if self.is_enough else record.CONTINUES
        self._trial.set_user_attr(attr, view.source)
        return self.is_enough

    def _take(self, batch: bytes, count: int) -> None:
        self._batches.append(batch)
        self._seen += count

    @property
    def _scores(self) -> NDArray[np.float64]:
        return np.frombuffer(b"".join(self._batches))

    @property
    def _normalized_scores(self) -> NDArray[np.float64]:
        return self._population.normalized(self._scores)

    @property
    def population(self) -> str:
        """The key of the samples of the study."""
        return self._population.key

    @property
    def seen(self) -> int:
        """How many samples were seen."""
        return self._seen

    @property
    def is_enough(self) -> bool:
        """Whether it is evaluated as far as was asked."""
        fidelity, seen = self._fidelity, self._seen
        if seen == self._samples:
            return True
        if fidelity.samples is not None:
            return seen >= fidelity.samples
        if fidelity.until_decided:
            return self._test.decision is not Decision.OPEN
        return self._test.fails

    def evaluate(
        self, model: NativeModel, evaluation: SampleEvaluation, watch: Watch | None
    ) -> None:
        """Evaluate as many more samples as are needed."""
        end = self._fidelity.samples
        # A copy: the order is that of all candidates, whatever an evaluation does to its own.
        indices = self._population.order.indices[self._seen : end].copy()
        started = self._seen
        reported, watched = time.monotonic(), -math.inf
        batches = evaluation.scores(model, indices)
        try:
            for batch in batches:
                self._see(batch, evaluation)
                if self.is_enough:
                    break
                now = time.monotonic()
                if watch is not None and now - watched >= _SECONDS_BETWEEN_LOOKS:
                    watch(self._shown())
                    watched = now
                if now - reported >= _SECONDS_BETWEEN_REPORTS:
                    self._report()
                    reported = now
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()
        self._evaluated = self._seen - started
        if not self.is_enough or self._seen > self._population.samples:
            raise ValueError(
                f"The evaluation must give one score for each of the {len(indices)} samples that "
                f"it was asked for, but it gave {self._evaluated}."
            )

    def see_all(
        self, model: NativeModel, evaluation: SampleEvaluation, *, report: bool = True
    ) -> float:
        """Write down the scores of all samples, whatever was asked for, and give the metric.

        Args:
            model:
                The model.
            evaluation:
                Gives its scores.
            report:
                Whether to report the metric to Optuna, which takes one value for each number of
                samples.

        Raises:
            ValueError:
                If they are not one for each sample, or out of bounds.
        """
        self._fidelity = FULL
        self._reports = report
        self.evaluate(model, evaluation, None)
        return self.conclude()

    def _see(self, batch: NDArray[np.float64], evaluation: SampleEvaluation) -> None:
        """Take in a batch; one that scores as the baseline does takes about a microsecond."""
        if not (type(batch) is np.ndarray and batch.dtype is _FLOAT64 and batch.ndim == 1):
            batch = checked_batch(batch)
        population, start, count = self._population, self._seen, len(batch)
        end = start + count
        # As bytes, since no other code changes them and they compare fastest.
        content = batch.tobytes()
        self._take(content, count)
        if content == population.baseline_bytes[8 * start : 8 * end]:
            self._test.agree(count)
            return
        if count <= _FEW and end <= self._samples and population.has_worst:
            differences = self._differences(batch, start)
            if differences is not None:
                self._test.agree(count, differences)
                return
        scores = batch[: max(0, self._samples - start)]
        if not np.isfinite(scores).all():
            raise ValueError(
                f"The score of each sample must be finite, but one of those after the first "
                f"{start} in the order of evaluation is not."
            )
        check_scores(scores, evaluation)
        self._test.update(population.normalized(scores))

    def _differences(
        self, batch: NDArray[np.float64], start: int
    ) -> list[tuple[int, float]] | None:
        """Where a batch differs from the baseline; :obj:`None` if a score is out of bounds."""
        population = self._population
        low, high = population.bounds
        places = (batch != population.baseline_in_order[start : start + len(batch)]).nonzero()[0]
        found = []
        for place in places.tolist():
            score = batch.item(place)
            if not low <= score <= high:
                return None
            normal = (score - low) / (high - low)
            if not population.higher_is_better:
                normal = 1 - normal
            found.append((place, normal - population.normalized_baseline.item(start + place)))
        return found

    def conclude(self) -> float:
        """Write down what was seen.

        Returns:
            The metric.

        Raises:
            optuna.exceptions.TrialPruned:
                If not all samples were evaluated: then there is only an estimate.
        """
        writer, evidence = RunningTrialWriter(self._trial), self._evidence()
        write_scores(
            writer.system_attr,
            self._scores,
            decision=self._test.decision,
            population=self._population.key,
        )
        self._report()
        write_judgement(judge_by_samples(evidence), writer)
        if evidence.decision == COMPLETE:
            return self.mean
        raise TrialPruned(evidence.reason)

    def _evidence(self) -> Evidence:
        seen, of = self._seen, self._population.samples
        if seen == of:
            return Evidence(decision=COMPLETE, samples=seen, of=of, evaluated=self._evaluated)
        low, high = self._bounds()
        return Evidence(
            decision=self._test.decision.value,
            samples=seen,
            of=of,
            evaluated=self._evaluated,
            estimate=self._estimate(),
            bounds=(low, high),
            error_probability=0.0 if self._is_certain else self._population.error_probability,
            method=self._population.method,
            reason=self._reason(low, high),
        )

    @property
    def _is_certain(self) -> bool:
        """Whether what is concluded cannot be wrong."""
        return self._test.is_exact or self._population.method == "exact"

    @property
    def mean(self) -> float:
        """The mean over all samples, summed in the order of the data as the baseline's is."""
        scores = np.empty(self._seen)
        scores[self._population.order.indices[: len(scores)]] = self._scores
        return float(scores.sum() / len(scores))

    def _estimate(self) -> float:
        return self._population.metric(self._test.estimate)

    def _bounds(self) -> tuple[float, float]:
        seen = self._seen
        if self._bounded is None or self._bounded[0] != seen:
            self._bounded = seen, self._find_bounds()
        return self._bounded[1]

    def _find_bounds(self) -> tuple[float, float]:
        population = self._population
        found = bounds(population, self._normalized_scores)
        worst, best = found
        if self._test.decision is Decision.FAILS:
            # The bounds are found to some digits; that it misses what is needed is known.
            best = max(worst, min(best, population.normalized_mean(self._needed)))
        low, high = sorted(population.metric(bound) for bound in (worst, best))
        return low, high

    def _shown(self) -> EvaluationProgress:
        seen = self._seen
        return EvaluationProgress(
            self._trial.number, seen, self._population.samples, self._estimate(), self._bounds
        )

    def _report(self) -> None:
        # With several objectives Optuna has no intermediate values.
        if self._reports and len(self._trial.study.directions) == 1 and self._seen:
            self._trial.report(self._estimate(), step=self._seen)

    def _reason(self, low: float, high: float) -> str:
        seen = f"after {self._seen} of {self._population.samples} samples"
        needed = f"{self._needed:.6g} is needed"
        if self._test.decision is Decision.FAILS:
            best = high if self._criterion.higher_is_better else low
            most = "at most" if self._criterion.higher_is_better else "at least"
            if self._test.is_exact:
                total = float(self._normalized_scores.sum())
                left = self._population.samples - self._seen
                best = self._population.metric((total + left) / self._population.samples)
                return (
                    f"Cannot meet the criterion {seen}: even if all others had the best score, "
                    f"the metric would be {best:.6g}, and {needed}."
                )
            return (
                f"Does not meet the criterion (error probability "
                f"{self._population.error_probability:g}): {seen} the metric is {most} "
                f"{best:.6g}, and {needed}."
            )
        if self._fidelity.samples is not None:
            return f"Evaluated as far as needed for its rank, {seen}."
        if self._test.decision is Decision.MEETS:
            return f"Certainly meets the criterion {seen}; the others were not needed."
        return (
            f"Probably meets the criterion {seen}; not a result until all samples are evaluated."
        )


def furthest(
    trials: Iterable[FrozenTrial], fingerprint: str, population: str
) -> FrozenTrial | None:
    """The trial that has seen most samples of a model without having seen all."""
    found = [
        view
        for view in map(TrialView, trials)
        if view.state == TrialState.PRUNED
        and view.fingerprint == fingerprint
        and view.samples
        and view.population == population
    ]
    best = max(found, key=lambda view: (view.samples or 0, -view.number), default=None)
    return None if best is None else best.trial
