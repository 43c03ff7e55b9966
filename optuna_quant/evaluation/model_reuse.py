"""Evaluate each model once: reuse the result of another trial with the same model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.evaluation.trial_record import TrialRecord
    from optuna_quant.study.waiting import Waiting


_logger = get_logger(__name__)


@dataclass(frozen=True)
class Duplicate:
    """A trial of the same model.

    Args:
        number:
            Its number.
        metric:
            Its metric.
    """

    number: int
    metric: float


class ModelReuse:
    """Finds trials of the same model and reuses their results."""

    def __init__(self) -> None:
        # What this process knows of trials that were not told yet, by study and trial number.
        self._metrics: dict[tuple[str, int], float] = {}

    def keep(self, trial: optuna.Trial, metric: float) -> None:
        """Keep the metric of a trial that others in this process may take over at once."""
        self._metrics[(trial.study.study_name, trial.number)] = metric

    def forget(self, study: optuna.Study) -> None:
        """Forget what is known of the trials of a study."""
        name = study.study_name
        self._metrics = {key: value for key, value in self._metrics.items() if key[0] != name}

    def same_parameters(self, trial: optuna.Trial) -> Duplicate | None:
        """A complete trial of the same configuration, which needs not even be built."""
        params = trial.params
        for other in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if other.params == params:
                return Duplicate(other.number, other.values[0])
        return None

    def same_model(
        self, trial: optuna.Trial, fingerprint: str, waiting: Waiting
    ) -> Duplicate | None:
        """The first trial that has evaluated the same model; waits if an earlier one does.

        Args:
            trial:
                The trial.
            fingerprint:
                The fingerprint of its model.
            waiting:
                Says whether to wait.
        """
        while True:
            # One look for both: a trial that ends between two looks would be in neither.
            views = list(map(TrialView, trial.study.get_trials(deepcopy=False)))
            found = self._evaluated(trial.study, views, fingerprint)
            if found is not None:
                return found
            building, silent = _may_become_the_same(trial.number, views, fingerprint)
            if not waiting.is_for(building, silent):
                return None
            waiting.pause()

    def take_over(self, trial: optuna.Trial, written: TrialRecord, duplicate: Duplicate) -> float:
        """Give a trial the result of another one.

        Args:
            trial:
                The trial.
            written:
                What it writes down.
            duplicate:
                The other one.

        Returns:
            The metric.
        """
        # Read again: it may have ended since.
        view = TrialView(trial.study.get_trials(deepcopy=False)[duplicate.number])
        _logger.info(
            f"Trial {trial.number} has the same model as trial {view.source} and reuses its "
            "result."
        )
        written.take_over(view)
        return duplicate.metric

    def _evaluated(
        self, study: optuna.Study, views: Sequence[TrialView], fingerprint: str
    ) -> Duplicate | None:
        same = [view for view in views if view.fingerprint == fingerprint]
        for view in same:
            if view.is_complete:
                return Duplicate(view.number, view.trial.values[0])
        for view in same:
            known = self._metrics.get((study.study_name, view.number))
            if view.is_running and known is not None:
                return Duplicate(view.number, known)
        return None


def _may_become_the_same(
    number: int, views: Sequence[TrialView], fingerprint: str
) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The earlier running trials of the same model, or of one that is not built yet.

    Returns:
        Those that have started, and those that show no sign of it.
    """
    building: list[FrozenTrial] = []
    silent: list[FrozenTrial] = []
    for view in views:
        if not view.is_running or view.number >= number:
            continue
        if view.fingerprint == fingerprint:
            building.append(view.trial)
        elif view.fingerprint is None and not view.is_baseline:
            # What it is building may turn out to be the same.
            (building if view.is_building else silent).append(view.trial)
    return building, silent
