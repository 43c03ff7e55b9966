"""Fit the model of the loss to a study's record."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.samplers._models.loss_model import LossModel
from optuna_quant.samplers._models.observed_loss import Observed
from optuna_quant.samplers._models.op_sensitivities import floats_of_16_bits
from optuna_quant.samplers._models.op_sensitivities import option_kinds
from optuna_quant.samplers._models.op_sensitivities import sensitivity_matrix
from optuna_quant.samplers._models.option_positions import option_positions
from optuna_quant.samplers._models.shared_factors import shared_factors


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.loss_observations import LossObservations
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.search_phases import SearchPhases
    from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.space import TuningSpace


class StudyLossModel:
    """Fits the model of the loss to the record; the baseline must be known.

    Args:
        space:
            The tuning space.
        phases:
            Knows the sensitivities.
        outcomes:
            Reads the outcomes of trials.
        observations:
            Reads what trials have lost.
        prior:
            What an earlier study has taught; :obj:`None` if there is none.
        blocks:
            The parts of the model that repeat.
    """

    def __init__(
        self,
        space: TuningSpace,
        phases: SearchPhases,
        outcomes: StudyOutcomes,
        observations: LossObservations,
        prior: PriorInSpace | None,
        blocks: Sequence[Block],
    ) -> None:
        self._space = space
        self._phases = phases
        self._outcomes = outcomes
        self._observations = observations
        self._prior = prior
        self._blocks = blocks

    def fitted(self, history: TrialHistory, claimed: Mapping[str, int]) -> LossModel:
        """The model fitted to all results and claims."""
        model, observations = self.learned(history)
        # What others evaluate now counts as if it had turned out as expected.
        pending = [
            Observed(options, model.predict(options).loss)
            for options in (
                option_positions(self._space, config)
                for config in self._outcomes.claimed(history, claimed)
            )
        ]
        return model.fitted([*observations, *pending]) if pending else model

    def learned(self, history: TrialHistory) -> tuple[LossModel, list[Observed]]:
        """The model fitted to all results, and these results."""
        sensitivities, is_scored = self._sensitivities(history)
        kinds = self._kinds if is_scored else None
        # What blocks have in common, scores tell better.
        shared = None if is_scored else self._shared
        scale = self._observations.scale(history)
        model = LossModel(sensitivities, scale, is_scored, kinds, shared, self._guessed)
        observations = self._observations.all(history, model.scale)
        return model.fitted(observations), observations

    def _sensitivities(self, history: TrialHistory) -> tuple[NDArray[np.float64], bool]:
        """The sensitivities, corrected by what an earlier study has taught."""
        scores = self._phases.scores_of_ops(history)
        found, is_scored = sensitivity_matrix(self._space.tunables, scores)
        if self._prior is not None and history.baseline is not None:
            found *= self._prior.factors(history.baseline)
        return found, is_scored

    @cached_property
    def _kinds(self) -> NDArray[np.int64]:
        return option_kinds(self._space.tunables)

    @cached_property
    def _shared(self) -> NDArray[np.int64] | None:
        return shared_factors(self._space.tunables, self._blocks)

    @cached_property
    def _guessed(self) -> NDArray[np.bool_]:
        return floats_of_16_bits(self._space.tunables)
