"""Show the progress of a search: one line per trial."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import TYPE_CHECKING
from typing import TextIO

from optuna.trial import TrialState

from optuna_quant._common.printable import printable
from optuna_quant.callbacks.exit_policy import busy_seconds
from optuna_quant.callbacks.exit_policy import is_answer
from optuna_quant.callbacks.sample_bar import SampleBar
from optuna_quant.costs.objective import OPS
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.sequential import Verdict
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.callbacks.exit_policy import ExitPolicy
    from optuna_quant.evaluation.sampled import Seen
    from optuna_quant.selection.answer import Candidate


class Progress:
    """Callback that writes a line for every trial.

    A line shows the stage and the trial, its metric, its loss and whether the criterion is met;
    the best trial so far, what it costs and its ops in fallback; the time used, and what is left::

        default | trial 1 | metric 0.8843, loss 9.67%: not met | best: none | 0:04, 99 trials left

    Args:
        policy:
            The exit policy of the study: it knows the criterion and the limits.
        stream:
            Where to write. Default: ``sys.stderr`` as it is when a line is written.
    """

    def __init__(self, policy: ExitPolicy, *, stream: TextIO | None = None) -> None:
        self._policy = policy
        self._stream = stream
        self._bar = SampleBar(stream)

    def watch(self, seen: Seen) -> None:
        """Show how far a trial is, if the stream is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            self._bar.show(seen)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write the line of a trial that has ended."""
        line = self.line(study, trial)
        # The search is worth more than its lines: nobody may be there to read them.
        with contextlib.suppress(OSError, ValueError):
            self._bar.clear()
            stream = self._stream or sys.stderr
            encoding = getattr(stream, "encoding", None) or "utf-8"
            shown = line.encode(encoding, "backslashreplace").decode(encoding)
            print(shown, file=stream, flush=True)

    def line(self, study: optuna.Study, trial: FrozenTrial) -> str:
        """The line of a trial that has ended."""
        stage = TrialView(trial).stage
        parts = [] if stage is None else [stage]
        parts += [f"trial {trial.number}", self._verdict(study, trial)]
        trials = study.get_trials(deepcopy=False)
        met = ranked(candidates(study, self._policy.criterion, trials), self._policy.objective)
        parts.append(f"best: {self._show_best(met)}" if met else "best: none yet")
        parts.append(self._left(study, trials))
        return printable(" | ".join(parts))

    def _verdict(self, study: optuna.Study, trial: FrozenTrial) -> str:
        view = TrialView(trial)
        if view.state == TrialState.PRUNED:
            return self._pruned(view)
        if trial.state != TrialState.COMPLETE:
            return f"failed: {view.failure or 'no reason is known'}"
        value = trial.values[0]
        baseline = get_baseline(study)
        if baseline is None:
            return f"metric {value:.6g}"
        if view.is_baseline:
            return f"metric {value:.6g} (FP32)"
        criterion = self._policy.criterion
        verdict = "met" if criterion.meets(value, baseline.value) else "not met"
        if not view.is_quantized:
            verdict = "nothing is quantized"
        elif verdict == "met" and not is_answer(study, trial):
            verdict = "met, not yet the answer"
        same = view.reused_from
        source = "" if same is None else f" (same model as trial {same})"
        loss = criterion.show(criterion.loss(value, baseline.value))
        return f"metric {value:.6g}, loss {loss}: {verdict}{source}"

    def _pruned(self, view: TrialView) -> str:
        """What was seen of a trial that was not evaluated on all samples."""
        evidence = view.evidence
        if evidence is None or evidence.bounds is None:
            return "pruned"
        verdict, estimate = evidence.verdict, f"{evidence.estimate:.4g}"
        seen = f"{evidence.samples} of {evidence.of} samples"
        if verdict == Verdict.FAILS:
            low, high = evidence.bounds
            higher = self._policy.criterion.higher_is_better
            bound = f"at most {high:.4g}" if higher else f"at least {low:.4g}"
            return f"not met: metric about {estimate}, {bound}, after {seen}"
        if verdict == Verdict.MEETS:
            return f"certainly met: metric about {estimate} after {seen}"
        if verdict == Verdict.PROMISED:
            return f"probably met: metric about {estimate} after {seen}"
        return f"metric about {estimate} after {seen}"

    def _show_best(self, met: list[Candidate]) -> str:
        best, objective = met[0], self._policy.objective
        cost = best.cost(objective)
        if not math.isfinite(cost) and len(met) > 1:
            return f"one of {len(met)}"
        ops = f"{best.fallback_ops} op{'' if best.fallback_ops == 1 else 's'} in fallback"
        if objective.measures == (OPS,) or not math.isfinite(cost):
            return f"trial {best.trial.number}, {ops}"
        return f"trial {best.trial.number}, {objective.show(cost)}, {ops}"

    def _left(self, study: optuna.Study, trials: list[FrozenTrial]) -> str:
        text = clock(busy_seconds(trials))
        seconds = self._policy.seconds_left(study, trials)
        if seconds is not None:
            text += f", {clock(seconds)} left"
        left = self._policy.trials_left(study, trials)
        if left is not None:
            text += f", {left} trial{'' if left == 1 else 's'} left"
        return text


def clock(seconds: float) -> str:
    """A time as people read it: minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
