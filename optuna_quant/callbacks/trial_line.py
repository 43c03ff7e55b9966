"""What is told of a trial that has ended, and of the search so far."""

from __future__ import annotations

from dataclasses import dataclass
import enum
import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from optuna_quant.callbacks.exit_policy import is_answer
from optuna_quant.callbacks.spent import busy_seconds
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.callbacks.wording import Reference
from optuna_quant.callbacks.wording import config_of
from optuna_quant.callbacks.wording import rounded_estimate
from optuna_quant.callbacks.wording import shown_bound
from optuna_quant.callbacks.wording import shown_config
from optuna_quant.callbacks.wording import shown_loss
from optuna_quant.callbacks.wording import shown_sureness
from optuna_quant.callbacks.wording import space_of
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.selection.answer import Candidate
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.sequential import Decision
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.stage_words import shown_stage
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.callbacks.exit_policy import ExitPolicy
    from optuna_quant.costs.objective import Objective
    from optuna_quant.criteria import AccuracyCriterion


# From fewer trials the time of the others cannot be told.
_FEWEST_FOR_ESTIMATE = 3


class Mood(enum.Enum):
    """What a decision means for the search: the colour that it is shown in."""

    GOOD = "green"
    PROMISING = "cyan"
    BAD = "yellow"
    FAILED = "red"
    PLAIN = "default"


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """A trial that has ended, in words.

    Args:
        number:
            Its number.
        stage:
            The stage of the strategy, in words; empty if it has none.
        tries:
            What it tries; empty if that is not known.
        decided:
            What was decided, on what.
        mood:
            What that means.
        best:
            The best trial so far, with its gain.
        left:
            The time so far, and what is left.
        after:
            What is said of trials before it that have no line; empty if there are none.
    """

    number: int
    stage: str
    tries: str
    decided: str
    mood: Mood
    best: str
    left: str
    after: str = ""

    def __str__(self) -> str:
        stage = f" ({self.shown_stage})" if self.shown_stage else ""
        parts = [f"trial {self.number}{stage}", self.tries, self.decided]
        parts += [f"best: {self.best}", self.left]
        return " | ".join(part for part in parts if part)

    @property
    def shown_stage(self) -> str:
        """The stage, and what is said of trials before it."""
        return "; ".join(part for part in (self.stage, self.after) if part)


def describe_trial(
    study: optuna.Study, trial: FrozenTrial, policy: ExitPolicy, *, left_out: int = 0
) -> TrialLine:
    """Put a trial that has ended into words.

    Args:
        study:
            The study.
        trial:
            The trial.
        policy:
            The exit policy of the study.
        left_out:
            How many ops of the model the tuning space does not have.
    """
    trials = study.get_trials(deepcopy=False)
    view = TrialView(trial)
    decided, mood = _decided(study, view, policy.criterion)
    met = ranked(candidates(study, policy.criterion, trials), policy.objective)
    return TrialLine(
        number=trial.number,
        stage=shown_stage(view.stage or ""),
        tries=_tries(study, trial, trials, policy, left_out),
        decided=decided,
        mood=mood,
        best=shown_best(study, met, policy.objective, left_out=left_out),
        left=shown_left(study, trials, policy),
    )


def reference_for(
    study: optuna.Study, trials: Sequence[FrozenTrial], number: int, policy: ExitPolicy
) -> Reference | None:
    """What a trial is described against: the best so far, or else the one before it.

    One that tries what an earlier trial tried, as to evaluate it in full, is described by that.

    Args:
        study:
            The study.
        trials:
            Its trials.
        number:
            The number of the trial; later ones do not count.
        policy:
            What judges trials.
    """
    earlier = [each for each in trials if each.number < number]
    met = ranked(candidates(study, policy.criterion, earlier), policy.objective)
    last = [each for each in earlier if each.state.is_finished()]
    space = space_of(study)
    tried = next((each.params for each in trials if each.number == number), None)
    again = [each for each in last if tried and each.params == tried]
    for trial in (*again[-1:], *(c.trial for c in met[:1]), *reversed(last)):
        config = config_of(space, trial)
        if config is not None and config.quantized_ops:
            return Reference(config, trial.number)
    return None


def _tries(
    study: optuna.Study,
    trial: FrozenTrial,
    trials: Sequence[FrozenTrial],
    policy: ExitPolicy,
    left_out: int,
) -> str:
    space = space_of(study)
    config = config_of(space, trial)
    if config is None:
        return ""
    than = reference_for(study, trials, trial.number, policy) if config.quantized_ops else None
    return shown_config(config, space, than=than, left_out=left_out)


def _decided(
    study: optuna.Study, view: TrialView, criterion: AccuracyCriterion
) -> tuple[str, Mood]:
    """What was decided about a trial, and what that means."""
    baseline = get_baseline(study)
    if view.state == TrialState.PRUNED:
        threshold = None if baseline is None else criterion.threshold(baseline.value)
        return _of_part(view, threshold)
    if view.metric is None or not view.is_complete:
        return f"failed: {view.failure or 'no reason is known'}", Mood.FAILED
    if baseline is None or view.is_baseline:
        return f"metric {view.metric:.6g}{_on_all(view)}", Mood.PLAIN
    met = criterion.meets(view.metric, baseline.value)
    outcome, mood = ("met", Mood.GOOD) if met else ("not met", Mood.BAD)
    if not view.is_quantized:
        outcome, mood = "nothing is quantized", Mood.PLAIN
    elif met and not is_answer(study, view.trial):
        outcome, mood = "met, and the search goes on", Mood.PROMISING
    same = view.reused_from
    source = "" if same is None else f" (same model as trial {same})"
    if not met and view.simulation is not None:
        differs = view.simulation.difference
        more = "" if differs is None else f"; {differs.in_short}"
        source = f" (its simulation met it with {view.simulation.metric:.6g}{more})"
    shown = shown_loss(view.metric, baseline.value, criterion)
    return f"{outcome}: {shown}{_on_all(view)}{source}", mood


def _on_all(view: TrialView) -> str:
    evidence = view.evidence
    return "" if evidence is None else f" on all {evidence.of} samples"


def _of_part(view: TrialView, threshold: float | None) -> tuple[str, Mood]:
    """What was seen of a trial that was not evaluated on all samples."""
    evidence = view.evidence
    if evidence is None or (evidence.bounds is None and evidence.estimate is None):
        return "pruned", Mood.BAD
    on = f"on {evidence.samples} of {evidence.of} samples"
    about = rounded_estimate(evidence.estimate, evidence.samples)
    if evidence.decision == Decision.FAILS:
        sure = shown_sureness(evidence)
        bound = about if sure == "certain" else shown_bound(evidence, threshold)
        needed = "" if threshold is None else f", needs {threshold:.4g}"
        return f"not met{f' ({sure})' if sure else ''}: {bound} {on}{needed}", Mood.BAD
    if evidence.decision == Decision.MEETS:
        return f"certainly met: {about} {on}", Mood.PROMISING
    if evidence.decision == Decision.PROVISIONALLY_MET:
        return f"probably met, not proven: {about} {on}", Mood.PROMISING
    return f"undecided: {about} {on}", Mood.PLAIN


def shown_best(
    study: optuna.Study,
    met: Sequence[Candidate],
    objective: Objective,
    *,
    left_out: int = 0,
) -> str:
    """The best trial so far with its gain against FP32.

    Args:
        study:
            The study.
        met:
            The candidates that meet the criterion, the best first.
        objective:
            What is best.
        left_out:
            How many ops of the model the tuning space does not have.
    """
    if not met:
        return "none yet"
    best = met[0]
    if len(met) > 1 and not math.isfinite(best.cost(objective)):
        return f"one of {len(met)}"
    space = space_of(study)
    config = config_of(space, best.trial)
    parts = [f"trial {best.trial.number}", shown_gain(study, best, objective)]
    if config is not None:
        parts.append(shown_config(config, space, left_out=left_out))
    return ", ".join(part for part in parts if part)


def shown_gain(study: optuna.Study, best: Candidate, objective: Objective) -> str:
    """What a model costs against FP32, by the objective; empty if that is not known."""
    cost, fp32 = best.cost(objective), _fp32_cost(study, objective)
    if objective.measures == (OPS,) or not math.isfinite(cost):
        return ""
    if not 0 < fp32 < math.inf:
        return objective.show(cost)
    part = f"{cost / fp32:.2g}"
    if len(objective.measures) > 1:  # Weighted: the cost is itself a part of that of FP32.
        return objective.show(cost)
    if objective.measures == (LATENCY,):
        return f"{part} of FP32's time (predicted)"
    if objective.measures == (SIZE,):
        return f"{objective.show(cost)}, {part} of FP32's size"
    return f"{objective.show(cost)}, {part} of FP32"


def _fp32_cost(study: optuna.Study, objective: Objective) -> float:
    """What the FP32 model costs by the objective; infinite if that is not known."""
    if objective.measures == (SIZE,):
        sizes = [
            TrialView(trial).model_bytes
            for trial in study.get_trials(deepcopy=False)
            if TrialView(trial).is_baseline
        ]
        return next((float(size) for size in sizes if size), math.inf)
    return float(getattr(objective, "fp32_cost", math.inf))


def shown_left(study: optuna.Study, trials: Sequence[FrozenTrial], policy: ExitPolicy) -> str:
    """The time that was used, and how many trials and how much time are left at most.

    Args:
        study:
            The study.
        trials:
            Its trials.
        policy:
            What limits them.
    """
    used = busy_seconds(trials)
    seconds, left = policy.seconds_left(study, trials), policy.trials_left(study, trials)
    parts = []
    if left is not None:
        estimate = ""
        evaluated = trials_used(trials)
        if seconds is None and evaluated >= _FEWEST_FOR_ESTIMATE:
            estimate = f" (about {clock(used / evaluated * left)})"
        parts.append(f"{left} trial{'' if left == 1 else 's'}{estimate}")
    if seconds is not None:
        parts.append(clock(seconds))
    return f"{clock(used)} used" + (f", at most {' or '.join(parts)} left" if parts else "")


def clock(seconds: float) -> str:
    """A time as people read it: minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
