"""Show the progress of a search: one line per trial, and where it stands."""

from __future__ import annotations

import contextlib
from dataclasses import replace
import threading
from typing import TYPE_CHECKING
from typing import TextIO

from optuna_quant.callbacks.display import Display
from optuna_quant.callbacks.display import LineDisplay
from optuna_quant.callbacks.display import Running
from optuna_quant.callbacks.trial_line import describe_trial
from optuna_quant.callbacks.trial_line import reference_for
from optuna_quant.callbacks.wording import rounded_estimate
from optuna_quant.callbacks.wording import shown_config
from optuna_quant.callbacks.wording import space_of
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.callbacks.exit_policy import ExitPolicy
    from optuna_quant.evaluation.sample_evaluation import EvaluationProgress
    from optuna_quant.space.config import QuantConfig


class Progress:
    """Callback that shows every trial, and the search so far.

    A line says what a trial tries; what was decided, on how many samples and how sure that is;
    the best trial so far with its gain; the time used, and what is left at most::

        trial 3 (default) | 13 of 14 ops in INT8 | not met (99.9% sure): at most 0.975 on 128 of
        899 samples, needs 0.981 | best: none yet | 0:08 used, at most 97 trials left

    Args:
        policy:
            The exit policy of the study: it knows the criterion and the limits.
        stream:
            Where to write. Default: ``sys.stderr`` as it is when a line is written.
        display:
            What shows the lines, instead of ``stream``: see
            :func:`optuna_quant.callbacks.open_display.open_display`.
        left_out:
            How many ops of the model the tuning space does not have.
    """

    def __init__(
        self,
        policy: ExitPolicy,
        *,
        stream: TextIO | None = None,
        display: Display | None = None,
        left_out: int = 0,
    ) -> None:
        self._policy = policy
        self._display: Display = LineDisplay(stream) if display is None else display
        self._left_out = left_out
        self._running: dict[int, Running] = {}
        self._lock = threading.Lock()
        self._is_repeating = False
        self._not_shown = 0

    def start(self, study: optuna.Study, number: int, config: QuantConfig) -> None:
        """Show what a trial tries that starts.

        Args:
            study:
                The study.
            number:
                The number of the trial.
            config:
                Its configuration.
        """
        if not self._display.is_live:
            return
        than = None
        if config.quantized_ops:
            trials = study.get_trials(deepcopy=False)
            than = reference_for(study, trials, number, self._policy)
        tries = shown_config(config, space_of(study), than=than, left_out=self._left_out)
        self._show(Running(number, tries))

    def watch(self, seen: EvaluationProgress) -> None:
        """Show how far a trial is, if the display is live."""
        if not self._display.is_live:
            return
        known = self._running.get(seen.trial)
        tries = "" if known is None else known.tries
        metric = rounded_estimate(seen.metric, seen.samples)
        self._show(Running(seen.trial, tries, seen.samples, seen.of, metric))

    def _show(self, running: Running) -> None:
        with self._lock:
            self._running[running.number] = running
            shown = list(self._running.values())
        with contextlib.suppress(OSError, ValueError):
            self._display.update(shown)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Show a trial that has ended; of several repeats in a row the first one only."""
        line = describe_trial(study, trial, self._policy, left_out=self._left_out)
        repeats = TrialView(trial).reused_from is not None
        with self._lock:
            self._running.pop(trial.number, None)
            shown = list(self._running.values())
            is_shown = not (repeats and self._is_repeating)
            not_shown, self._not_shown = self._not_shown, 0
            if not is_shown:
                self._not_shown = not_shown + 1
            self._is_repeating = repeats
        # The search is worth more than its lines, which may have no reader.
        with contextlib.suppress(OSError, ValueError):
            if is_shown:
                self._display.add(replace(line, after=_after(not_shown)))
            self._display.update(shown)

    def line(self, study: optuna.Study, trial: FrozenTrial) -> str:
        """The line of a trial that has ended."""
        return str(describe_trial(study, trial, self._policy, left_out=self._left_out))


def _after(not_shown: int) -> str:
    """What is said of trials before one that were not shown."""
    if not not_shown:
        return ""
    trials = "1 trial" if not_shown == 1 else f"{not_shown} trials"
    return f"after {trials} with models of earlier ones"
