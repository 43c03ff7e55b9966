"""The next step of the surrogate strategy, by what its model believes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._models.beliefs import Belief
from optuna_quant.samplers._models.beliefs import Beliefs
from optuna_quant.samplers._models.candidates import Candidates
from optuna_quant.samplers._models.last_look import LastLook
from optuna_quant.samplers._models.least_probability import least_probability
from optuna_quant.samplers._models.surrogate_stages import ANSWER_STAGE
from optuna_quant.samplers._models.surrogate_stages import SEARCH_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE
from optuna_quant.samplers._models.worth import EvaluationWorth
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.forbidden_options import Forbidden
    from optuna_quant.samplers._models.loss_model import LossModel
    from optuna_quant.samplers._models.option_scores import OptionSensitivityCache
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.prior_in_space import TakenScores
    from optuna_quant.samplers._models.study_outcomes import BestKnown
    from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# A cheaper configuration saves at least this part of the cost.
_LEAST_SAVING = 1e-3


@dataclass(frozen=True)
class SurrogateOptions:
    """The options of the search.

    Args:
        min_gain:
            The expected improvement that is worth an evaluation, as a part of the best cost.
        scores:
            Keeps the sensitivities; :obj:`None` if nothing scores the ops.
        first_ops:
            The ops that are searched before any other is quantized; empty for all.
        prior:
            What an earlier study has taught; :obj:`None` if there is none.
        thorough:
            Whether the search, once it has its answer or gives up, goes on with all that may be
            better.
        blocks:
            The parts of the model that repeat.
    """

    min_gain: float
    scores: OptionSensitivityCache | TakenScores | None
    first_ops: frozenset[str] = frozenset()
    prior: PriorInSpace | None = None
    thorough: bool = False
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class NextStep:
    """The next step of the search.

    Args:
        proposal:
            What to evaluate; :obj:`None` for nothing.
        answer:
            The key of the configuration that the search has concluded with.
        lacks:
            The phase that needs sensitivities which are not known yet.
    """

    proposal: Proposal | None = None
    answer: str | None = None
    lacks: int | None = None


@dataclass(frozen=True)
class Tools:
    """What finds configurations, with one calibration size."""

    candidates: Candidates
    believes: Beliefs
    last_look: LastLook


class SurrogateStep:
    """Chooses between searching on, proving the answer, and an end.

    Args:
        space:
            The tuning space.
        table:
            The costs.
        options:
            What the search is told.
        outcomes:
            Reads the results of trials.
        start:
            The cheapest configuration of all.
        fp32_cost:
            What the FP32 model costs.
    """

    def __init__(
        self,
        space: TuningSpace,
        table: CostTable,
        options: SurrogateOptions,
        outcomes: StudyOutcomes,
        *,
        start: QuantConfig,
        fp32_cost: float,
    ) -> None:
        self._space = space
        self._table = table
        self._options = options
        self._prior = options.prior
        self._outcomes = outcomes
        self._start = start
        self._fp32_cost = fp32_cost
        self._worth = EvaluationWorth(options.min_gain, outcomes, options.prior)

    def next(
        self,
        history: TrialHistory,
        claimed: Mapping[str, int],
        model: LossModel,
        forbidden: Forbidden,
        tools: Tools,
        *,
        added: Forbidden | None = None,
    ) -> NextStep:
        """The next step, if some options are not used.

        Args:
            history:
                The record.
            claimed:
                The keys of what is being evaluated, with the number of the trial.
            model:
                The model of the loss, fitted to the record.
            forbidden:
                The options that are not used.
            tools:
                What finds configurations.
            added:
                The options that this phase of the search has beyond the one before. Default: all.
        """
        best = self._outcomes.best(history)
        beliefs = [
            belief
            for belief in tools.believes.of(history, model, self.reference(best), forbidden)
            if belief.config.key not in claimed
        ]
        next_one = max(beliefs, key=lambda b: (b.improvement, b.probability), default=None)
        gain = 0.0 if next_one is None else next_one.improvement
        worth = self._worth.least_gain(history, best, model, added=added)
        if next_one is not None and gain >= worth and not self._worth.is_concluded(best):
            config = tools.candidates.polished(model, next_one.config, forbidden)
            known = config.key in claimed or history.outcomes.get(config.key) is not None
            return NextStep(self.proposal(next_one.config if known else config, SEARCH_STAGE))
        if self._start.key not in claimed and self._is_start_open(history, best):
            return NextStep(Proposal(self._start, START_STAGE))
        if best is not None and not best.proven and best.config.key not in claimed:
            return NextStep(self.proposal(best.config, ANSWER_STAGE, fidelity=FULL))
        answer = best.config.key if best is not None and best.proven else None
        if gain < self._worth.last_gain(history, best, model, added=added):
            next_one = self._thorough(history, beliefs, self.reference(best))
        if next_one is not None:
            return NextStep(self.proposal(next_one.config, SEARCH_STAGE), answer)
        if not self._worth.is_concluded(best):
            last = tools.last_look.next(history, self.reference(best), model, forbidden, claimed)
            if last is not None:
                return NextStep(self.proposal(last, SEARCH_STAGE))
        return NextStep(answer=answer)

    def _is_start_open(self, history: TrialHistory, best: BestKnown | None) -> bool:
        """Whether what a search without an earlier study tries first was seen in neither.

        What the model believes of it rests on other configurations then, and one look tells.
        """
        baseline = history.baseline
        if self._prior is None or baseline is None or self._worth.is_concluded(best):
            return False
        outcome = history.outcomes.get(self._start.key)
        if outcome is not None and self._outcomes.is_decided(history, outcome):
            return False
        reference = self.reference(best)
        saved = reference - self._table.cost(self._start)
        return saved > _LEAST_SAVING * abs(reference) and not self._prior.has_seen(
            self._start, baseline=baseline
        )

    def _thorough(
        self, history: TrialHistory, beliefs: Sequence[Belief], reference: float
    ) -> Belief | None:
        """The next candidate of a thorough search, regardless of what was spent."""
        if not self._options.thorough:
            return None
        population = history.population
        least = least_probability(None if population is None else population.samples)
        highest = reference - self._options.min_gain * abs(reference)
        promising = [b for b in beliefs if b.probability >= least and b.cost <= highest]
        return max(promising, key=lambda b: (b.improvement, b.probability), default=None)

    def proposal(
        self, config: QuantConfig, stage: str, *, fidelity: Fidelity = DECIDED
    ) -> Proposal:
        """A configuration as a proposal of a stage; only answers are no steps on the way."""
        return Proposal(
            config,
            stage,
            provisional=stage != ANSWER_STAGE,
            positions=self._space.positions_of(config),
            fidelity=fidelity,
        )

    def reference(self, best: BestKnown | None) -> float:
        """The cost that candidates are to be below: that of the best, or of the FP32 model."""
        return self._fp32_cost if best is None else best.cost
