"""The policy of the pareto strategy: evaluate what is expected to enlarge the front most."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.costs.dominance import Point
from optuna_quant.costs.dominance import Staircase
from optuna_quant.costs.dominance import non_dominated
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._models.beliefs import Belief
from optuna_quant.samplers._models.option_positions import option_positions
from optuna_quant.samplers._models.scored_options import Precision
from optuna_quant.samplers._models.surrogate_policy import SurrogatePolicy
from optuna_quant.samplers._models.surrogate_stages import START_STAGE
from optuna_quant.samplers._models.surrogate_step import NextStep
from optuna_quant.samplers._models.surrogate_step import SurrogateOptions
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


FRONT_STAGE = "front"

# How often weights are drawn: less with many ops, where a trade-off takes long.
_FEWEST_DRAWS, _MOST_DRAWS = 2, 12
_DRAWS_TIMES_OPS = 220
_MOST_BESIDE = 200
# As a part of the area: with less to expect more is looked at.
_LITTLE = 0.01
# So many of the most promising ones are made cheaper at the same error.
_POLISHED = 1


@dataclass(frozen=True)
class FrontOptions:
    """The range of the front, and when it is good enough.

    Args:
        reference_loss:
            The largest loss that is of interest, in tolerable losses.
        min_gain:
            The expected gain in hypervolume that is worth an evaluation, as a part of the area
            from the cheapest configuration to FP32 and from no loss to the largest.
    """

    reference_loss: float
    min_gain: float


class ParetoPolicy(SurrogatePolicy):
    """Proposes the configuration with the largest expected gain in hypervolume.

    Args:
        space:
            The tuning space.
        criterion:
            Says which way the metric goes, and in what units losses are of interest.
        table:
            The costs.
        options:
            What the model of the loss is told.
        front:
            Where the front is looked for.
    """

    def __init__(
        self,
        space: TuningSpace,
        criterion: AccuracyCriterion,
        table: CostTable,
        options: SurrogateOptions,
        front: FrontOptions,
    ) -> None:
        super().__init__(space, criterion, table, options, in_full=True)
        self._front = front

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        if not self._outcomes.is_known(history, self._start) and self._start.key not in claimed:
            return self._in_full(history, self._start, START_STAGE)
        if not self._phases.compute_scores(history, 0):
            return None
        return self._decide(history, claimed).proposal

    def is_over(self, history: TrialHistory) -> bool:
        if not self._outcomes.is_known(history, self._start) or not self._phases.has_scores(
            history, 0
        ):
            return False
        return history.threshold is not None and self._decide(history, {}).proposal is None

    def is_answer(self, history: TrialHistory, key: str) -> bool:
        """True only once the front is complete: each of its points is one of many answers."""
        return self.is_over(history)

    def _in_full(self, history: TrialHistory, config: QuantConfig, stage: str) -> Proposal:
        """A choice that is evaluated on all samples, also if it fails the criterion."""
        population = history.population
        return Proposal(
            config,
            stage,
            provisional=True,
            positions=self._space.positions_of(config),
            fidelity=FULL if population is None else Fidelity(population.samples),
        )

    def _decided_again(self, history: TrialHistory, claimed: Mapping[str, int]) -> NextStep:
        if history.threshold is None:
            return NextStep()  # The baseline is still being measured.
        model = self._model.fitted(history, claimed)
        known = [point for _, point in self._known_points(history)]
        known += [
            (self._table.cost(config), model.predict(option_positions(self._space, config)).loss)
            for config in self._outcomes.claimed(history, claimed)
        ]
        stairs = self._stairs(model, known)
        found = [b for b in self._expected(history, model, stairs) if b.config.key not in claimed]
        found.sort(key=_order)
        better = []
        for each in found[:_POLISHED]:
            config = self._candidates.polished(model, each.config, {})
            if config.key not in claimed and config.key not in history.outcomes:
                better.append(self._belief(model, stairs, config))
        best = min([*better, *found], key=_order, default=None)
        if best is None or best.improvement < self._front.min_gain:
            return NextStep()
        return NextStep(self._in_full(history, best.config, FRONT_STAGE))

    def _beliefs(self, history: TrialHistory, model: LossModel, phase: int) -> list[Belief]:
        """What is believed of the configurations that would make the front larger."""
        stairs = self._stairs(model, [point for _, point in self._known_points(history)])
        found = self._expected(history, model, stairs)
        return sorted(found, key=lambda belief: (belief.cost, -belief.probability))

    def _expected(
        self, history: TrialHistory, model: LossModel, stairs: Staircase
    ) -> list[Belief]:
        """Beliefs about the trade-off, and about configurations that may be better.

        Where the trade-off promises little, trade-offs that may be as well and configurations
        beside those of the front are looked at in turn.
        """
        found = self._expected_of(history, model, stairs, self._candidates.path(model, {}))
        if max((belief.improvement for belief in found), default=0.0) >= _LITTLE:
            return found
        rng = np.random.default_rng([history.revision, len(self._space.tunables)])
        others = self._beside(history, rng) if history.revision % 2 else self._drawn(model, rng)
        keys = {belief.config.key for belief in found}
        others = [config for config in others if config.key not in keys]
        return found + self._expected_of(history, model, stairs, others)

    def _drawn(self, model: LossModel, rng: np.random.Generator) -> list[QuantConfig]:
        """Trade-offs by weights that are as likely as those of the model."""
        found: list[QuantConfig] = []
        draws = _DRAWS_TIMES_OPS // len(self._space.tunables)
        for _ in range(int(np.clip(draws, _FEWEST_DRAWS, _MOST_DRAWS))):
            found += self._candidates.path(model, {}, model.drawn_weights(rng))
        return found

    def _beside(self, history: TrialHistory, rng: np.random.Generator) -> list[QuantConfig]:
        """What differs from a configuration on the front in how many bits one op has."""
        known = self._known_points(history)
        configs = [config for config, _ in known]
        found = []
        for place in non_dominated([point for _, point in known]):
            config = configs[place]
            for tunable in self._space.tunables:
                now = config.ops[tunable.ops[0]]
                started = self._start.ops[tunable.ops[0]]
                bits = Precision.of(now if now.is_quantized else started).bits
                others = self._candidates.scored[tunable.name]
                found += [
                    tunable.set(config, option)
                    for option in tunable.options
                    if (
                        option.is_quantized != now.is_quantized
                        and (not option.is_quantized or option == started)
                    )
                    or (option in others and Precision.of(option).bits != bits)
                ]
        if len(found) <= _MOST_BESIDE:
            return found
        return [found[i] for i in sorted(rng.choice(len(found), _MOST_BESIDE, replace=False))]

    def _expected_of(
        self,
        history: TrialHistory,
        model: LossModel,
        stairs: Staircase,
        configs: Sequence[QuantConfig],
    ) -> list[Belief]:
        found: dict[str, Belief] = {}
        for config in configs:
            outcome = history.outcomes.get(config.key)
            is_done = outcome is not None and not outcome.is_partial
            if config.key in found or is_done or not config.quantized_ops:
                continue
            belief = self._belief(model, stairs, config)
            if belief.improvement > 0:
                found[config.key] = belief
        return list(found.values())

    def _belief(self, model: LossModel, stairs: Staircase, config: QuantConfig) -> Belief:
        cost = self._table.cost(config)
        predicted = model.predict(option_positions(self._space, config))
        gain = stairs.expected_gain(cost, predicted.loss, predicted.deviation)
        most_cost, most_loss = stairs.reference
        area = (most_cost - self._table.cost(self._start)) * most_loss
        improvement = gain / area if area > 0 else 0.0
        probability = predicted.probability(model.scale.tolerance)
        return Belief(config, cost, probability, improvement)

    def _stairs(self, model: LossModel, points: Sequence[Point]) -> Staircase:
        most = min(self._front.reference_loss * model.scale.tolerance, model.scale.most)
        return Staircase.of(points, (self._fp32_cost, most))

    def _known_points(self, history: TrialHistory) -> list[tuple[QuantConfig, Point]]:
        """Each configuration with its cost and loss, of what was evaluated on all samples."""
        found = []
        for outcome in history.outcomes.values():
            if not outcome.is_complete or outcome.is_substitute or outcome.value is None:
                continue
            config = self._outcomes.config(outcome)
            if config is not None:
                # What is better than FP32 is so by chance; cheaper is what counts there.
                loss = max(self._observations.loss(history, outcome.value), 0.0)
                found.append((config, (self._table.cost(config), loss)))
        return found


def _order(belief: Belief) -> tuple[float, float, str]:
    return (-belief.improvement, belief.cost, belief.config.key)
