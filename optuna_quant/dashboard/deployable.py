"""Which models of a study anybody would deploy: those on the front that meet the criterion."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math
from typing import TYPE_CHECKING

from optuna.study import StudyDirection

from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import as_objective
from optuna_quant.selection.answer import candidates
from optuna_quant.study.baseline import get_baseline
from optuna_quant.tuning.recorded_study import RecordedTrials


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.costs.objective import Objective
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.selection.answer import Candidate


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """How large the models are that are uploaded.

    Args:
        each:
            The bytes of the largest one.
        total:
            The bytes of all models of a study.

    Raises:
        ValueError:
            If one is negative.
    """

    each: int
    total: int

    def __post_init__(self) -> None:
        for name, value in (("max_model_bytes", self.each), ("max_total_bytes", self.total)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, but got {value}.")

    def within(self, found: Iterable[Candidate]) -> list[Candidate]:
        """Those of some models that fit: the first ones first.

        Args:
            found:
                The models.
        """
        chosen: list[Candidate] = []
        total = 0.0
        for each in found:
            if each.model_bytes <= self.each and total + each.model_bytes <= self.total:
                chosen.append(each)
                total += each.model_bytes
        return chosen


class Deployable:
    """Finds the trials of a study that meet the criterion and that no other of them beats.

    One model beats another if it is no worse in the metric and in what it costs, and better in
    one; in a study with several objectives, in all of them. Of equal ones the first stands for
    all. Each trial is judged once.

    Args:
        study:
            The study, which is only read.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._judged: set[int] = set()
        self._met: list[Candidate] = []

    @cached_property
    def _criterion(self) -> AccuracyCriterion:
        return RecordedTrials(self._study).criterion

    def front(self, trials: Sequence[FrozenTrial]) -> list[Candidate]:
        """Those that have ended so far, the cheapest first.

        Args:
            trials:
                All trials of the study.
        """
        if get_baseline(self._study) is None:
            return []  # No trial can be judged yet.
        new = [t for t in trials if t.state.is_finished() and t.number not in self._judged]
        self._met += [c for c in candidates(self._study, self._criterion, new) if c.met]
        self._judged.update(trial.number for trial in new)
        if not self._met:
            return []
        objective = objective_of(self._study)
        values = {each.trial.number: self._values(each, objective) for each in self._met}
        # By what it costs first: then no later one beats one that is before it.
        ordered = sorted(self._met, key=lambda c: (*values[c.trial.number], c.trial.number))
        front: list[Candidate] = []
        for each in ordered:
            own = values[each.trial.number]
            if not any(_is_no_worse(values[other.trial.number], own) for other in front):
                front.append(each)
        return front

    def _values(self, candidate: Candidate, objective: Objective) -> tuple[float, ...]:
        """What is to be small: the costs, and then the metric with its sign."""
        worse = -candidate.metric if candidate.higher_is_better else candidate.metric
        directions = self._study.directions
        if len(directions) > 1:
            costs = zip(candidate.trial.values[1:], directions[1:], strict=True)
            return (*(v if d == StudyDirection.MINIMIZE else -v for v, d in costs), worse)
        cost = candidate.cost(objective)
        if not math.isfinite(cost):
            return (cost, float(candidate.fallback_ops), worse)
        # Sums of the same costs in another order are equal.
        return (float(f"{cost:.9e}"), 0.0, worse)


def _is_no_worse(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def objective_of(study: optuna.Study) -> Objective:
    """What a study makes small, as far as it records it; else the ops in fallback.

    Args:
        study:
            The study.
    """
    try:
        return RecordedTrials(study).objective()
    except ValueError:  # It is a function, which the record does not have.
        return as_objective(OPS)
