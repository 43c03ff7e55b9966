"""Find the trials that tell what one more quantized op would have done to the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.trial_view import TrialView
from optuna_quant.study.trial_view import views


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.tuning.outcome import Outcome


@dataclass(frozen=True)
class TriedOp:
    """A trial whose model is the answer with one more op or group quantized.

    Args:
        trial:
            Its number.
        loss:
            The loss of that model; an estimate unless it is of all samples.
        met:
            Whether it met the criterion; :obj:`None` if it was not evaluated to its end.
        samples:
            On how many of the samples it was evaluated, ``(seen, of)``, if not on all.
    """

    trial: int
    loss: float
    met: bool | None
    samples: tuple[int, int] | None = None

    def shown(self, criterion: AccuracyCriterion) -> str:
        """What the trial found, in words that follow the words for its model."""
        loss = criterion.show(self.loss)
        if self.samples is not None:
            seen, of = self.samples
            ends = "and missed the criterion" if self.met is False else "and was not decided"
            return f"trial {self.trial} lost about {loss} on {seen} of {of} samples {ends}"
        ends = "which meets the criterion too" if self.met else "which misses the criterion"
        return f"trial {self.trial} lost {loss}, {ends}"


def tried_ops(result: Outcome) -> Mapping[str, TriedOp]:
    """What the record says of the answer with one more op quantized, by the op or its group.

    Args:
        result:
            The result. Trials that differ from its model in anything else say nothing here.
    """
    baseline = get_baseline(result.study)
    if result.trial is None or result.config is None or baseline is None:
        return {}
    answer, space = result.trial.params, result.space
    names = {space.parameter_name(f"op:{t.name}"): t for t in space.tunables}
    found: dict[str, TriedOp] = {}
    for view in views(result.study):
        if not view.is_finished or view.number == result.trial.number:
            continue
        changed = _only_difference(answer, view.trial.params)
        tunable = None if changed is None else names.get(changed)
        if tunable is None or result.config.ops[tunable.ops[0]].is_quantized:
            continue
        tried = _tried(view, result.criterion, baseline.value)
        if tried is None:
            continue
        known = found.get(tunable.name)
        # What was evaluated further says more.
        if known is None or known.samples is not None:
            found[tunable.name] = tried
    return found


def _only_difference(answer: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """The one parameter in which two trials differ; :obj:`None` if there is none, or more."""
    if len(answer) != len(other):
        return None
    found = None
    for name, value in answer.items():
        if other.get(name) != value:
            if found is not None:
                return None
            found = name
    return found


def _tried(view: TrialView, criterion: AccuracyCriterion, baseline: float) -> TriedOp | None:
    if view.is_complete and view.metric is not None:
        loss = criterion.loss(view.metric, baseline)
        return TriedOp(view.number, loss, criterion.meets(view.metric, baseline))
    evidence = view.evidence
    if evidence is None or evidence.estimate is None:
        return None
    loss = criterion.loss(evidence.estimate, baseline)
    seen = evidence.samples, evidence.of
    return TriedOp(view.number, loss, False if view.met is False else None, seen)
