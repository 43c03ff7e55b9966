"""Finish the evaluation of the most promising model when the search has to stop."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.stop import keep_reason
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.selection.answer import partial_candidates
from optuna_quant.tuning.optimize import optimize_once


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_MOST_FINISHED = 3


def finish_promising(
    study: optuna.Study,
    objective: QuantObjective,
    observers: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
    stop: Stop,
    *,
    policy: ExitPolicy,
) -> Stop:
    """Evaluate to the end what looked good when the search had to stop, if nothing is met.

    Up to three models, those with the fewest ops in fallback first.
    """
    tried: set[int] = set()
    found = best_met_trial(study, policy.criterion, policy.objective)
    while found is None and len(tried) < _MOST_FINISHED:
        promising = [
            candidate
            for candidate in partial_candidates(study, policy.criterion)
            if candidate.violation <= 0 and candidate.trial.number not in tried
        ]
        if not promising:
            break
        first = min(promising, key=lambda c: c.order(policy.objective))
        same = [c for c in promising if c.trial.params == first.trial.params]
        tried |= {candidate.trial.number for candidate in same}
        study.enqueue_trial(first.trial.params)
        try:
            optimize_once(study, objective, observers, 1, n_trials=1)
        except KeyboardInterrupt:
            stop = Stop(StopReason.INTERRUPTED, "The search was interrupted.")
            keep_reason(study, stop)
            break
        found = best_met_trial(study, policy.criterion, policy.objective)
        if found is not None:
            told = stop.message.removesuffix("No quantized model meets the criterion.")
            stop = Stop(
                stop.reason,
                f"{told}What looked best was then evaluated on all samples: trial "
                f"{found.number} meets the criterion.",
            )
            keep_reason(study, stop)
    return stop
