"""Evaluate a study's samples one by one, and check that they are its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.sampled import SampledTrial
from optuna_quant.evaluation.value import for_fp32
from optuna_quant.sequential.population import is_bounded
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.errors import ChangedEvaluationError
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna

    from optuna_quant.evaluation.setup import ObjectiveSetup
    from optuna_quant.sequential import Population


_logger = get_logger(__name__)

# How the data of a continued study are told from others: the scores of so many samples may differ
# by this part of the range, but for a few.
_COMPARED = 32
_SAME = 0.1
_MOST_DIFFERENT = 0.25


@dataclass(frozen=True)
class Samples:
    """The settings for evaluating samples one by one.

    Args:
        evaluation:
            Gives their scores.
        error_probability:
            With what probability a candidate that meets the criterion may be given up.
        method:
            The method of the sequential test.
    """

    evaluation: SampleEvaluation
    error_probability: float
    method: str

    @property
    def in_parts(self) -> bool:
        """Whether candidates can be evaluated on some of the samples."""
        return _in_parts(self.evaluation)


class StudySamples:
    """The samples that the candidates of each study are compared on.

    Args:
        setup:
            What evaluates them, and when it stops.
    """

    def __init__(self, setup: ObjectiveSetup) -> None:
        self._setup = setup
        self._populations: dict[str, Population | None] = {}
        self._measured_here: set[str] = set()

    @property
    def are_wanted(self) -> bool:
        """Whether candidates are to be evaluated on no more samples than needed."""
        return self._setup.stopping is not None

    def of(self, study: optuna.Study) -> Samples | None:
        """How samples are evaluated one by one; :obj:`None` if models are evaluated in full."""
        evaluation, stopping = self._setup.evaluate, self._setup.stopping
        if stopping is None:
            return None
        if isinstance(evaluation, FunctionEvaluation) and not evaluation.is_known:
            found = read_population(study)
            if found is not None:
                evaluation.adopt(found.samples, found.bounds)
        if not isinstance(evaluation, SampleEvaluation) or evaluation.bounds is None:
            return None
        method = stopping.method if is_bounded(evaluation.bounds) else "exact"
        return Samples(evaluation, stopping.error_probability, method)

    def can_stop(self, study: optuna.Study) -> bool:
        """Whether an evaluation can stop between batches."""
        found = self.of(study)
        return found is not None and found.in_parts

    def until_known(
        self, trial: optuna.Trial, baseline: Callable[[], float]
    ) -> tuple[SampleEvaluation, SampledTrial] | None:
        """The evaluation of a candidate until enough is known; :obj:`None` if in full.

        The arguments are those of :meth:`kept`.
        """
        return self.kept(trial, baseline) if _in_parts(self._setup.evaluate) else None

    def kept(
        self, trial: optuna.Trial, baseline: Callable[[], float]
    ) -> tuple[SampleEvaluation, SampledTrial] | None:
        """What keeps the scores of a candidate; :obj:`None` if none are kept.

        Args:
            trial:
                The trial.
            baseline:
                Gives the metric of the FP32 model, for which it may wait.
        """
        study, evaluation = trial.study, self._setup.evaluate
        is_open = isinstance(evaluation, FunctionEvaluation) and not evaluation.is_known
        if self.of(study) is None and not (is_open and self.are_wanted):
            return None
        # Nothing can be judged before the baseline is known, which tells what a function gives.
        metric = baseline()
        samples = self.of(study)
        population = None if samples is None else self._population(study, samples)
        if samples is None or population is None:
            return None
        view = TrialView.of_running(trial)
        return samples.evaluation, SampledTrial(
            trial,
            population,
            self._setup.criterion,
            metric,
            fidelity=view.fidelity,
            broken_promises=view.broken_promises,
        )

    def check(self, study: optuna.Study) -> None:
        """Refuse a study that was started with other samples.

        Raises:
            ChangedEvaluationError:
                If it was.
        """
        samples = self.of(study)
        if samples is not None and get_baseline(study) is not None:
            self._population(study, samples)

    def measured_here(self, study: optuna.Study) -> None:
        """The baseline of a study is measured by this process: its samples are ours."""
        self._measured_here.add(study.study_name)

    def forget(self, study: optuna.Study) -> None:
        """Forget what is known of a study, because another one has taken its name."""
        self._measured_here.discard(study.study_name)
        self._populations.pop(study.study_name, None)

    def _population(self, study: optuna.Study, samples: Samples) -> Population | None:
        name = study.study_name
        if name not in self._populations:
            found = read_population(study)
            self._check_population(samples, found, is_own=name in self._measured_here)
            self._populations[name] = found
        return self._populations[name]

    def _check_population(
        self, samples: Samples, population: Population | None, *, is_own: bool
    ) -> None:
        if population is None:
            _logger.warning(
                "The study's baseline was measured without scores of single samples, so every "
                "model is evaluated in full. For fewer evaluations start a new study."
            )
            return
        _check_metric(samples.evaluation, population)
        is_asked = samples.in_parts and not is_own  # In full it would cost as much as FP32.
        if is_asked and not self._gives_the_same(samples.evaluation, population):
            raise ChangedEvaluationError(
                "The FP32 model's scores differ from those in the study, which was started "
                "with other evaluation data. Use the same data, in the same order, or another "
                "study name or storage."
            )
        method = population.method, population.error_probability
        if method != (samples.method, samples.error_probability):
            _logger.warning(
                f"The study was started with the method {method[0]!r} and the error probability "
                f"{method[1]:g}, which are kept; {samples.method!r} and "
                f"{samples.error_probability:g} take effect in a new study."
            )

    def _gives_the_same(self, evaluation: SampleEvaluation, population: Population) -> bool:
        """Whether the FP32 model has the scores that the study keeps, by the easiest samples.

        A few may differ: other processors round in other ways.
        """
        some = population.order.indices[-_COMPARED:]
        model = self._setup.backend.quantize(self._setup.fp32)
        found = for_fp32(evaluation).scores(model, some.copy())
        scores = np.concatenate([np.array(each) for each in found])
        differ = np.abs(scores - population.baseline[some]) > _SAME * population.scale
        return bool(differ.mean() <= _MOST_DIFFERENT)


def _check_metric(evaluation: SampleEvaluation, population: Population) -> None:
    name = str(getattr(evaluation, "name", ""))
    if name != population.metric_name:
        began, used = _shown_metric(population.metric_name), _shown_metric(name)
        raise ChangedEvaluationError(
            f"The study was started with {began}, but here it is {used}. Use the same metric, "
            "or another study name or storage."
        )
    if population.samples != evaluation.samples or population.bounds != evaluation.bounds:
        raise ChangedEvaluationError(
            f"The study was started with {population.samples} evaluation samples and scores "
            f"from {population.bounds[0]:g} to {population.bounds[1]:g}, but here there are "
            f"{_shown(evaluation)}. Use the same data and metric, or another study name or "
            "storage."
        )


def _shown_metric(name: str) -> str:
    return f"the metric {name!r}" if name else "a metric without a name"


def _shown(evaluation: SampleEvaluation) -> str:
    low, high = evaluation.bounds or (math.nan, math.nan)
    return f"{evaluation.samples} with scores from {low:g} to {high:g}"


def _in_parts(evaluation: object) -> bool:
    return bool(getattr(evaluation, "in_parts", True))
