"""The policy of the surrogate strategy: it computes the next configuration from the record."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
import math
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._models.beliefs import Belief
from optuna_quant.samplers._models.beliefs import Beliefs
from optuna_quant.samplers._models.calibration_sizes import CalibrationSizes
from optuna_quant.samplers._models.candidates import Candidates
from optuna_quant.samplers._models.candidates import cheapest_quantized
from optuna_quant.samplers._models.last_look import LastLook
from optuna_quant.samplers._models.least_probability import least_probability
from optuna_quant.samplers._models.loss_model import LossModel
from optuna_quant.samplers._models.loss_observations import LossObservations
from optuna_quant.samplers._models.observed_loss import Observed
from optuna_quant.samplers._models.option_positions import option_positions
from optuna_quant.samplers._models.outlook import Believed
from optuna_quant.samplers._models.outlook import Outlook
from optuna_quant.samplers._models.search_phases import SearchPhases
from optuna_quant.samplers._models.study_loss_model import StudyLossModel
from optuna_quant.samplers._models.study_outcomes import BestKnown
from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
from optuna_quant.samplers._models.surrogate_stages import ANSWER_STAGE
from optuna_quant.samplers._models.surrogate_stages import EARLIER_STAGE
from optuna_quant.samplers._models.surrogate_stages import SEARCH_STAGE
from optuna_quant.samplers._models.surrogate_stages import SIZE_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE
from optuna_quant.samplers._models.threads import single_threaded_blas
from optuna_quant.samplers._models.worth import EvaluationWorth
from optuna_quant.study import record
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.forbidden_options import Forbidden
    from optuna_quant.samplers._models.option_scores import OptionSensitivityCache
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.prior_in_space import TakenScores
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# Why a study stopped, if not because the search has an answer.
_CUT_SHORT = ("timeout", "max_trials", "interrupted", "callback")
# A search that goes on after its answer stops at this part of the gain that ends the first.
_LAST_GAIN = 0.1
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
    """

    min_gain: float
    scores: OptionSensitivityCache | TakenScores | None
    first_ops: frozenset[str] = frozenset()
    prior: PriorInSpace | None = None
    thorough: bool = False


@dataclass(frozen=True)
class Decision:
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
class _Tools:
    """What finds configurations, with one calibration size."""

    candidates: Candidates
    believes: Beliefs
    last_look: LastLook


class SurrogatePolicy(Policy):
    """Proposes the cheapest configuration that the model believes to meet the criterion.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        table:
            The costs.
        options:
            What else the search is told.
        in_full:
            Whether each configuration is evaluated on all samples, and not only until it is known
            whether it meets the criterion.
        whole:
            The space of the study, if this is a part of it, with recipes fixed.
    """

    def __init__(
        self,
        space: TuningSpace,
        criterion: AccuracyCriterion,
        table: CostTable,
        options: SurrogateOptions,
        *,
        in_full: bool = False,
        whole: TuningSpace | None = None,
    ) -> None:
        prior = options.prior
        self._options = options
        self._space = space
        self._table = table if whole is None else table.with_recipes(space.default().recipes)
        self._prior = prior
        self._phases = SearchPhases(space, options.scores, options.first_ops)
        self._outcomes = StudyOutcomes(space, criterion, table, in_full=in_full, whole=whole)
        self._start = cheapest_quantized(self._table, space, self._phases.forbidden[0])
        self._sizes = CalibrationSizes(
            space, self._start, self._outcomes, are_tried=prior is None and not in_full
        )
        self._observations = LossObservations(space, criterion, self._outcomes, prior, self._sizes)
        self._model = StudyLossModel(
            space, self._phases, self._outcomes, self._observations, prior
        )
        self._tools = {size: self._tools_at(size) for size in space.calibration_sizes or (None,)}
        self._candidates = self._tools[self._sizes.default].candidates
        self._worth = EvaluationWorth(options.min_gain, self._outcomes, prior)
        self._earlier_answer = self._earlier_proposal()
        self._fp32_cost = table.cost(space.fp32())
        self._decided: tuple[object, Decision] | None = None

    def _tools_at(self, size: int | None) -> _Tools:
        """What finds configurations with a calibration size."""
        space, table = self._space, self._table
        if size is not None and size != self._sizes.default:
            others = (other for other in space.calibration_sizes if other != size)
            space = replace(space, calibration_sizes=(size, *others))
        candidates = Candidates(space, table)
        believes = Beliefs(space, table, self._outcomes, candidates, self._prior)
        return _Tools(candidates, believes, LastLook(space, table, candidates, believes))

    def _tools_of(self, history: TrialHistory) -> _Tools:
        return self._tools[self._sizes.chosen(history)]

    # The contract of a policy.

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        if self._prior is not None:
            # The model can decide at once, with the baseline and the sensitivities.
            if history.threshold is None and self._space.fp32().key in claimed:
                return None
            if not self._phases.compute_scores(history, 0):
                return None
        first = self._first(history)
        if (
            first is not None
            and first.config.key not in claimed
            and not self._is_seen(history, first)
        ):
            return first
        sized = self._sized(history, claimed)
        if sized is not None:
            return sized  # That needs no sensitivities.
        if not self._phases.compute_scores(history, 0):
            return None
        decision = self._decide(history, claimed)
        if decision.lacks is not None and self._phases.compute_scores(history, decision.lacks):
            decision = self._decide(history, claimed)
        return decision.proposal

    def is_over(self, history: TrialHistory) -> bool:
        if not self.is_started(history):
            return False
        if self.is_start_enough(history):
            return True
        if not self._phases.has_scores(history, 0):
            return False
        decision = self._decide(history, {})
        return decision.proposal is None and decision.lacks is None

    def is_blocked(self, history: TrialHistory) -> bool:
        if self._prior is None and not self.is_started(history):
            return False
        if not self._phases.has_scores(history, 0):
            return True
        return self._decide(history, {}).lacks is not None

    def is_answer(self, history: TrialHistory, key: str) -> bool:
        if key in self._sizes.keys and not self._phases.last:
            return True
        if not self.is_started(history) or not self._phases.has_scores(history, 0):
            return False
        return self._decide(history, {}).answer == key

    # What it tells of itself.

    def beliefs(self, history: TrialHistory) -> list[Belief]:
        """What the model believes about the configurations that it would try, cheapest first."""
        phase = self._phase(history)
        if phase is None or history.threshold is None:
            return []
        with single_threaded_blas():
            return self._beliefs(history, self._model.fitted(history, {}), phase)

    def best(self, history: TrialHistory) -> QuantConfig | None:
        """The cheapest configuration that meets the criterion, or probably does."""
        found = self._outcomes.best(history)
        return None if found is None else found.config

    def meets(self, history: TrialHistory, config: QuantConfig | None) -> bool:
        """Whether a configuration was seen to meet the criterion on all samples."""
        return config is not None and self._outcomes.met(history, config.key)

    def learned(self, history: TrialHistory) -> tuple[LossModel, list[Observed]]:
        """The model of the loss, and what it has learned from; the baseline must be known."""
        return self._model.learned(history)

    def outlook(self, history: TrialHistory) -> Outlook:
        """The state of the search, and its beliefs; the baseline must be known."""
        stage, phase = self._next_stage(history), self._phase(history)
        if phase is None:
            return Outlook(stage, self._start, self._fp32_cost)
        with single_threaded_blas():
            model = self._model.fitted(history, {})
            candidates = self._tools_of(history).candidates
            believed = [
                self._believed(history, model, config)
                for config in candidates.path(model, self._phases.forbidden[phase])
                if config.quantized_ops
            ]
        known = self._phases.known_scores(history)
        return Outlook(stage, self._start, self._fp32_cost, model, known, believed)

    def _phase(self, history: TrialHistory) -> int | None:
        """The last phase whose sensitivities are known; :obj:`None` if those of none are."""
        phases = range(self._phases.last, -1, -1)
        return next((p for p in phases if self._phases.has_scores(history, p)), None)

    def _beliefs(self, history: TrialHistory, model: LossModel, phase: int) -> list[Belief]:
        """What is believed of the candidates of a phase."""
        reference = self._reference(self._outcomes.best(history))
        believes = self._tools_of(history).believes
        return believes.of(history, model, reference, self._phases.forbidden[phase])

    def _next_stage(self, history: TrialHistory) -> str | None:
        """The stage that comes next; :obj:`None` if the search has concluded."""
        if not self.is_started(history):
            return START_STAGE
        if self.is_over(history):
            return None
        if not self._phases.has_scores(history, 0):
            return SEARCH_STAGE
        decision = self._decide(history, {})
        stopped = history.study.user_attrs.get(record.STOPPED_BECAUSE, {}).get("reason")
        if decision.answer is not None and stopped not in _CUT_SHORT:
            return None  # It would only go on if it was to find the best.
        if decision.proposal is None or decision.proposal.stage == START_STAGE:
            return SEARCH_STAGE
        return decision.proposal.stage

    def _believed(self, history: TrialHistory, model: LossModel, config: QuantConfig) -> Believed:
        found = model.predict(option_positions(self._space, config))
        return Believed(
            config,
            self._table.cost(config),
            found.loss,
            found.probability(model.scale.tolerance),
            self._tools_of(history).believes.is_settled(history, config),
        )

    # The start.

    def _earlier_proposal(self) -> Proposal | None:
        """The evaluation of an earlier study's answer, if that answers this question."""
        if self._prior is None or self._prior.first is None:
            return None
        fidelity = FULL if self._prior.is_concluded else DECIDED
        return self._try(self._prior.first, EARLIER_STAGE, fidelity=fidelity)

    def _first(self, history: TrialHistory) -> Proposal | None:
        """The first proposal, before the model decides; :obj:`None` if it decides at once."""
        if self._earlier_answer is not None:
            return self._earlier_answer
        if self._prior is not None and history.threshold is not None:
            return None
        return Proposal(self._start, START_STAGE)

    @property
    def start(self) -> QuantConfig:
        """The cheapest configuration of all, whatever its accuracy."""
        return self._start

    def start_loss(self, history: TrialHistory) -> float:
        """What that has lost, in units of the metric; infinite if it has not been evaluated."""
        loss = self._observations.loss_of(history, self._start)
        return math.inf if loss is None else loss

    def is_started(self, history: TrialHistory) -> bool:
        """Whether the first proposal has been evaluated."""
        first = self._first(history)
        return first is None or self._is_seen(history, first)

    def _is_seen(self, history: TrialHistory, first: Proposal) -> bool:
        if first.fidelity == FULL:
            return self._outcomes.is_known(history, first.config)
        outcome = history.outcomes.get(first.config.key)
        return outcome is not None and self._outcomes.is_decided(history, outcome)

    def _sized(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        """The first configuration with another calibration size, if that is to be tried."""
        if history.threshold is None:
            return None
        config = self._sizes.next(history, claimed)
        return None if config is None else self._try(config, SIZE_STAGE)

    def is_start_enough(self, history: TrialHistory) -> bool:
        """Whether the cheapest configuration of all meets the criterion."""
        return self._start_that_is_enough(history) is not None

    def _start_that_is_enough(self, history: TrialHistory) -> str | None:
        """Its key, with the calibration size with which it does; :obj:`None` if it does not."""
        if self._phases.last:
            return None
        keys = (self._start.key, *self._sizes.keys)
        return next((key for key in keys if self._outcomes.met(history, key)), None)

    # The decision.

    def _decide(self, history: TrialHistory, claimed: Mapping[str, int]) -> Decision:
        state = (
            id(history),
            history.revision,
            history.threshold,
            self._phases.has_scores(history, self._phases.last),
            tuple(sorted(claimed.items())),
        )
        if self._decided is None or self._decided[0] != state:
            with single_threaded_blas():
                self._decided = state, self._decided_again(history, claimed)
        return self._decided[1]

    def _decided_again(self, history: TrialHistory, claimed: Mapping[str, int]) -> Decision:
        if history.threshold is None:
            return Decision()  # The baseline is still being measured.
        enough = self._start_that_is_enough(history)
        if enough is not None:
            return Decision(answer=enough)
        sized = self._sized(history, claimed)
        if sized is not None:
            return Decision(sized)
        model = self._model.fitted(history, claimed)
        decision = Decision()
        for phase, forbidden in enumerate(self._phases.forbidden):
            if not self._phases.has_scores(history, phase):
                return Decision(lacks=phase)
            decision = self._decided_in(history, claimed, model, forbidden)
            if decision.proposal is not None and decision.answer is None:
                break
        return decision

    def _decided_in(
        self,
        history: TrialHistory,
        claimed: Mapping[str, int],
        model: LossModel,
        forbidden: Forbidden,
    ) -> Decision:
        """The next step, if some options are not used."""
        best = self._outcomes.best(history)
        tools = self._tools_of(history)
        beliefs = [
            belief
            for belief in tools.believes.of(history, model, self._reference(best), forbidden)
            if belief.config.key not in claimed
        ]
        next_one = max(beliefs, key=lambda b: (b.improvement, b.probability), default=None)
        gain = 0.0 if next_one is None else next_one.improvement
        worth = self._worth.least_gain(history, best, model)
        if next_one is not None and gain >= worth and not self._worth.is_concluded(best):
            config = tools.candidates.polished(model, next_one.config, forbidden)
            known = config.key in claimed or history.outcomes.get(config.key) is not None
            return Decision(self._try(next_one.config if known else config, SEARCH_STAGE))
        if self._start.key not in claimed and self._is_start_open(history, best):
            return Decision(Proposal(self._start, START_STAGE))
        if best is not None and not best.proven and best.config.key not in claimed:
            return Decision(self._try(best.config, ANSWER_STAGE, fidelity=FULL))
        answer = best.config.key if best is not None and best.proven else None
        if gain < _LAST_GAIN * worth:
            next_one = self._thorough(history, beliefs, self._reference(best))
        if next_one is not None:
            return Decision(self._try(next_one.config, SEARCH_STAGE), answer)
        if not self._worth.is_concluded(best):
            last = tools.last_look.next(history, self._reference(best), model, forbidden, claimed)
            if last is not None:
                return Decision(self._try(last, SEARCH_STAGE))
        return Decision(answer=answer)

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
        reference = self._reference(best)
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

    def _try(self, config: QuantConfig, stage: str, *, fidelity: Fidelity = DECIDED) -> Proposal:
        return Proposal(
            config,
            stage,
            provisional=stage != ANSWER_STAGE,
            positions=self._space.positions_of(config),
            fidelity=fidelity,
        )

    def _reference(self, best: BestKnown | None) -> float:
        return self._fp32_cost if best is None else best.cost
