"""Record the reports of an objective that decides by itself, where Optuna accepts none."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

from optuna_quant import _optuna
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline


if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner


_SECONDS_BETWEEN_WRITES = 5.0


class Watched:
    """Follows one running trial; see :meth:`AccuracyPruner.watch`.

    In a study with one objective the reports are Optuna's own. With several they are kept in the
    trial, as its system attribute ``optuna_quant:reports``, once the trial has seen all samples
    that the baseline has, and every few seconds before.
    """

    def __init__(self, pruner: BasePruner, trial: optuna.Trial) -> None:
        self._pruner = pruner
        self._trial = trial
        self._takes_reports = len(trial.study.directions) == 1
        self._reports: dict[int, float] = {}
        self._written = 0.0

    def report(self, value: float, step: int) -> bool:
        """Report the mean so far.

        Args:
            value:
                The mean over the samples so far.
            step:
                How many samples that are.

        Returns:
            Whether the trial should be pruned.
        """
        trial = self._trial
        if self._takes_reports:
            trial.report(value, step=step)
            # Not the study's pruner, which may be another one.
            return self._pruner.prune(trial.study, _optuna.frozen_trial(trial))
        self._reports[int(step)] = float(value)
        frozen = copy.copy(_optuna.frozen_trial(trial))
        frozen.intermediate_values = dict(self._reports)
        is_pruned = self._pruner.prune(trial.study, frozen)
        is_baseline = get_baseline(trial.study) is None
        # Others pair with the baseline's, to its last sample.
        if is_baseline or is_pruned or time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            pairs = sorted(self._reports.items())
            _optuna.set_trial_system_attr(trial.study, frozen, record.REPORTS, pairs)
            self._written = time.monotonic()
        return is_pruned
