"""Choose what a trial evaluates: given parameters, the baseline, a proposal, or a spare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.samplers._engine.enumeration import Enumeration
from optuna_quant.samplers._engine.enumeration import Permutation
from optuna_quant.samplers._engine.policy import Proposal
from optuna_quant.study import record
from optuna_quant.study.enqueued import valid_choices
from optuna_quant.study.started_trial import StartedTrial


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_quant.samplers._engine.owed_baseline import OwedBaseline
    from optuna_quant.samplers._engine.policy import Policy
    from optuna_quant.samplers._engine.trial_history import TrialHistory
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


class Proposer:
    """Proposes a configuration for each trial of one study.

    Args:
        space:
            The tuning space.
        policy:
            What the sampler wants evaluated.
        baseline:
            The trial of the FP32 model, which comes first.
        seed:
            The seed of the order of what is given when nothing else is left.
    """

    def __init__(
        self,
        space: TuningSpace,
        policy: Policy,
        *,
        baseline: OwedBaseline,
        seed: int,
    ) -> None:
        self.policy = policy
        self._space = space
        self._distributions = space.distributions()
        self._fp32 = space.fp32()
        self.baseline = baseline
        self._spare = Enumeration(
            space,
            Permutation(space.count(fallback=True), seed=seed),
            fallback=True,
            stage=record.EXHAUSTED_STAGE,
        )

    def is_over(self, history: TrialHistory) -> bool:
        """Whether the sampler has nothing left to evaluate."""
        return not self.baseline.is_open(history) and self.policy.is_over(history)

    def leaves_open(self, trial: FrozenTrial) -> bool:
        """Whether a trial from the queue fixes other parameters and no configuration."""
        view = StartedTrial(trial)
        return view.is_enqueued and not view.fixed_params.keys() & self._distributions.keys()

    def propose(self, history: TrialHistory, trial: FrozenTrial) -> Proposal | None:
        """The proposal for a trial; :obj:`None` if other trials have to end first."""
        # As Optuna does, which warns of it: a value that is no choice does not count.
        fixed = valid_choices(StartedTrial(trial).known_params, self._distributions)
        if self._space.key_from_params(fixed) is not None:
            return self._given(self._space.config_from_params(fixed))
        proposal = self._free(history, history.claims(without={trial.number}))
        if proposal is None or not fixed:
            return proposal
        params = self._space.params_of(proposal.config) | fixed
        return self._given(self._space.config_from_params(params))

    def _given(self, config: QuantConfig) -> Proposal:
        is_fp32 = config.key == self._fp32.key
        stage = record.BASELINE_STAGE if is_fp32 else record.ENQUEUED_STAGE
        return Proposal(config, stage, forced=True)

    def _free(self, history: TrialHistory, claimed: Mapping[str, int]) -> Proposal | None:
        if self.baseline.is_open(history) and self._fp32.key not in claimed:
            return Proposal(self._fp32, record.BASELINE_STAGE)
        proposal = self.policy.next(history, claimed)
        if proposal is not None:
            return proposal
        if self.policy.is_blocked(history):
            return None
        is_over = self.policy.is_over(history)
        if not is_over and self.policy.should_wait(claimed.values(), history):
            return None
        spare = self._spare.next(history, claimed)
        last = Proposal(self._repeatable(history), record.EXHAUSTED_STAGE, forced=True)
        if is_over:
            return spare or last
        if spare is None and history.others_run(claimed.values()):
            return None
        # Others still run what the policy waits for: one more point in the record, no answer.
        return replace(spare or last, stage=record.SPARE_STAGE, provisional=True, speculative=True)

    def _repeatable(self, history: TrialHistory) -> QuantConfig:
        """A spare when nothing is left: not one that fails, or hangs, each time."""
        default = self._space.default()
        outcome = history.outcomes.get(default.key)
        if outcome is not None and outcome.state == TrialState.FAIL:
            for other in history.outcomes.values():
                if other.is_complete and not other.is_substitute:
                    return self._space.config_from_params(other.params)
        return default
