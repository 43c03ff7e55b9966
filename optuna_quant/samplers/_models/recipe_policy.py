"""The policy of the surrogate strategy in a space with recipes: which of them it searches with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant.samplers._engine.policy import Policy
from optuna_quant.samplers._models.recipe_choice import RecipeChoices
from optuna_quant.samplers._models.recipe_choice import costs_nothing
from optuna_quant.samplers._models.recipe_choice import with_recipes
from optuna_quant.samplers._models.search_phases import sensitivity_samples
from optuna_quant.samplers._models.surrogate_stages import RECIPES_STAGE
from optuna_quant.samplers._models.surrogate_stages import START_STAGE


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.costs import CostTable
    from optuna_quant.samplers._engine.policy import Proposal
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.samplers._models.recipe_choice import RecipeChoice
    from optuna_quant.samplers._models.surrogate_policy import SurrogatePolicy
    from optuna_quant.space.keys import RecipeValue
    from optuna_quant.space.space import TuningSpace


class RecipePolicy(Policy):
    """Searches with the recipes that leave the least error, if one trial bears that out.

    1. The cheapest configuration of all, with the default recipes. If it meets the criterion, the
       search is over: recipes are not needed.
    2. Otherwise the sensitivities say what error it would have with each recipe. If one leaves
       less, the same configuration is evaluated with it (``cheapest with recipes``).
    3. If that meets the criterion and costs no more, it is the answer. If the recipes have a
       price, the search goes on without them for what is cheaper, ops in fallback included.
    4. If it does not, the search goes on with those recipes if they have lost less, and with the
       default ones otherwise.

    Args:
        space:
            The tuning space, which has recipes.
        table:
            What configurations cost, recipes included.
        sensitivity:
            Scores the ops of configurations, recipes included; :obj:`None` if nothing does. Then
            recipes keep their defaults.
        search:
            Gives the policy that searches a part of the space, in which recipes are fixed.
        recipes:
            The recipes to begin with, in place of the default ones.
    """

    def __init__(
        self,
        space: TuningSpace,
        table: CostTable,
        sensitivity: Sensitivity | None,
        search: Callable[[TuningSpace], SurrogatePolicy],
        *,
        recipes: Mapping[str, RecipeValue] | None = None,
    ) -> None:
        self._space = space
        self._search = search
        self._policies: dict[tuple[tuple[str, RecipeValue], ...], SurrogatePolicy] = {}
        self._plain = self._policy_with(space.default().recipes if recipes is None else recipes)
        self._table = table
        self._choices = None
        if sensitivity is not None:
            self._choices = RecipeChoices(space, self._plain.start, sensitivity, table)

    def current(self, history: TrialHistory) -> SurrogatePolicy | None:
        """The policy that goes on; :obj:`None` if the choice of recipes is not known yet."""
        plain = self._plain
        if self._choices is None or history.threshold is None or not plain.is_started(history):
            return plain
        if plain.is_start_enough(history):
            return plain
        choice = self._choices.read(history.study, sensitivity_samples(history))
        if choice is None:
            return None
        chosen = self._policy_with(choice.recipes)
        if chosen is plain or not chosen.is_started(history):
            return chosen
        if chosen.is_start_enough(history):
            return plain if self._has_price(chosen) else chosen
        losses = [policy.start_loss(history) for policy in (chosen, plain)]
        return chosen if losses[0] <= losses[1] else plain

    @property
    def plain(self) -> SurrogatePolicy:
        """The policy that searches with the default recipes."""
        return self._plain

    def choice(self, history: TrialHistory) -> RecipeChoice | None:
        """The recipes that promise the least error; :obj:`None` if they were not looked for."""
        if self._choices is None:
            return None
        return self._choices.read(history.study, sensitivity_samples(history))

    def next(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        policy = self.current(history)
        if policy is None:
            assert self._choices is not None
            if not self._choices.compute(history.study, sensitivity_samples(history)):
                return None
            policy = self.current(history)
            assert policy is not None
        if self._needs_plain(policy, history) and not self._plain.prepare(history):
            return None
        found = policy.next(history, claimed)
        if found is None:
            return None
        if found.stage == START_STAGE and policy is not self._plain:
            is_step = self._has_price(policy)
            found = replace(found, stage=RECIPES_STAGE, provisional=is_step)
        if found.positions is not None:
            found = replace(found, positions=self._space.positions_of(found.config))
        return found

    def is_over(self, history: TrialHistory) -> bool:
        policy = self.current(history)
        return policy is not None and policy.is_over(history)

    def is_blocked(self, history: TrialHistory) -> bool:
        policy = self.current(history)
        return policy is None or self._needs_plain(policy, history) or policy.is_blocked(history)

    def is_answer(self, history: TrialHistory, key: str) -> bool:
        policy = self.current(history)
        return policy is not None and policy.is_answer(history, key)

    def _needs_plain(self, policy: SurrogatePolicy, history: TrialHistory) -> bool:
        """Whether sensitivities without recipes are lacking before recipes with a price are tried.

        If these are enough, they say at once whether anything without them may be cheaper.
        """
        if policy is self._plain or policy.is_started(history) or not self._has_price(policy):
            return False
        return not self._plain.is_prepared(history)

    def _has_price(self, policy: SurrogatePolicy) -> bool:
        """Whether the recipes of a policy cost something."""
        costs = [self._table.cost(each.start) for each in (self._plain, policy)]
        return not costs_nothing(*costs)

    def _policy_with(self, recipes: Mapping[str, RecipeValue]) -> SurrogatePolicy:
        key = tuple(sorted(recipes.items()))
        if key not in self._policies:
            self._policies[key] = self._search(with_recipes(self._space, recipes))
        return self._policies[key]
