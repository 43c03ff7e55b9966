"""Model the loss over configurations, and evaluate the cheapest that may meet the criterion."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
import math
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.backends.base import SensitivityKind
from optuna_quant.costs import CostTable
from optuna_quant.costs.objective import show_measure
from optuna_quant.samplers._engine.base import QuantSampler
from optuna_quant.samplers._models.beliefs import Belief
from optuna_quant.samplers._models.explanation import Explanation
from optuna_quant.samplers._models.explanation import Question
from optuna_quant.samplers._models.explanation import explained
from optuna_quant.samplers._models.explanation_text import in_words
from optuna_quant.samplers._models.option_scores import OptionSensitivityCache
from optuna_quant.samplers._models.option_scores import kept_scores
from optuna_quant.samplers._models.option_scores import merged
from optuna_quant.samplers._models.prior import StudyPrior
from optuna_quant.samplers._models.prior import keep_prior
from optuna_quant.samplers._models.prior import kept_prior
from optuna_quant.samplers._models.prior_in_space import PriorInSpace
from optuna_quant.samplers._models.prior_in_space import TakenScores
from optuna_quant.samplers._models.recipe_choice import has_recipes
from optuna_quant.samplers._models.recipe_choice import with_recipes
from optuna_quant.samplers._models.recipe_policy import RecipePolicy
from optuna_quant.samplers._models.search_costs import costs_of_search
from optuna_quant.samplers._models.surrogate_policy import SurrogatePolicy
from optuna_quant.samplers._models.surrogate_step import SurrogateOptions
from optuna_quant.samplers._plans.criterion import require_criterion
from optuna_quant.samplers._registry import register_strategy
from optuna_quant.space.blocks import checked_blocks
from optuna_quant.study.kept_blocks import keep_blocks
from optuna_quant.study.kept_blocks import kept_blocks
from optuna_quant.study.missing_ranges import find_missing_ranges
from optuna_quant.study.missing_ranges import never_quantized


if TYPE_CHECKING:
    import optuna

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs.objective import Objective
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


@register_strategy("surrogate")
class SurrogateQuantSampler(QuantSampler):
    """Evaluate the cheapest configuration that a model of the loss believes to meet the criterion.

    1. ``cheapest to start with``: what costs least, whatever its accuracy (with ``first_ops``:
       what costs least with these alone quantized). If it meets the criterion it is the answer.
       If the space has several calibration sizes and the first one fails, it is tried once with
       each of the others (``calibration size``), and the best one is kept.
    2. ``cheapest believed to meet``: the sensitivity of the model to each op in each option is
       computed, once for the study. It is the prior of a model of the loss
       (:class:`~optuna_quant.samplers._models.loss_model.LossModel`) that every trial of the study
       teaches, of any worker: the loss is a power of the sum of the ops' errors, and how much
       each op really adds is learned. An integer program gives the cheapest configuration for
       several budgets of error; the one with the highest expected improvement in cost over the
       best so far is evaluated (J. Mockus, "On Bayesian methods for seeking the extremum", 1975;
       with a constraint: M. Schonlau, W. Welch and D. Jones, "Global versus local search in
       constrained optimization of computer models", 1998). That is repeated until no improvement
       of at least ``min_gain`` is expected.
    3. ``answer``: where samples are evaluated one by one, the cheapest one that probably meets
       the criterion is evaluated to the end; if it fails there, the search goes on.

    With a ``prior``, or in a study that keeps one, the search begins with what an earlier study
    has taught: where the question is the same, the earlier answer comes first (``earlier
    answer``), and the model knows from the start what was seen there.

    Use it for everything: it needs a handful of evaluations, whatever the number of ops, and has
    most ops quantized whenever it is stopped.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough.
        costs:
            What configurations cost. Workers of one study must be given the same table, as
            :func:`~optuna_quant.tune` does, which keeps it in the study. Default: the number of
            ops in fallback.
        sensitivity:
            What scores the ops, such as a backend's ``gradient_sensitivity()``: a callable that
            takes a configuration and op names and gives ``{op: score}``. If it has a method
            ``score_options(configs, ops)`` all options are scored together. Scores are taken to
            be additive, as errors in variances are. Default: all ops are taken to be equal,
            and the search learns the rest from trials.
        min_gain:
            The expected improvement that is worth one more evaluation, as a part of what the
            best model so far costs (FP32, before there is one). That is in the middle of a
            search: at first a fifth of it will do, and the more was evaluated the more it takes.
        first_ops:
            The ops that are searched first, with all others in floating point; only then are
            others quantized as well, where that is cheaper. So the answer is no worse than that
            of a space of these ops alone. :func:`~optuna_quant.tune` names those of the default
            space if it is given ``op_types="all"``. Default: all together.
        thorough:
            Whether the search goes on, where another evaluation is not worth what it may gain, as
            long as something is believed to meet the criterion with a probability of 3% (10% with
            fewer than 100 samples) and would be cheaper by ``min_gain``. It is for a search that
            has time to spend: :func:`~optuna_quant.tune` sets it if ``timeout`` is not 0.
        prior:
            What an earlier study has taught, as
            :func:`~optuna_quant.samplers.study_prior` reads it. It is written into the study at
            its start; a study that keeps one goes on with it, whether it is given or not.
        blocks:
            The parts of the model that repeat, as ``backend.blocks()`` gives them. Where nothing
            scores the ops, those of a block share a factor in the model of the loss, and so do
            those at one place in the blocks of a family: where some of them lose more than others,
            the rest is expected to. The study keeps them, and goes on with those that it keeps.
            Default: none.
        **kwargs:
            See :class:`QuantSampler`.

    Raises:
        TypeError:
            If there is no criterion, the costs are no table, or the prior is something else.
        ValueError:
            If the table lacks an option of the space, ``min_gain`` is not above zero, the prior
            is about another model, or the blocks are something else.
    """

    sensitivity_kind = SensitivityKind.BEST
    begins_from_studies = True
    learns_from_blocks = True
    tunes_recipes = True

    def __init__(
        self,
        space: TuningSpace,
        *,
        criterion: AccuracyCriterion | None,
        costs: CostTable | None = None,
        sensitivity: Sensitivity | None = None,
        min_gain: float = 0.01,
        first_ops: Collection[str] = (),
        thorough: bool = False,
        prior: StudyPrior | None = None,
        blocks: Sequence[Block] = (),
        **kwargs: Any,
    ) -> None:
        require_criterion(self, criterion)
        super().__init__(space, criterion=criterion, **kwargs)
        if not 0 < min_gain < math.inf:
            raise ValueError(f"min_gain must be a number above 0, but got {min_gain!r}.")
        self._costs = costs_of_search(space, costs)
        self._min_gain = min_gain
        known = {op for tunable in space.tunables for op in tunable.ops}
        self._first_ops = frozenset(first_ops) & known
        if prior is not None:
            if not isinstance(prior, StudyPrior):
                raise TypeError(f"prior must be what study_prior(study) gives, but got {prior!r}.")
            prior.check(space)
        self._prior = prior
        self._thorough = thorough
        self._blocks = checked_blocks(blocks)
        self._sensitivity = sensitivity
        self._option_scores = (
            None
            if sensitivity is None
            else OptionSensitivityCache(space, self._costs, sensitivity)
        )

    @property
    def thorough(self) -> bool:
        """Whether the search goes on with all that may be better, whatever was spent."""
        return self._thorough

    def beliefs(self, study: optuna.Study) -> list[Belief]:
        """What the model believes about the configurations that it would try, cheapest first.

        Args:
            study:
                The study.

        Returns:
            For each its cost and the probability that it meets the criterion; empty before the
            sensitivities are known.
        """
        with self._sessions.refreshed(study) as session:
            policy = _searching(session.policy, session.history)
            return [] if policy is None else policy.beliefs(session.history)

    def explain(
        self,
        study: optuna.Study,
        config: QuantConfig | None = None,
        *,
        objective: Objective | None = None,
    ) -> Explanation | None:
        """Why an answer has its ops in fallback, and what is believed of what was not tried.

        It follows from the record: neither data nor the model are needed.

        Args:
            study:
                The study.
            config:
                The answer. Default: the cheapest configuration that meets the criterion, or
                probably does.
            objective:
                What shows costs, if it is what the sampler's table is about.

        Returns:
            The explanation; :obj:`None` before the FP32 model was evaluated.
        """
        with self._sessions.refreshed(study) as session:
            history = session.history
            policy = _searching(session.policy, history)
            if policy is None or history.threshold is None:
                return None
            if self._option_scores is None and kept_prior(study) is None:
                policy = self._policy_by_record(history, config, policy)
            outlook = policy.outlook(history)
            best = policy.best(history)
            config = best if config is None else config
            met = policy.meets(history, config)
        assert self._criterion is not None
        assert history.baseline is not None
        population = history.population
        samples = None if population is None else population.samples
        question = Question(
            self._space,
            self._criterion,
            self._costs,
            history.baseline,
            samples,
            config,
            met,
            self._min_gain,
            None if best is None else self._costs.cost(best),
            self._thorough,
        )
        found = explained(question, outlook)
        measure = self._costs.measure
        show: Callable[[float], str] = partial(show_measure, measure)
        if objective is not None and objective.name == measure:
            show = objective.show
        text = in_words(
            found,
            criterion=self._criterion,
            measure=measure,
            show=show,
            missing=never_quantized(self._space, find_missing_ranges(study)),
        )
        return replace(found, text=text)

    def _policy_by_record(
        self, history: TrialHistory, config: QuantConfig | None, own: SurrogatePolicy
    ) -> SurrogatePolicy:
        """The search, with the sensitivities that the study keeps, from any worker."""
        kept = merged(kept_scores(history.study))
        if not kept.scores and not has_recipes(self._space):
            return own  # It has none either, and has drawn its conclusions already.
        scores = TakenScores(kept) if kept.scores else None
        assert self._criterion is not None
        options = SurrogateOptions(
            self._min_gain,
            scores,
            self._first_ops,
            thorough=self._thorough,
            blocks=kept_blocks(history.study, self._space.prefix),
        )
        recipes = (self._space.default() if config is None else config).recipes
        part = with_recipes(self._space, recipes)
        return SurrogatePolicy(part, self._criterion, self._costs, options, whole=self._space)

    def _policy(self, history: TrialHistory) -> Policy:
        kept, blocks = keep_prior(history.study, self._prior), self._known_blocks(history)
        if not has_recipes(self._space):
            return self._search(self._space, self._option_scores, kept, blocks)
        search = partial(self._search_part, kept, blocks)
        if kept is None:
            return RecipePolicy(self._space, self._costs, self._sensitivity, search)
        # The earlier study has chosen its recipes.
        answer = PriorInSpace(kept, self._space, self._checked_criterion, self._costs).answer
        recipes = self._space.default().recipes if answer is None else answer.recipes
        return RecipePolicy(self._space, self._costs, None, search, recipes=recipes)

    def _known_blocks(self, history: TrialHistory) -> tuple[Block, ...]:
        """The blocks that the study is searched with."""
        return keep_blocks(history.study, self._space.prefix, self._blocks)

    @property
    def _checked_criterion(self) -> AccuracyCriterion:
        assert self._criterion is not None
        return self._criterion

    def _search_part(
        self, kept: StudyPrior | None, blocks: tuple[Block, ...], part: TuningSpace
    ) -> SurrogatePolicy:
        """The search in a part of the space, in which recipes are fixed."""
        cache = None
        if self._sensitivity is not None:
            cache = OptionSensitivityCache(part, self._costs, self._sensitivity)
        return self._search(part, cache, kept, blocks)

    def _search(
        self,
        space: TuningSpace,
        cache: OptionSensitivityCache | None,
        kept: StudyPrior | None,
        blocks: tuple[Block, ...],
    ) -> SurrogatePolicy:
        """The search in the space or a part of it."""
        criterion = self._checked_criterion
        scores: OptionSensitivityCache | TakenScores | None = cache
        prior = None
        if kept is not None:
            prior = PriorInSpace(kept, space, criterion, self._costs)
            taken = prior.scores
            if taken is not None and (scores is None or prior.replaces_scores):
                scores = TakenScores(taken)
        options = SurrogateOptions(
            self._min_gain, scores, self._first_ops, prior, self._thorough, blocks
        )
        return SurrogatePolicy(space, criterion, self._costs, options, whole=self._space)


def _searching(policy: Policy, history: TrialHistory) -> SurrogatePolicy | None:
    """The policy that knows a model of the loss; :obj:`None` if there is none, or not yet."""
    if isinstance(policy, RecipePolicy):
        return policy.current(history) or policy.plain
    return policy if isinstance(policy, SurrogatePolicy) else None
