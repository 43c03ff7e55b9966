"""The search of the surrogate strategy: the record in, the next configuration out."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
import math
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import TrialState

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.tradeoff import tradeoff
from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.samplers._engine.sampled import SampledOutcomes
from optuna_quant.samplers._models.least_probability import LEAST_PROBABILITY
from optuna_quant.samplers._models.least_probability import least_probability
from optuna_quant.samplers._models.loss_model import LossModel
from optuna_quant.samplers._models.loss_model import LossScale
from optuna_quant.samplers._models.loss_model import Observed
from optuna_quant.samplers._models.metric_step import metric_step
from optuna_quant.samplers._models.option_scores import OptionScores
from optuna_quant.samplers._models.option_scores import scored_options
from optuna_quant.samplers._models.outlook import Believed
from optuna_quant.samplers._models.outlook import Outlook
from optuna_quant.samplers._models.threads import single_threaded_blas
from optuna_quant.sequential import Verdict
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.costs import CostTable
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.trial_history import Outcome
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.option_scores import OptionScoreBook
    from optuna_quant.samplers._models.prior_in_space import PriorInSpace
    from optuna_quant.samplers._models.prior_in_space import TakenScores
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable


_NOTHING_SCORED = OptionScores({}, 0.0)

START_STAGE = "cheapest of all"
SEARCH_STAGE = "cheapest believed to meet"
ANSWER_STAGE = "answer"
_OWN_STAGES = (START_STAGE, SEARCH_STAGE, ANSWER_STAGE)
EARLIER_STAGE = "earlier answer"
# Why a study stopped, if not because the search has an answer.
_CUT_SHORT = ("timeout", "max_trials", "interrupted", "callback")

# With more ops the trade-off is near enough, and an integer program takes long.
_MOST_POLISHED = 150
_WORTH_POLISHING = 1e-3
_GRID = 5000
# An improvement is worth this part of ``min_gain`` at first, and e times more for so many
# evaluations: where one number is all that is known, after some; where samples are, for the parts
# of evaluations that it takes to tell; and where there are so few that nearly all are seen.
_FIRST_GAIN = 0.2
_FREE_EVALUATIONS, _EVALUATIONS_PER_E = 5.0, 2.2
_PARTS_PER_E = 0.22
_FEW_SAMPLES, _FEW_SAMPLES_PER_E = 100, 0.6
_GAIN_OF_ANOTHER_ANSWER = 3.0
_PATIENCE_WITHOUT_ANSWER = 4.0
_PATIENCE_WITHOUT_SCORES = 3.0
_MOST_WORTH_WITHOUT_ANSWER, _MOST_IN_VAIN = 0.05, 40
# The loss of a configuration that cannot be evaluated is taken to be so many times the tolerance.
_FAILED_LOSS = 2.0
# How often the trade-off is drawn where the most probable one leaves nothing to try.
_DRAWS, _MOST_TRIED = 6, 10
# A search that goes on after its answer stops at this part of the gain that ends the first.
_LAST_GAIN = 0.1
# Sensitivities may use this part of the evaluation samples, within limits.
_PART_OF_SAMPLES = 0.08
_FEWEST_SAMPLES, _MOST_SAMPLES = 6, 24
# The least loss of what surely fails, over the tolerance.
_SURELY_FAILS = 1.05
# The sum of equal shares, where nothing scores the ops.
_UNSCORED_ERROR = 0.05
_UNSCORED_OPTION = 1.5
# Larger scores are in another unit than the outputs' variance: only their ratios are used.
_LARGEST_SCORE = 10.0


@dataclass(frozen=True)
class SurrogateOptions:
    """What the search is told.

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
    scores: OptionScoreBook | TakenScores | None
    first_ops: frozenset[str] = frozenset()
    prior: PriorInSpace | None = None
    thorough: bool = False


@dataclass(frozen=True)
class Belief:
    """What the search believes about a configuration, and what it costs.

    Args:
        config:
            The configuration.
        cost:
            Its cost.
        probability:
            The probability that it meets the criterion.
        improvement:
            The expected improvement in cost, as a part of that of the best so far.
    """

    config: QuantConfig
    cost: float
    probability: float
    improvement: float


@dataclass(frozen=True)
class _Known:
    """A configuration that was evaluated at least in part, and what is known of it."""

    config: QuantConfig
    cost: float
    proven: bool
    """Whether it meets the criterion on all samples; otherwise it probably does."""


@dataclass(frozen=True)
class _Growth:
    """How what an evaluation must promise grows: from when on, and over how many by e."""

    free: float
    per_e: float


@dataclass(frozen=True)
class _Decision:
    """What to do next."""

    proposal: Proposal | None = None
    answer: str | None = None
    """The key of the configuration that the search has concluded with."""
    lacks: int | None = None
    """The phase that needs sensitivities which are not known yet."""


class SurrogatePolicy(Policy):
    """Evaluate the cheapest configuration that the model believes to meet the criterion.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        table:
            The costs.
        options:
            What else the search is told.
    """

    def __init__(
        self,
        space: TuningSpace,
        criterion: AccuracyCriterion,
        table: CostTable,
        options: SurrogateOptions,
    ) -> None:
        self._space = space
        self._criterion = criterion
        self._table = table
        self._options = options
        later = _options_of_others(space, options.first_ops)
        # What is searched first is at least as good then as where it is all there is.
        self._phases = [later, {}] if later else [{}]
        first = [t for t in space.tunables if not set(t.ops) & later.keys()]
        others = [t for t in space.tunables if set(t.ops) & later.keys()]
        self._scored: list[list[Tunable]] = [first, others] if others else [first]
        self._start = _cheapest_quantized(table, space, later)
        self._earlier_answer = self._earlier_proposal()
        self._fp32_cost = _fp32_cost(table, space)
        self._sampled = SampledOutcomes()
        self._decided: tuple[object, _Decision] | None = None

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        if self._options.prior is not None:
            # The model can decide at once, with the baseline and the sensitivities.
            if history.threshold is None and self._space.fp32().key in claimed:
                return None
            if not self._compute_scores(history, 0):
                return None
        first = self._first(history)
        if (
            first is not None
            and first.config.key not in claimed
            and not self._is_seen(history, first)
        ):
            return first
        if not self._compute_scores(history, 0):
            return None
        decision = self._decide(history, claimed)
        if decision.lacks is not None and self._compute_scores(history, decision.lacks):
            decision = self._decide(history, claimed)
        return decision.proposal

    def is_over(self, history: TrialHistory) -> bool:
        if not self._is_begun(history):
            return False
        if self._met(history, self._start.key) and len(self._phases) == 1:
            return True
        if not self._has_scores(history, 0):
            return False
        decision = self._decide(history, {})
        return decision.proposal is None and decision.lacks is None

    def is_blocked(self, history: TrialHistory) -> bool:
        if self._options.prior is None and not self._is_begun(history):
            return False
        return not self._has_scores(history, 0) or self._decide(history, {}).lacks is not None

    def is_answer(self, history: TrialHistory, key: str) -> bool:
        if key == self._start.key and len(self._phases) == 1:
            return True
        if not self._is_begun(history) or not self._has_scores(history, 0):
            return False
        return self._decide(history, {}).answer == key

    def _earlier_proposal(self) -> Proposal | None:
        """The evaluation of an earlier study's answer, if that answers this question."""
        prior = self._options.prior
        if prior is None or prior.first is None:
            return None
        goal = record.FULL if prior.is_concluded else record.VERDICT
        return self._try(prior.first, EARLIER_STAGE, goal=goal)

    def _first(self, history: TrialHistory) -> Proposal | None:
        """What is evaluated before the model decides; :obj:`None` if it decides at once."""
        if self._earlier_answer is not None:
            return self._earlier_answer
        if self._options.prior is not None and history.threshold is not None:
            return None
        return Proposal(self._start, START_STAGE)

    def _is_begun(self, history: TrialHistory) -> bool:
        first = self._first(history)
        return first is None or self._is_seen(history, first)

    def _is_seen(self, history: TrialHistory, first: Proposal) -> bool:
        if first.goal == record.FULL:
            return self._is_known(history, first.config)
        outcome = history.outcomes.get(first.config.key)
        return outcome is not None and self._is_decided(history, outcome)

    def beliefs(self, history: TrialHistory) -> list[Belief]:
        """What the model believes about the configurations that it would try, cheapest first."""
        if not self._has_scores(history, 0) or history.threshold is None:
            return []
        with single_threaded_blas():
            model = self._model(history, {})
            reference = self._reference(self._known(history))
            phase = (
                len(self._phases) - 1 if self._has_scores(history, len(self._phases) - 1) else 0
            )
            return self._beliefs(history, model, reference, self._phases[phase])

    def best(self, history: TrialHistory) -> QuantConfig | None:
        """The cheapest configuration that meets the criterion, or probably does."""
        found = self._known(history)
        return None if found is None else found.config

    def meets(self, history: TrialHistory, config: QuantConfig | None) -> bool:
        """Whether a configuration was seen to meet the criterion on all samples."""
        return config is not None and self._met(history, config.key)

    def outlook(self, history: TrialHistory) -> Outlook:
        """Where the search stands, and what it believes; the baseline must be known."""
        stage, phase = self._next_stage(history), len(self._phases) - 1
        while phase >= 0 and not self._has_scores(history, phase):
            phase -= 1
        if phase < 0:
            return Outlook(stage, self._start, self._fp32_cost)
        with single_threaded_blas():
            model = self._model(history, {})
            believed = [
                self._believed(history, model, config)
                for config in self._path(model, self._phases[phase])
                if config.quantized_ops
            ]
        scores = [self._read_scores(history, tunables) for tunables in self._scored]
        known = [each for each in scores if each is not None]
        return Outlook(stage, self._start, self._fp32_cost, model, known, believed)

    def _next_stage(self, history: TrialHistory) -> str | None:
        """The stage that comes next; :obj:`None` if the search has concluded."""
        if not self._is_begun(history):
            return START_STAGE
        if self.is_over(history):
            return None
        if not self._has_scores(history, 0):
            return SEARCH_STAGE
        decision = self._decide(history, {})
        stopped = history.study.user_attrs.get(record.STOPPED_BECAUSE, {}).get("reason")
        if decision.answer is not None and stopped not in _CUT_SHORT:
            return None  # It would only go on if it was to find the best.
        if decision.proposal is None or decision.proposal.stage == START_STAGE:
            return SEARCH_STAGE
        return decision.proposal.stage

    def _believed(self, history: TrialHistory, model: LossModel, config: QuantConfig) -> Believed:
        found = model.predict(self._options_of(config))
        outcome, prior = history.outcomes.get(config.key), self._options.prior
        return Believed(
            config,
            self._table.cost(config),
            found.loss,
            found.probability(model.scale.tolerance),
            (outcome is not None and self._is_decided(history, outcome))
            or (prior is not None and config.key in prior.failed),
        )

    def learned(self, history: TrialHistory) -> tuple[LossModel, list[Observed]]:
        """The model of the loss, and what it has learned from; the baseline must be known."""
        model = self._model(history, {})
        return model, [*self._earlier(history, model), *self._observations(history)]

    # What is known.

    def _is_known(self, history: TrialHistory, config: QuantConfig) -> bool:
        """Whether nothing more is to be seen of a configuration that must be seen to the end."""
        outcome = history.outcomes.get(config.key)
        if outcome is None:
            return False
        return not outcome.is_partial or self._sampled.is_settled(history, config.key)

    def _met(self, history: TrialHistory, key: str) -> bool:
        """Whether a configuration meets the criterion, on all samples."""
        outcome = history.outcomes.get(key)
        return (
            outcome is not None and outcome.is_complete and self._violation(history, outcome) <= 0
        )

    def _violation(self, history: TrialHistory, outcome: Outcome) -> float:
        baseline = history.baseline
        if outcome.value is None:
            return math.inf
        if baseline is None:
            return math.inf if outcome.violation is None else outcome.violation
        return self._criterion.violation(outcome.value, baseline)

    def _known(self, history: TrialHistory) -> _Known | None:
        """The cheapest configuration that meets the criterion, or probably does.

        Of equally cheap ones what is proven comes first.
        """
        found: list[tuple[tuple[float, bool, int], _Known]] = []
        for key, outcome in history.outcomes.items():
            proven = self._met(history, key)
            if not proven and not (outcome.is_partial and self._is_promised(history, outcome)):
                continue
            config = self._config(outcome)
            if config is None or not config.quantized_ops:
                continue
            cost = self._table.cost(config)
            found.append(((cost, not proven, outcome.number), _Known(config, cost, proven)))
        return min(found, key=lambda each: each[0])[1] if found else None

    def _is_promised(self, history: TrialHistory, outcome: Outcome) -> bool:
        seen = self._sampled.evidence(history, outcome)
        return seen is not None and seen.met is True  # Before its last sample it may be certain.

    def _config(self, outcome: Outcome) -> QuantConfig | None:
        if self._space.key_from_params(outcome.params) is None:
            return None
        return self._space.config_from_params(outcome.params)

    # Sensitivities.

    def _samples(self, history: TrialHistory) -> int | None:
        """How many samples the sensitivities may use; :obj:`None` if that is theirs to say."""
        population = history.population
        if population is None:
            return None
        wanted = round(_PART_OF_SAMPLES * population.samples)
        return int(np.clip(wanted, _FEWEST_SAMPLES, _MOST_SAMPLES))

    def _has_scores(self, history: TrialHistory, phase: int) -> bool:
        """Whether the study holds the sensitivities that a phase of the search needs."""
        return all(
            self._read_scores(history, tunables) is not None
            for tunables in self._scored[: phase + 1]
        )

    def _read_scores(
        self, history: TrialHistory, tunables: Sequence[Tunable]
    ) -> OptionScores | None:
        book = self._options.scores
        if book is None:
            return _NOTHING_SCORED
        return book.read(history.study, self._samples(history), tunables)

    def _compute_scores(self, history: TrialHistory, phase: int) -> bool:
        """Compute what a phase needs; :obj:`False` if another worker is at it."""
        book = self._options.scores
        for tunables in self._scored[: phase + 1]:
            if book is None or self._read_scores(history, tunables) is not None:
                continue
            if not book.compute(history.study, self._samples(history), tunables):
                return False
        return True

    def _sensitivities(self, history: TrialHistory) -> tuple[NDArray[np.float64], bool]:
        """The sensitivity of each tunable in each of its options, and whether it was scored."""
        tunables = self._space.tunables
        shape = len(tunables), max(len(tunable.options) for tunable in tunables)
        found = np.zeros(shape)
        scores = self._all_scores(history)
        for i, tunable in enumerate(tunables):
            default = _UNSCORED_ERROR / len(tunables)
            for j, option in enumerate(tunable.options):
                if not option.is_quantized:
                    continue
                if scores:
                    of_ops = [scores.get(op, {}).get(option.label) for op in tunable.ops]
                    known = [score for score in of_ops if score is not None]
                    if len(known) == len(of_ops):
                        found[i, j] = sum(known)
                        default = found[i, 0]
                        continue
                    found[i, j] = _UNSCORED_OPTION * default
                else:
                    found[i, j] = default
        if not found.any():  # All are equal, as far as the scores say.
            found[...] = _UNSCORED_ERROR / len(tunables)
            scores = {}
        elif found.max() > _LARGEST_SCORE:
            found /= found.max()
            found /= found.max(axis=1).sum()
        total = float(found.max(axis=1).sum())
        # An op that was seen to do nothing may do a little.
        floor = 1e-6 * total / len(tunables)
        for i, tunable in enumerate(tunables):
            for j, option in enumerate(tunable.options):
                found[i, j] = max(found[i, j], floor) if option.is_quantized else 0.0
        if self._options.prior is not None and history.baseline is not None:
            found *= self._options.prior.factors(history.baseline)
        return found, bool(scores)

    def _all_scores(self, history: TrialHistory) -> dict[str, Mapping[str, float]]:
        """What is known of the ops' sensitivities."""
        found: dict[str, Mapping[str, float]] = {}
        for tunables in self._scored:
            scores = self._read_scores(history, tunables)
            if scores is not None:
                found.update(scores.scores)
        return found

    def _options_of(self, config: QuantConfig) -> NDArray[np.int64]:
        return np.array(
            [t.options.index(config.ops[t.ops[0]]) for t in self._space.tunables], dtype=np.int64
        )

    # The model.

    @cached_property
    def _kinds(self) -> NDArray[np.int64]:
        """The kind of each tunable's options: what they have in common that are not defaults."""
        tunables = self._space.tunables
        found = np.full((len(tunables), max(len(t.options) for t in tunables)), -1)
        numbers: dict[object, int] = {}
        for i, tunable in enumerate(tunables):
            for j, option in enumerate(tunable.options):
                kind = _kind(option)
                if option.is_quantized and kind != _kind(tunable.default):
                    found[i, j] = numbers.setdefault(kind, len(numbers))
        return found

    def _scale(self, history: TrialHistory) -> LossScale:
        baseline, threshold = history.baseline, history.threshold
        assert baseline is not None and threshold is not None
        size = abs(baseline)
        tolerance = abs(baseline - threshold)
        population = history.population
        least = 1e-4 * size
        if population is not None:
            least = 0.5 * population.scale / population.samples
        tolerance = max(tolerance, least, 1e-9)
        bounded = self._criterion.higher_is_better and baseline > 0
        if not self._criterion.higher_is_better:
            size = 0.0  # An error of the FP32 model says little about what quantization adds.
        prior = self._options.prior
        learned = None if prior is None else prior.scale(baseline)
        return LossScale(tolerance, size, baseline if bounded else math.inf, learned)

    def _model(self, history: TrialHistory, claimed: Mapping[str, int]) -> LossModel:
        sensitivities, is_scored = self._sensitivities(history)
        kinds = self._kinds if is_scored else None
        model = LossModel(sensitivities, self._scale(history), is_scored, kinds)
        observations = [*self._earlier(history, model), *self._observations(history)]
        model = model.fitted(observations)
        # What others evaluate now counts as if it had turned out as expected.
        pending = [
            Observed(options, model.predict(options).loss)
            for options in self._claimed(history, claimed)
        ]
        return model.fitted([*observations, *pending]) if pending else model

    def _earlier(self, history: TrialHistory, model: LossModel) -> list[Observed]:
        """What an earlier study has seen."""
        prior = self._options.prior
        if prior is None or history.baseline is None:
            return []
        return prior.observed(
            baseline=history.baseline, tolerance=model.scale.tolerance, without=history.outcomes
        )

    def _claimed(
        self, history: TrialHistory, claimed: Mapping[str, int]
    ) -> list[NDArray[np.int64]]:
        found = []
        for number in sorted(claimed.values()):
            trial = history.running[number]
            claim = TrialView(trial).claim
            if claim is not None and claim.positions is not None:
                # Of parameters: an op with one option has none, and recipes have theirs.
                found.append(self._options_of(self._space.config_of(claim.positions)))
        return found

    def _observations(self, history: TrialHistory) -> list[Observed]:
        baseline = history.baseline
        assert baseline is not None
        sign = 1.0 if self._criterion.higher_is_better else -1.0
        step = 0.0 if history.population is not None else self._step(history)
        scale = self._scale(history)
        tolerance = scale.tolerance
        found = []
        for outcome in sorted(history.outcomes.values(), key=lambda o: o.number):
            if outcome.is_substitute:
                continue
            config = self._config(outcome)
            if config is None or not config.quantized_ops:
                continue
            if outcome.state == TrialState.FAIL:
                # What cannot be run says which ops to leave alone, as a loss far off does.
                options = self._options_of(config)
                found.append(Observed(options, _FAILED_LOSS * scale.tolerance))
                continue
            value, error, spread = outcome.value, 0.0, 0.0
            seen = self._sampled.evidence(history, outcome)
            if seen is not None and len(seen.scores):
                error, spread = _standard_errors(seen.population, seen.scores)
                if outcome.is_partial:
                    value = seen.evaluation(config).value
            if value is None or not math.isfinite(value):
                continue
            loss = sign * (baseline - value)
            if step:
                # As many samples have changed at least, and one more could have.
                spread = math.sqrt(step * (abs(loss) + step))
            if seen is not None and seen.verdict is Verdict.FAILS:
                # That it fails is known better than by how much.
                loss = max(loss, _SURELY_FAILS * tolerance)
                error = min(error, 0.5 * (loss - tolerance))
            found.append(Observed(self._options_of(config), loss, error, spread))
        return found

    def _step(self, history: TrialHistory) -> float:
        """By what the metric changes with one sample, as its values tell; 0 if they do not."""
        values = [o.value for o in history.outcomes.values() if o.value is not None]
        return metric_step([value for value in values if math.isfinite(value)])

    # The decision.

    def _decide(self, history: TrialHistory, claimed: Mapping[str, int]) -> _Decision:
        state = (
            id(history),
            history.revision,
            history.threshold,
            self._has_scores(history, len(self._phases) - 1),
            tuple(sorted(claimed.items())),
        )
        if self._decided is None or self._decided[0] != state:
            with single_threaded_blas():
                self._decided = state, self._decided_anew(history, claimed)
        return self._decided[1]

    def _decided_anew(self, history: TrialHistory, claimed: Mapping[str, int]) -> _Decision:
        if history.threshold is None:
            return _Decision()  # The baseline is still being measured.
        if self._met(history, self._start.key) and len(self._phases) == 1:
            return _Decision(answer=self._start.key)
        model = self._model(history, claimed)
        decision = _Decision()
        for phase, later in enumerate(self._phases):
            if not self._has_scores(history, phase):
                return _Decision(lacks=phase)
            decision = self._decided_in(history, claimed, model, later)
            if decision.proposal is not None and decision.answer is None:
                break
        return decision

    def _decided_in(
        self,
        history: TrialHistory,
        claimed: Mapping[str, int],
        model: LossModel,
        forbidden: Mapping[str, Sequence[str]],
    ) -> _Decision:
        """What to do next, where some options are not used."""
        best = self._known(history)
        beliefs = [
            belief
            for belief in self._beliefs(history, model, self._reference(best), forbidden)
            if belief.config.key not in claimed
        ]
        next_one = max(beliefs, key=lambda b: (b.improvement, b.probability), default=None)
        gain = 0.0 if next_one is None else next_one.improvement
        worth = self._worth(history, best, model)
        if next_one is not None and gain >= worth and not self._is_concluded(best):
            config = self._polished(model, next_one.config, forbidden)
            known = config.key in claimed or history.outcomes.get(config.key) is not None
            return _Decision(self._try(next_one.config if known else config, SEARCH_STAGE))
        if self._start.key not in claimed and self._is_start_open(history, best):
            return _Decision(Proposal(self._start, START_STAGE))
        if best is not None and not best.proven and best.config.key not in claimed:
            return _Decision(self._try(best.config, ANSWER_STAGE, goal=record.FULL))
        answer = best.config.key if best is not None and best.proven else None
        if gain < _LAST_GAIN * worth:
            next_one = self._thorough(history, beliefs, self._reference(best))
        if next_one is not None:
            return _Decision(self._try(next_one.config, SEARCH_STAGE), answer)
        return _Decision(answer=answer)

    def _is_start_open(self, history: TrialHistory, best: _Known | None) -> bool:
        """Whether what a search without an earlier study tries first was seen in neither.

        What the model believes of it rests on other configurations then, and one look tells.
        """
        prior, baseline = self._options.prior, history.baseline
        if prior is None or baseline is None or self._is_concluded(best):
            return False
        outcome = history.outcomes.get(self._start.key)
        if outcome is not None and self._is_decided(history, outcome):
            return False
        reference = self._reference(best)
        saved = reference - self._table.cost(self._start)
        return saved > _WORTH_POLISHING * abs(reference) and not prior.has_seen(
            self._start, baseline=baseline
        )

    def _thorough(
        self, history: TrialHistory, beliefs: Sequence[Belief], reference: float
    ) -> Belief | None:
        """What is tried next whatever was spent, if that is wanted: time is no matter then."""
        if not self._options.thorough:
            return None
        population = history.population
        least = least_probability(None if population is None else population.samples)
        dearest = reference - self._options.min_gain * abs(reference)
        promising = [b for b in beliefs if b.probability >= least and b.cost <= dearest]
        return max(promising, key=lambda b: (b.improvement, b.probability), default=None)

    def _worth(self, history: TrialHistory, best: _Known | None, model: LossModel) -> float:
        """The expected improvement that is worth one more evaluation, as a part of the best cost.

        It grows with what was spent: a cheaper model is worth less than the time to find it.
        """
        population = history.population
        spent = self._spent(history)
        prior = self._options.prior
        if prior is not None and best is not None and best.config == prior.first:
            # What the earlier study has tried in vain is not worth as much again.
            spent += prior.fruitless * (1.0 if population is None else _PARTS_PER_E)
        if population is None:
            growth = _Growth(_FREE_EVALUATIONS, _EVALUATIONS_PER_E)
        elif population.samples < _FEW_SAMPLES:
            growth = _Growth(0.0, _FEW_SAMPLES_PER_E)
        else:
            growth = _Growth(0.0, _PARTS_PER_E)
        first = _FIRST_GAIN * self._options.min_gain
        per_e = growth.per_e * (_PATIENCE_WITHOUT_ANSWER if best is None else 1.0)
        per_e *= 1.0 if model.is_scored else _PATIENCE_WITHOUT_SCORES
        worth = first * math.exp(min(max(0.0, spent - growth.free) / per_e, 50.0))
        if best is None and len(self._own_models(history)) < _MOST_IN_VAIN:
            # Without an answer what is likely to be one is always worth a look.
            worth = min(worth, _MOST_WORTH_WITHOUT_ANSWER)
        if population is not None and best is not None and best.proven:
            # What is cheaper than an answer must be evaluated on all samples, as that was.
            worth = max(worth, _GAIN_OF_ANOTHER_ANSWER * self._options.min_gain)
        return worth

    def _spent(self, history: TrialHistory) -> float:
        """What candidates have cost, in full evaluations; equal models count once."""
        return sum(self._own_models(history).values())

    def _own_models(self, history: TrialHistory) -> dict[object, float]:
        """The different models that this search has tried, and the part that was seen of each."""
        population = history.population
        seen: dict[object, float] = {}
        for outcome in history.outcomes.values():
            if outcome.state == TrialState.FAIL or outcome.is_substitute:
                continue
            # What others have tried is knowledge that costs nothing.
            if outcome.view is None or outcome.view.stage not in _OWN_STAGES:
                continue
            part = 1.0
            if population is not None and outcome.samples is not None:
                part = min(1.0, outcome.samples / population.samples)
            seen[outcome.score, outcome.samples] = part
        return seen

    def _is_concluded(self, best: _Known | None) -> bool:
        """Whether the best so far is proven, and an earlier study has found nothing better."""
        prior = self._options.prior
        if prior is None or best is None or not prior.is_concluded:
            return False
        return best.proven and best.config == prior.first

    def _try(self, config: QuantConfig, stage: str, *, goal: str = record.VERDICT) -> Proposal:
        return Proposal(
            config,
            stage,
            provisional=stage != ANSWER_STAGE,
            positions=self._space.positions_of(config),
            goal=goal,
        )

    def _reference(self, best: _Known | None) -> float:
        return self._fp32_cost if best is None else best.cost

    def _beliefs(
        self,
        history: TrialHistory,
        model: LossModel,
        reference: float,
        forbidden: Mapping[str, Sequence[str]],
    ) -> list[Belief]:
        """The cheapest configurations for several budgets of error that are worth a look."""
        prior = self._options.prior
        earlier = [] if prior is None or prior.answer is None else [prior.answer]
        wanted = [*self._path(model, forbidden), *earlier]
        found = self._beliefs_in(history, model, reference, wanted)
        tried = len(self._own_models(history))
        if not found and tried < _MOST_TRIED and self._known(history) is None:
            # What is most probable leaves nothing to try; what may be as well does.
            rng = np.random.default_rng([tried, len(self._space.tunables)])
            for _ in range(_DRAWS):
                wanted += self._path(model, forbidden, model.drawn_weights(rng))
            found = self._beliefs_in(history, model, reference, wanted)
        return found

    def _beliefs_in(
        self,
        history: TrialHistory,
        model: LossModel,
        reference: float,
        configs: Sequence[QuantConfig],
    ) -> list[Belief]:
        """What is believed of those of some configurations that are worth a look."""
        tolerance = model.scale.tolerance
        prior = self._options.prior
        found: dict[str, Belief] = {}
        for config in configs:
            outcome = history.outcomes.get(config.key)
            if config.key in found or not config.quantized_ops:
                continue
            if prior is not None and config.key in prior.failed:
                continue
            if outcome is not None and self._is_decided(history, outcome):
                continue
            cost = self._table.cost(config)
            probability = model.predict(self._options_of(config)).probability(tolerance)
            if probability < LEAST_PROBABILITY or cost >= reference:
                continue
            gain = (reference - cost) / (abs(reference) or 1.0)
            found[config.key] = Belief(config, cost, probability, gain * probability)
        return sorted(found.values(), key=lambda b: (b.cost, -b.probability))

    def _is_decided(self, history: TrialHistory, outcome: Outcome) -> bool:
        if not outcome.is_partial:
            return True
        seen = self._sampled.evidence(history, outcome)
        return seen is None or seen.verdict is not Verdict.OPEN

    def _path(
        self,
        model: LossModel,
        forbidden: Mapping[str, Sequence[str]],
        drawn: NDArray[np.float64] | None = None,
    ) -> list[QuantConfig]:
        """The trade-off by the weights of the model, or by others."""
        weights, unscored = self._weights(model, drawn)
        return tradeoff(self._table, self._space, weights, forbidden=_merged(unscored, forbidden))

    def _polished(
        self, model: LossModel, config: QuantConfig, forbidden: Mapping[str, Sequence[str]]
    ) -> QuantConfig:
        """The cheapest configuration with no more error than this one."""
        if len(self._space.tunables) > _MOST_POLISHED:
            return config
        weights, unscored = self._weights(model)
        # On a grid that is coarser than what the solver takes for equal, so that its solutions
        # are within the bound once they are rounded.
        largest = max(value for row in weights.values() for value in row.values())
        grid = {
            op: {label: float(math.ceil(_GRID * value / largest)) for label, value in row.items()}
            for op, row in weights.items()
        }
        better = cheapest(
            self._table,
            self._space,
            weights=grid,
            bound=sum(grid[t.ops[0]][config.ops[t.ops[0]].label] for t in self._space.tunables),
            forbidden=_merged(unscored, forbidden),
        )
        saved = self._table.cost(config) - self._table.cost(better)
        return better if saved > _WORTH_POLISHING * abs(self._fp32_cost) else config

    def _weights(
        self, model: LossModel, drawn: NDArray[np.float64] | None = None
    ) -> tuple[Mapping[str, Mapping[str, float]], Mapping[str, Sequence[str]]]:
        """What each op adds to the error in each option, and the options that are not used."""
        weights: dict[str, dict[str, float]] = {}
        forbidden: dict[str, list[str]] = {}
        values = model.weights if drawn is None else drawn
        for i, tunable in enumerate(self._space.tunables):
            scored = set(scored_options(tunable))
            first, *_ = tunable.ops  # A group's weight is that of all its ops.
            weights[first] = {o.label: float(values[i, j]) for j, o in enumerate(tunable.options)}
            unscored = [o.label for o in tunable.quantized if o not in scored]
            if unscored:
                forbidden[first] = unscored
        return weights, forbidden


def _kind(option: OpConfig) -> tuple[str, str | None]:
    """What makes the errors of options alike, whatever the op: how they find the range."""
    return option.mode, None if option.activation is None else option.activation.algorithm


def _options_of_others(space: TuningSpace, ops: Collection[str]) -> Mapping[str, Sequence[str]]:
    """The quantized options of the ops that are not among some, where they can do without."""
    if not ops:
        return {}
    return {
        op: [option.label for option in tunable.quantized]
        for tunable in space.tunables
        if tunable.fallbacks and tunable.quantized and not set(tunable.ops) & set(ops)
        for op in tunable.ops
    }


def _merged(
    one: Mapping[str, Sequence[str]], other: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[str]]:
    return {op: [*one.get(op, ()), *other.get(op, ())] for op in {**one, **other}}


def _cheapest_quantized(
    table: CostTable, space: TuningSpace, forbidden: Mapping[str, Sequence[str]]
) -> QuantConfig:
    """The cheapest configuration; if that is FP32, the cheapest with everything quantized."""
    found = cheapest(table, space, forbidden=forbidden)
    if found.quantized_ops:
        return found
    floats = {
        op: [option.label for option in tunable.fallbacks]
        for tunable in space.tunables
        if tunable.quantized and not set(tunable.ops) & set(forbidden)
        for op in tunable.ops
    }
    return cheapest(table, space, forbidden=_merged(floats, forbidden))


def _fp32_cost(table: CostTable, space: TuningSpace) -> float:
    """What the model costs with as many ops in floats as the space allows."""
    return table.cost(space.fp32())


def _standard_errors(population: Population, scores: NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean difference to the baseline: for all samples, and for all possible ones.

    In units of the metric.
    """
    seen = len(scores)
    gains = scores - population.normal_baseline[:seen]
    # As if one more sample had changed as far as any did: none is not certainty.
    largest = float(np.abs(gains).max()) or 1.0
    spread = float(np.sqrt(np.square(gains).mean() + largest**2 / seen))
    spread *= population.scale / math.sqrt(population.samples)
    if seen >= population.samples:
        return 0.0, spread
    before = np.concatenate([[0.0], np.cumsum(gains)[:-1]])
    draws = (before + gains / population.order.probabilities[:seen]) / population.samples
    variance = float(draws.var()) + largest**2 / seen
    left = 1 - seen / population.samples
    return population.scale * math.sqrt(variance * left / seen), spread
