"""Chooses the number of calibration samples of a search that has several to choose from."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


class CalibrationSizes:
    """Tries the first configuration of a search with each size, and keeps the best one.

    The size changes all ranges a little, whatever the ops, so it is chosen once, with one trial
    for each further size, and only if the first configuration misses the criterion.

    Args:
        space:
            The tuning space; its first size is the default.
        start:
            The first configuration, with the default size.
        outcomes:
            Reads the outcomes of trials.
        are_tried:
            Whether sizes are tried at all; otherwise the default is chosen.

    Attributes:
        default:
            The default size; :obj:`None` if the space has none.
        keys:
            The keys of the first configuration with each size that is tried.
    """

    def __init__(
        self,
        space: TuningSpace,
        start: QuantConfig,
        outcomes: StudyOutcomes,
        *,
        are_tried: bool = True,
    ) -> None:
        sizes = space.calibration_sizes
        self._outcomes = outcomes
        self.default = sizes[0] if sizes else None
        is_calibrated = any(option.mode == "static" for option in start.ops.values())
        tried = sizes if are_tried and is_calibrated and len(sizes) > 1 else ()
        self._starts = {size: start.with_calibration_size(size) for size in tried}
        self.keys = frozenset({start.key, *(config.key for config in self._starts.values())})

    def next(self, history: TrialHistory, claimed: Collection[str]) -> QuantConfig | None:
        """The next configuration that is tried only for its size; :obj:`None` if none is."""
        if self.default is None or not self._starts:
            return None
        first = self._score(history, self._starts[self.default])
        if first is None or self._is_met(history):
            return None
        left = (
            config
            for config in self._starts.values()
            if config.key not in claimed and self._score(history, config) is None
        )
        return next(left, None)

    def chosen(self, history: TrialHistory) -> int | None:
        """The size of the search: that with the best metric, once all are tried.

        Of equal ones the first; the default until then, and :obj:`None` if the space has none.
        """
        scores = {size: self._score(history, config) for size, config in self._starts.items()}
        if not scores or any(score is None for score in scores.values()):
            return self.default
        return max(scores, key=lambda size: scores[size] or 0.0)

    def _score(self, history: TrialHistory, config: QuantConfig) -> float | None:
        """The metric, higher for better, estimated if need be; None if it is not decided yet."""
        outcome = history.outcomes.get(config.key)
        if outcome is None or not self._outcomes.is_decided(history, outcome):
            return None
        seen = self._outcomes.seen(history, outcome)
        if outcome.is_partial and seen is not None and len(seen.scores):
            return seen.evaluation(config).score
        return outcome.score

    def _is_met(self, history: TrialHistory) -> bool:
        """Whether any of them meets the criterion, or probably does."""
        best = self._outcomes.best(history)
        return best is not None and best.config.key in self.keys
