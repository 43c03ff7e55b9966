"""Evaluate the answer a second time, to see whether its metric is reproducible.

A model or an evaluation with randomness in it gives another metric each time, and a search finds
those that were lucky. So the answer is evaluated a second time. Where samples can be run one by
one, a few of them tell whether anything is random, and if nothing is, that is all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
import hashlib
import json
import math
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import numpy as np
from optuna.logging import get_logger

from optuna_quant.backends.base import depends_on_batch
from optuna_quant.callbacks import StopReason
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.evaluation.timeout import EvaluationTimeout
from optuna_quant.evaluation.value import as_metric
from optuna_quant.evaluation.value import given_to
from optuna_quant.study import record
from optuna_quant.study.blobs import read_bytes
from optuna_quant.study.blobs import write_bytes
from optuna_quant.study.compute_once import ComputeOnce
from optuna_quant.study.evaluation_cost import full_evaluations
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import full_scores
from optuna_quant.tuning.validation import SecondEvaluation


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Model
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.setup import Evaluate
    from optuna_quant.tuning.result import TuningResult


_logger = get_logger(__name__)

T = TypeVar("T")

# So many samples tell whether outputs are the same each time; of few samples a part of them.
_TRIED = 16
_FEWEST = 2
# By this part of the largest output, sums in another order may differ; what is random does more.
_BY_ORDER = 1e-5
_SAME_METRIC = 1e-9


def _unlimited(evaluate: Callable[[], T], *, give_up: Callable[[str], None]) -> T:
    return evaluate()


def with_second_evaluation(
    result: TuningResult,
    evaluate: Evaluate,
    *,
    limited: Callable[..., Any] = _unlimited,
) -> TuningResult:
    """The result with an outcome that has held twice, or none.

    Of the workers of a study one evaluates, and the study keeps what it has found. If the answer
    does not meet the criterion again, or its second evaluation fails, it is no answer.

    Args:
        result:
            The result of the search. If the criterion is not met there is nothing to do.
        evaluate:
            Gives the metric of a model.
        limited:
            Runs an evaluation, and raises if it takes too long; calls ``give_up`` with the reason
            if it cannot be ended.
    """
    trial = result.trial
    if not result.met or trial is None:
        return result
    if result.stopped_because == StopReason.INTERRUPTED:
        return replace(result, not_repeated="the search was interrupted")
    try:
        model = rebuild(trial, backend=result.backend, space=result.space)
    except ValueError as error:
        return replace(result, not_repeated=str(error))
    digest = _digest(trial, result.metric, result.baseline)
    shared = ComputeOnce(result.study, f"{record.SECOND_EVALUATION}:{digest}")

    def give_up(reason: str) -> None:
        # The others wait for a value, and not for ever.
        failed = json.dumps({"failed": reason, "evaluated": 0.0}).encode()
        write_bytes(result.study, shared.name, failed)

    again = _Again(result, trial, evaluate, partial(limited, give_up=give_up))
    try:
        found = _read(shared.get(lambda: again.evaluate(model)))
    except KeyboardInterrupt:
        # That is not to be overlooked: the caller may have meant to end all.
        result = replace(result, stopped_because=StopReason.INTERRUPTED)
        return replace(result, not_repeated="it was interrupted")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        _logger.warning(f"The answer could not be evaluated a second time: {reason}")
        return replace(result, met=False, not_repeatable=reason)
    if not found.meets(result.criterion):
        _logger.warning(
            f"The answer, trial {trial.number}, is {found.shown(result.criterion)}. "
            f"{_cure(result)}"
        )
    return replace(
        result,
        met=found.meets(result.criterion),
        second_evaluation=found,
        full_evaluations=full_evaluations(result.study),
    )


def _cure(result: TuningResult) -> str:
    if result.batches is not None and result.batches.size != 1:
        return (
            "Its output for a sample depends on the batch, because the ranges of dynamic "
            "quantization do: evaluate one sample at a time (leave batch_size out)."
        )
    return "Make the model and the evaluation deterministic, or use more samples."


def is_refuted(
    study: optuna.Study, trial: FrozenTrial, criterion: AccuracyCriterion, *, baseline: float
) -> bool:
    """Whether a trial that met the criterion did not when it was evaluated again.

    Args:
        study:
            Its study, which is only read.
        trial:
            The trial; it was evaluated on all samples.
        criterion:
            The criterion.
        baseline:
            The metric of the FP32 model.
    """
    found, failed = recorded_second_evaluation(study, trial, baseline=baseline)
    return failed is not None or (found is not None and not found.meets(criterion))


def recorded_second_evaluation(
    study: optuna.Study, trial: FrozenTrial, *, baseline: float
) -> tuple[SecondEvaluation | None, str | None]:
    """What evaluating a trial's model a second time has given, and why it failed, if it did.

    Args:
        study:
            Its study, which is only read.
        trial:
            The trial; it was evaluated on all samples.
        baseline:
            The metric of the FP32 model.
    """
    digest = _digest(trial, trial.values[0], baseline)
    kept = read_bytes(study, f"{record.SECOND_EVALUATION}:{digest}")
    try:
        return None if kept is None else _read(kept), None
    except EvaluationTimeout as error:
        return None, f"{type(error).__name__}: {error}"


def _digest(trial: FrozenTrial, metric: float | None, baseline: float | None) -> str:
    """Tells an outcome from others: the same trial may be judged by another baseline later."""
    rests_on = (trial.number, metric, baseline)
    return hashlib.sha256(repr(rests_on).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class _Again:
    """Evaluates the answer of a result a second time."""

    result: TuningResult
    trial: FrozenTrial
    measure: Evaluate
    limited: Callable[[Callable[[], Any]], Any]

    def evaluate(self, model: Model) -> bytes:
        """What it gives, as the study keeps it."""
        tried = 0.0
        if isinstance(self.measure, DataEvaluation):
            measure = self.measure
            same, tried = self.limited(partial(self._try_few, model, measure))
            if same:
                return self._kept(None, None, tried)
        elif isinstance(self.measure, FunctionEvaluation) and self.measure.in_parts:
            same, tried = self.limited(partial(self._try_scores, model, self.measure))
            if same:
                return self._kept(None, None, tried)
        _logger.info("Evaluating the answer a second time.")
        metric = self.limited(partial(self._metric, model))
        del model  # One at a time is in memory.
        assert self.result.metric is not None
        if not tried and math.isclose(metric, self.result.metric, rel_tol=_SAME_METRIC):
            return self._kept(metric, None, 1.0)
        fp32 = self.result.backend.quantize(self.result.space.fp32())
        baseline = self.limited(partial(self._metric, fp32))
        self.result.criterion.check_baseline(baseline)
        return self._kept(metric, baseline, tried + 2)

    def _kept(self, metric: float | None, baseline: float | None, evaluated: float) -> bytes:
        """What was found, as the study keeps it."""
        assert self.result.metric is not None and self.result.baseline is not None
        first = self.result.metric, self.result.baseline
        return json.dumps(asdict(SecondEvaluation(first, metric, baseline, evaluated))).encode()

    def _try_few(self, model: Model, evaluation: DataEvaluation) -> tuple[bool, float]:
        """Whether a few samples give the same each time, and how many were run for it."""
        samples = evaluation.samples
        count = min(samples, _TRIED, max(_FEWEST, samples // _TRIED))
        size = evaluation.runs.batch_size_for(model)
        one, other = (evaluation.runs.first_outputs(model, count, size=size) for _ in range(2))
        same = all(_is_same(a, b) for a, b in zip(one, other, strict=True))
        runs = 2
        recorded = self._recorded() if same and evaluation.is_mean else None
        if recorded is not None:
            # Those of the first samples as the trial has seen them, in the same batches.
            indices, scores = recorded
            depends = depends_on_batch(model)
            first = min(samples, max(count, size)) if depends else count
            found = evaluation.scores(model, indices[:first])
            same = _is_same(np.concatenate(list(found)), scores[:first])
            return same, (runs * count + first) / samples
        return same, runs * count / samples

    def _try_scores(self, model: Model, evaluation: FunctionEvaluation) -> tuple[bool, float]:
        """As :meth:`_try_few`, where scores and margins are all that is seen of a model.

        Right and wrong alone are too often the same by chance: then nothing is tried.
        """
        recorded = self._recorded()
        if recorded is None:
            return False, 0.0
        indices, scores = recorded
        is_graded = len(np.unique(scores)) > 2
        if not is_graded and not evaluation.tells_margins:
            return False, 0.0
        count = min(len(scores), max(_TRIED, len(scores) // _TRIED))
        margins: list[NDArray[np.float64]] = []
        for _ in range(1 if is_graded else 2):
            pairs = list(evaluation.scores_and_margins(model, indices[:count]))
            if not _is_same(np.concatenate([found for found, _ in pairs]), scores[:count]):
                return False, (len(margins) + 1) * count / len(scores)
            margins.append(np.concatenate([m for _, m in pairs if m is not None] or [scores[:0]]))
        return _is_same(margins[0], margins[-1]), len(margins) * count / len(scores)

    @property
    def _in_order(self) -> bool:
        """Whether samples can be evaluated again in the order of the trial."""
        is_asked = isinstance(self.measure, FunctionEvaluation) and self.measure.in_parts
        return is_asked or isinstance(self.measure, DataEvaluation)

    def _recorded(self) -> tuple[NDArray[np.intp], NDArray[np.float64]] | None:
        """The samples in the order of the evaluation, and the scores that the trial has kept."""
        study = self.result.study
        population = read_population(study)
        if population is None:
            return None
        scores = full_scores(study, TrialView(self.trial), population.samples)
        return None if scores is None else (population.order.indices, scores)

    def _metric(self, model: Model) -> float:
        recorded = self._recorded() if self._in_order else None
        if recorded is not None:
            # In the same order, so that batches are the same as well.
            indices, _ = recorded
            scores = np.empty(len(indices))
            again = self.measure.scores(model, indices)  # type: ignore[attr-defined]
            scores[indices] = np.concatenate(list(again))
            returned: Any = float(scores.sum() / len(scores))
        else:
            returned = self.measure(given_to(self.measure, model))
        return as_metric(
            returned,
            higher_is_better=self.result.criterion.higher_is_better,
            what="The second evaluation",
        )


def _read(kept: bytes) -> SecondEvaluation:
    found = json.loads(kept)
    if "failed" in found:
        raise EvaluationTimeout(f"{found['failed']}, and did not return")
    return SecondEvaluation(**{**found, "first": tuple(found["first"])})


def _is_same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two outputs are the same, but for rounding."""
    if one.shape != other.shape or one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=_BY_ORDER * largest, equal_nan=True))
