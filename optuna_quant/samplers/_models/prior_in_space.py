"""Apply the prior from an earlier study to the configurations of a tuning space."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
import math
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.samplers._models.observed_loss import Observed
from optuna_quant.samplers._models.option_positions import option_positions
from optuna_quant.samplers._models.option_scores import OptionScores
from optuna_quant.samplers._models.scored_options import scored_options
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna

    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._models.prior import EarlierLoss
    from optuna_quant.samplers._models.prior import StudyPrior
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


# How far the loss of a configuration may be from that in the earlier study, as a part of the loss
# and of the tolerance: with other samples, and with another model.
_OTHER_SAMPLES = (0.1, 0.1)
_OTHER_MODEL = (0.3, 0.2)
# Baselines that differ by more than this factor are not those of one metric.
_MOST_APART = 2.0
# Of the same costs; that of a size is predicted.
_SAME_COST = 0.01


class PriorInSpace:
    """A :class:`~optuna_quant.samplers._models.prior.StudyPrior`, applied to a search.

    An op that the earlier study did not have counts as one in floats there. What it has seen of
    configurations that this space does not have is used through what it has taught about the ops.

    Args:
        prior:
            What the earlier study has taught.
        space:
            The tuning space of the search.
        criterion:
            When a metric is good enough.
        table:
            What configurations cost.
    """

    def __init__(
        self, prior: StudyPrior, space: TuningSpace, criterion: AccuracyCriterion, table: CostTable
    ) -> None:
        self._prior = prior
        self._space = space
        self._table = table
        self._same_criterion = dict(prior.criterion) == asdict(criterion)

    @cached_property
    def _earlier(self) -> QuantConfig:
        """The earlier answer, with recipes that it does not have at their defaults."""
        assert self._prior.answer is not None
        found = QuantConfig.from_json(self._prior.answer)
        recipes = {**self._space.default().recipes, **found.recipes}
        return QuantConfig(found.ops, recipes, found.calibration_size)

    @cached_property
    def answer(self) -> QuantConfig | None:
        """The earlier answer, with ops that it does not say in their default."""
        if self._prior.answer is None:
            return None
        earlier = self._earlier
        found = self._space.default()
        for tunable in self._space.tunables:
            chosen = {earlier.ops.get(op) for op in tunable.ops}
            option = chosen.pop()
            if not chosen and option is not None and option in tunable.options:
                found = tunable.set(found, option)
        same = QuantConfig(found.ops, earlier.recipes, earlier.calibration_size)
        return same if same in self._space else found

    @cached_property
    def first(self) -> QuantConfig | None:
        """The earlier answer, if it answers the question of this search."""
        answer = self.answer
        if answer is None:
            return None
        earlier = self._earlier
        same_ops = all(earlier.ops.get(op) == option for op, option in answer.ops.items())
        same_objective = self._prior.objective == self._table.measure
        return answer if same_ops and self._same_criterion and same_objective else None

    @cached_property
    def is_concluded(self) -> bool:
        """Whether the earlier study has answered this very question."""
        prior = self._prior
        if self.first is None or not (prior.is_concluded and self._is_same):
            return False
        if not self._had_all_options:
            return False
        if self.first.key != self._earlier.key:
            return False
        if prior.answer_cost is None:
            return True
        here = self._table.cost(self.first)
        return math.isclose(here, prior.answer_cost, rel_tol=_SAME_COST, abs_tol=1e-12)

    @property
    def fruitless(self) -> int:
        """How many models were tried after the answer that were no improvement.

        0 where there is more to choose from now.
        """
        return self._prior.fruitless if self._had_all_options else 0

    @cached_property
    def _had_all_options(self) -> bool:
        """Whether the earlier study could choose from all options of this space."""
        return all(
            {option.label for option in tunable.options} <= set(self._prior.options.get(op, ()))
            for tunable in self._space.tunables
            for op in tunable.ops
        )

    def has_seen(self, config: QuantConfig, *, baseline: float) -> bool:
        """Whether the earlier study has a loss of a configuration that says something here.

        Args:
            config:
                The configuration.
            baseline:
                The metric of the FP32 model.
        """
        return self._is_comparable(baseline) and any(config == each for _, each in self._configs)

    @property
    def _is_same(self) -> bool:
        return self._prior.same_model and self._prior.same_evaluation

    @cached_property
    def failed(self) -> frozenset[str]:
        """The keys of the configurations that are known to fail."""
        if not (self._is_same and self._same_criterion):
            return frozenset()
        return frozenset(
            config.key for each, config in self._configs if each.failed and config is not None
        )

    @cached_property
    def scores(self) -> OptionScores | None:
        """The sensitivities, if they are known of all options; they cost nothing here."""
        found: dict[str, dict[str, float]] = {}
        for tunable in self._space.tunables:
            scored = scored_options(tunable, self._table)
            for op in tunable.ops:
                known = self._prior.scores.get(op, {})
                found[op] = {
                    option.label: known[option.label] for option in scored if option.label in known
                }
                if len(found[op]) < len(scored):
                    return None
        return OptionScores(found, 0.0, self._prior.of_weights)

    @property
    def replaces_scores(self) -> bool:
        """Whether sensitivities that were computed here would be the same."""
        return self._prior.same_model and self.scores is not None

    def observed(
        self, *, baseline: float, tolerance: float, without: Collection[str]
    ) -> list[Observed]:
        """The losses of the earlier study's configurations, with their uncertainty.

        Args:
            baseline:
                The metric of the FP32 model.
            tolerance:
                The largest loss that is good enough.
            without:
                The keys of configurations that are left out, since they were evaluated here.
        """
        if not self._is_comparable(baseline):
            return []
        relative, absolute = 0.0, 0.0
        if not self._prior.same_model:
            relative, absolute = _OTHER_MODEL
        elif not self._prior.same_evaluation:
            relative, absolute = _OTHER_SAMPLES
        found = []
        for each, config in self._configs:
            if config is None or config.key in without:
                continue
            apart = math.hypot(relative * each.loss, absolute * tolerance)
            if not self._prior.same_evaluation:
                apart = math.hypot(apart, each.spread)
            error = math.hypot(each.error, apart)
            found.append(
                Observed(option_positions(self._space, config), each.loss, error, each.spread)
            )
        return found

    def factors(self, baseline: float) -> NDArray[np.float64]:
        """The factor of each tunable in each option, of shape ``(tunables, options)``.

        1 where losses of the earlier study are observations, which say the same and more.
        """
        tunables = self._space.tunables
        shape = len(tunables), max(len(tunable.options) for tunable in tunables)
        found = np.ones(shape)
        if self._has_losses(baseline):
            return found
        for i, tunable in enumerate(tunables):
            of_ops = [self._prior.factors.get(op, {}) for op in tunable.ops]
            for j, option in enumerate(tunable.options):
                known = [factors[option.label] for factors in of_ops if option.label in factors]
                if known:
                    found[i, j] = math.exp(sum(known) / len(known))
        return found

    def scale(self, baseline: float) -> tuple[float, float] | None:
        """The logarithm of the loss at the reference error, and the exponent, if they hold here.

        :obj:`None` where losses of the earlier study are observations.
        """
        if not self._is_comparable(baseline) or self._has_losses(baseline):
            return None
        return self._prior.scale

    def _is_comparable(self, baseline: float) -> bool:
        """Whether losses are in the same units."""
        there = self._prior.baseline
        if not self._prior.same_metric or there is None:
            return False
        if there == baseline:
            return True
        return there * baseline > 0 and 1 / _MOST_APART <= there / baseline <= _MOST_APART

    def _has_losses(self, baseline: float) -> bool:
        known = any(config is not None for _, config in self._configs)
        return known and self._is_comparable(baseline)

    @cached_property
    def _configs(self) -> list[tuple[EarlierLoss, QuantConfig | None]]:
        """What was seen, each with the configuration of this space; None if it has none."""
        return [(each, self._config_of(each.options)) for each in self._prior.losses]

    def _config_of(self, labels: Mapping[str, str]) -> QuantConfig | None:
        left = set(labels)
        chosen: dict[str, OpConfig] = {}
        for tunable in self._space.tunables:
            found = {labels.get(op) for op in tunable.ops}
            left -= set(tunable.ops)
            wanted = {FP32.label} if found == {None} else found
            option = next((o for o in tunable.options if wanted == {o.label}), None)
            if option is None:
                return None
            chosen |= dict.fromkeys(tunable.ops, option)
        return None if left else self._space.default().with_ops(chosen)


class TakenScores:
    """Option scores from an earlier study, behind the interface of ``OptionSensitivityCache``.

    Args:
        scores:
            The scores.
    """

    def __init__(self, scores: OptionScores) -> None:
        self._scores = scores

    def read(
        self, study: optuna.Study, samples: int | None, tunables: Sequence[Tunable]
    ) -> OptionScores:
        """The scores."""
        return self._scores

    def compute(
        self, study: optuna.Study, samples: int | None, tunables: Sequence[Tunable]
    ) -> bool:
        """Nothing is to be computed."""
        return True
