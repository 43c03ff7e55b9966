"""The policy of the surrogate strategy: it computes the next configuration from the record."""

from __future__ import annotations

from collections.abc import Mapping
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
from optuna_quant.samplers._models.loss_model import LossModel
from optuna_quant.samplers._models.loss_observations import LossObservations
from optuna_quant.samplers._models.observed_loss import Observed
from optuna_quant.samplers._models.option_positions import option_positions
from optuna_quant.samplers._models.outlook import Believed
from optuna_quant.samplers._models.outlook import Outlook
from optuna_quant.samplers._models.search_phases import SearchPhases
from optuna_quant.samplers._models.study_loss_model import StudyLossModel
from optuna_quant.samplers._models.study_outcomes import StudyOutcomes
from optuna_quant.samplers._models.surrogate_stages import EARLIER_STAGE
from optuna_quant.samplers._models.surrogate_stages import SEARCH_STAGE
from optuna_quant.samplers._models.surrogate_stages import SIZE_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE
from optuna_quant.samplers._models.surrogate_step import NextStep
from optuna_quant.samplers._models.surrogate_step import SurrogateOptions
from optuna_quant.samplers._models.surrogate_step import SurrogateStep
from optuna_quant.samplers._models.surrogate_step import Tools
from optuna_quant.samplers._models.threads import single_threaded_blas
from optuna_quant.study import record
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL


if TYPE_CHECKING:
    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


# Why a study stopped, if not because the search has an answer.
_CUT_SHORT = ("timeout", "max_trials", "interrupted", "callback")


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
            space, self._phases, self._outcomes, self._observations, prior, options.blocks
        )
        self._tools = {size: self._tools_at(size) for size in space.calibration_sizes or (None,)}
        self._candidates = self._tools[self._sizes.default].candidates
        self._fp32_cost = table.cost(space.fp32())
        self._step = SurrogateStep(
            space,
            self._table,
            options,
            self._outcomes,
            start=self._start,
            fp32_cost=self._fp32_cost,
        )
        self._earlier_answer = self._earlier_proposal()
        self._decided: tuple[object, NextStep] | None = None

    def _tools_at(self, size: int | None) -> Tools:
        """What finds configurations with a calibration size."""
        space, table = self._space, self._table
        if size is not None and size != self._sizes.default:
            others = (other for other in space.calibration_sizes if other != size)
            space = replace(space, calibration_sizes=(size, *others))
        candidates = Candidates(space, table)
        believes = Beliefs(space, table, self._outcomes, candidates, self._prior)
        return Tools(candidates, believes, LastLook(space, table, candidates, believes))

    def _tools_of(self, history: TrialHistory) -> Tools:
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

    def prepare(self, history: TrialHistory) -> bool:
        """Compute what the decision after the first proposal needs, once for the study.

        Returns:
            Whether it is known; :obj:`False` if another worker is computing it.
        """
        return self._phases.compute_scores(history, 0)

    def is_prepared(self, history: TrialHistory) -> bool:
        """Whether what :meth:`prepare` computes is known."""
        return self._phases.has_scores(history, 0)

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
        reference = self._step.reference(self._outcomes.best(history))
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
        return self._step.proposal(self._prior.first, EARLIER_STAGE, fidelity=fidelity)

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
        return None if config is None else self._step.proposal(config, SIZE_STAGE)

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

    def _decide(self, history: TrialHistory, claimed: Mapping[str, int]) -> NextStep:
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

    def _decided_again(self, history: TrialHistory, claimed: Mapping[str, int]) -> NextStep:
        if history.threshold is None:
            return NextStep()  # The baseline is still being measured.
        enough = self._start_that_is_enough(history)
        if enough is not None:
            return NextStep(answer=enough)
        sized = self._sized(history, claimed)
        if sized is not None:
            return NextStep(sized)
        model = self._model.fitted(history, claimed)
        decision, tools = NextStep(), self._tools_of(history)
        for phase, forbidden in enumerate(self._phases.forbidden):
            if not self._phases.has_scores(history, phase):
                return NextStep(lacks=phase)
            added = self._phases.forbidden[phase - 1] if phase else None
            decision = self._step.next(history, claimed, model, forbidden, tools, added=added)
            if decision.proposal is not None and decision.answer is None:
                break
        return decision
