"""The phases of a search, which ops each of them searches, and the sensitivities it needs."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.samplers._models.forbidden_options import Forbidden
from optuna_quant.samplers._models.forbidden_options import options_of_others
from optuna_quant.samplers._models.option_scores import OptionScores


if TYPE_CHECKING:
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.option_scores import OptionSensitivityCache
    from optuna_quant.samplers._models.prior_in_space import TakenScores
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


_NOTHING_SCORED = OptionScores({}, 0.0)

# Sensitivities may use this part of the evaluation samples, within limits.
_PART_OF_SAMPLES = 0.08
_FEWEST_SAMPLES, _MOST_SAMPLES = 6, 24


class SearchPhases:
    """Decides which ops a search covers first, and when it covers all.

    What is searched first is at least as good then as where it is all there is.

    Args:
        space:
            The tuning space.
        scores:
            Keeps the sensitivities; :obj:`None` if nothing scores the ops.
        first_ops:
            The ops that are searched before any other is quantized; empty for all.

    Attributes:
        forbidden:
            The options that each phase does not use.
        last:
            The number of the last phase.
    """

    def __init__(
        self,
        space: TuningSpace,
        scores: OptionSensitivityCache | TakenScores | None,
        first_ops: Collection[str],
    ) -> None:
        later = options_of_others(space, first_ops)
        self.forbidden: list[Forbidden] = [later, {}] if later else [{}]
        self.last = len(self.forbidden) - 1
        self._cache = scores
        first = [t for t in space.tunables if not set(t.ops) & later.keys()]
        others = [t for t in space.tunables if set(t.ops) & later.keys()]
        self._scored: list[list[Tunable]] = [first, others] if others else [first]

    def has_scores(self, history: TrialHistory, phase: int) -> bool:
        """Whether the study holds the sensitivities that a phase of the search needs."""
        return all(
            self._read(history, tunables) is not None for tunables in self._scored[: phase + 1]
        )

    def compute_scores(self, history: TrialHistory, phase: int) -> bool:
        """Compute what a phase needs; :obj:`False` if another worker is doing so."""
        for tunables in self._scored[: phase + 1]:
            if self._cache is None or self._read(history, tunables) is not None:
                continue
            if not self._cache.compute(history.study, sensitivity_samples(history), tunables):
                return False
        return True

    def known_scores(self, history: TrialHistory) -> list[OptionScores]:
        """The sensitivities that the study holds."""
        scores = [self._read(history, tunables) for tunables in self._scored]
        return [each for each in scores if each is not None]

    def scores_of_ops(self, history: TrialHistory) -> dict[str, Mapping[str, float]]:
        """The same, by op and the label of its option."""
        return {op: s for each in self.known_scores(history) for op, s in each.scores.items()}

    def _read(self, history: TrialHistory, tunables: Sequence[Tunable]) -> OptionScores | None:
        if self._cache is None:
            return _NOTHING_SCORED
        return self._cache.read(history.study, sensitivity_samples(history), tunables)


def sensitivity_samples(history: TrialHistory) -> int | None:
    """How many samples the sensitivities may use; :obj:`None` for their own number."""
    population = history.population
    if population is None:
        return None
    wanted = round(_PART_OF_SAMPLES * population.samples)
    return int(np.clip(wanted, _FEWEST_SAMPLES, _MOST_SAMPLES))
