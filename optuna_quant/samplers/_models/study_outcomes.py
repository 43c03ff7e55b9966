"""The outcomes of a study's trials: decided configurations, the best one, and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.samplers._engine.sampled import SampledOutcomes
from optuna_quant.samplers._models.surrogate_stages import ANSWER_STAGE
from optuna_quant.samplers._models.surrogate_stages import RECIPES_STAGE
from optuna_quant.samplers._models.surrogate_stages import SEARCH_STAGE
from optuna_quant.samplers._models.surrogate_stages import SIZE_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE
from optuna_quant.sequential import Decision
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.sampled import PartialEvaluation
    from optuna_quant.samplers._engine.trial_history import Outcome
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.forbidden_options import Forbidden
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_OWN_STAGES = (START_STAGE, SIZE_STAGE, RECIPES_STAGE, SEARCH_STAGE, ANSWER_STAGE)


@dataclass(frozen=True)
class BestKnown:
    """A configuration that was evaluated at least in part, with what is known about it.

    Args:
        config:
            The configuration.
        cost:
            Its cost.
        proven:
            Whether it meets the criterion on all samples; otherwise it probably does.
    """

    config: QuantConfig
    cost: float
    proven: bool


class StudyOutcomes:
    """Reads the outcomes of a study's trials.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        table:
            The costs.
        in_full:
            Whether the search evaluates each configuration on all samples, and not only until it
            is known whether it meets the criterion.
        whole:
            The space of the study, if the search is in a part of it, with recipes fixed; default:
            ``space``.
    """

    def __init__(
        self,
        space: TuningSpace,
        criterion: AccuracyCriterion,
        table: CostTable,
        *,
        in_full: bool = False,
        whole: TuningSpace | None = None,
    ) -> None:
        self._space = space
        self._whole = space if whole is None else whole
        # A fixed recipe has no parameter here; where it has one in the study, it must agree.
        self._fixed = {
            self._whole.parameter_name(f"recipe:{name}"): values[0]
            for name, values in space.recipes.items()
            if len(values) == 1 and len(self._whole.recipes[name]) > 1
        }
        self._criterion = criterion
        self._table = table
        self._in_full = in_full
        self._sampled = SampledOutcomes()

    def config(self, outcome: Outcome) -> QuantConfig | None:
        """The configuration of an outcome; :obj:`None` if it is not of the space."""
        if self._space.key_from_params(outcome.params) is None:
            return None
        if any(outcome.params.get(name) != value for name, value in self._fixed.items()):
            return None
        return self._space.config_from_params(outcome.params)

    def claimed(self, history: TrialHistory, claimed: Mapping[str, int]) -> list[QuantConfig]:
        """The configurations that running trials have claimed with their positions."""
        claims = [TrialView(history.running[number]).claim for number in sorted(claimed.values())]
        found = [
            # Of parameters: an op with one option has none, and recipes have theirs.
            self._whole.config_of(claim.positions)
            for claim in claims
            if claim is not None and claim.positions is not None
        ]
        return [config for config in found if not self._fixed or config in self._space]

    def seen(self, history: TrialHistory, outcome: Outcome) -> PartialEvaluation | None:
        """The samples that a trial has seen; :obj:`None` if single samples are not known."""
        return self._sampled.partial_evaluation(history, outcome)

    def is_known(self, history: TrialHistory, config: QuantConfig) -> bool:
        """Whether a configuration that must be seen to the end needs no more samples."""
        outcome = history.outcomes.get(config.key)
        if outcome is None or not outcome.is_partial:
            return outcome is not None
        return not self._in_full and self._sampled.is_settled(history, config.key)

    def is_decided(self, history: TrialHistory, outcome: Outcome) -> bool:
        """Whether a configuration needs no more samples before the answer is chosen."""
        if self._in_full or not outcome.is_partial:
            return not outcome.is_partial
        seen = self.seen(history, outcome)
        return seen is None or seen.decision is not Decision.OPEN

    def met(self, history: TrialHistory, key: str) -> bool:
        """Whether a configuration meets the criterion, on all samples."""
        outcome = history.outcomes.get(key)
        return (
            outcome is not None and outcome.is_complete and self._violation(history, outcome) <= 0
        )

    def best(self, history: TrialHistory) -> BestKnown | None:
        """The cheapest configuration that meets the criterion, or probably does.

        It is one of the study's whole space, whatever its recipes. Of equally cheap ones what is
        proven comes first.
        """
        found: list[tuple[tuple[float, bool, int], BestKnown]] = []
        for key, outcome in history.outcomes.items():
            proven = self.met(history, key)
            if not proven and not (outcome.is_partial and self._is_promised(history, outcome)):
                continue
            if self._whole.key_from_params(outcome.params) is None:
                continue
            config = self._whole.config_from_params(outcome.params)
            if not config.quantized_ops:
                continue
            cost = self._table.cost(config)
            found.append(((cost, not proven, outcome.number), BestKnown(config, cost, proven)))
        return min(found, key=lambda each: each[0])[1] if found else None

    def own_models(
        self, history: TrialHistory, *, using: Forbidden | None = None
    ) -> dict[object, float]:
        """The different models that this search has tried, and the part that was seen of each.

        Args:
            history:
                The record.
            using:
                Count only those that use one of these options. Default: all.
        """
        population = history.population
        seen: dict[object, float] = {}
        for outcome in history.outcomes.values():
            if outcome.state == TrialState.FAIL or outcome.is_substitute:
                continue
            # What others have tried is knowledge that costs nothing.
            if outcome.view is None or outcome.view.stage not in _OWN_STAGES:
                continue
            if using and not self._uses(outcome, using):
                continue
            part = 1.0
            if population is not None and outcome.samples is not None:
                part = min(1.0, outcome.samples / population.samples)
            seen[outcome.score, outcome.samples] = part
        return seen

    def spent(self, history: TrialHistory, *, using: Forbidden | None = None) -> float:
        """The cost of all candidates, in full evaluations; equal models count once.

        Args:
            history:
                The record.
            using:
                Count only those that use one of these options. Default: all.
        """
        return sum(self.own_models(history, using=using).values())

    def _uses(self, outcome: Outcome, options: Forbidden) -> bool:
        if self._whole.key_from_params(outcome.params) is None:
            return False
        config = self._whole.config_from_params(outcome.params)
        return any(config.ops[op].label in labels for op, labels in options.items())

    def _violation(self, history: TrialHistory, outcome: Outcome) -> float:
        baseline = history.baseline
        if outcome.value is None:
            return math.inf
        if baseline is None:
            return math.inf if outcome.violation is None else outcome.violation
        return self._criterion.violation(outcome.value, baseline)

    def _is_promised(self, history: TrialHistory, outcome: Outcome) -> bool:
        seen = self.seen(history, outcome)
        return seen is not None and seen.met is True  # Before its last sample it may be certain.
