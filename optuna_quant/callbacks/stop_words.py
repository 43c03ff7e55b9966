"""What a search has found when it stops, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna_quant.callbacks.spent import every_evaluation_failed
from optuna_quant.callbacks.spent import is_evaluated
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.selection.answer import ranked
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from optuna.trial import FrozenTrial

    from optuna_quant.costs.objective import Objective
    from optuna_quant.selection.answer import Candidate


class StopWords:
    """Says which candidates a search has found.

    Args:
        objective:
            What is best among those that meet the criterion.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def met(self, answers: Sequence[Candidate]) -> str:
        """That a search has its answer.

        Args:
            answers:
                The candidates that are answers, one at least.
        """
        best = ranked(answers, self._objective)[0]
        if not self._is_known(best):
            return f"{_met_count(len(answers))}."
        return f"Trial {best.trial.number} meets the criterion, {self._shown(best)}."

    def best(self, found: Sequence[Candidate], trials: Iterable[FrozenTrial]) -> str:
        """What a search has that ends without more.

        Args:
            found:
                The candidates.
            trials:
                All trials of the study.
        """
        met = ranked(found, self._objective)
        if not met:
            return "No quantized model meets the criterion." + _failure(trials)
        best = met[0]
        if not self._is_known(best):
            return f"{_met_count(len(met))}."
        return (
            f"The best that meets the criterion is trial {best.trial.number}, {self._shown(best)}."
        )

    def _is_known(self, candidate: Candidate) -> bool:
        """Whether it is known what it costs; otherwise no trial is called the best."""
        return self._objective.measures == (OPS,) or math.isfinite(candidate.cost(self._objective))

    def _shown(self, candidate: Candidate) -> str:
        ops = _fallback(candidate)
        if self._objective.measures == (OPS,):
            return ops
        # A time that was measured is of another run, and is said by itself.
        predicted = "predicted " if LATENCY in self._objective.measures else ""
        return f"{predicted}{self._objective.show(candidate.cost(self._objective))}, {ops}"


def nothing_left(trials: Iterable[FrozenTrial]) -> str:
    """That the strategy of a study has come to its end, in a sentence.

    Args:
        trials:
            All trials of the study.
    """
    used = trials_used(trials)
    counted = f"{used} model{'' if used == 1 else 's'}"
    return f"The strategy sees nothing left that is worth a trial after {counted}."


def _failure(trials: Iterable[FrozenTrial]) -> str:
    """What to add if no evaluation succeeded: that, and why the last one did not."""
    evaluated = [view for view in map(TrialView, trials) if is_evaluated(view)]
    if not every_evaluation_failed(view.trial for view in evaluated):
        return ""
    reasons = [view.failure for view in evaluated if view.failure is not None]
    return " Every evaluation failed." + (f" The last reason: {reasons[-1]}" if reasons else "")


def _met_count(count: int) -> str:
    """For latency, which is measured at the end: no trial is the best before."""
    return "1 trial meets the criterion" if count == 1 else f"{count} trials meet the criterion"


def _fallback(candidate: Candidate) -> str:
    ops = candidate.fallback_ops
    return f"with {ops or 'no'} op{'' if ops == 1 else 's'} in fallback"
