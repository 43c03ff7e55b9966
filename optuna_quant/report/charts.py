"""Where the marks of the charts of a page are: places in percent and pixels, and no markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING

from optuna_quant.costs.objective import shown_seconds
from optuna_quant.space.left_out import shown_bytes


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.report.facts import AnswerFacts
    from optuna_quant.report.facts import CriterionFacts
    from optuna_quant.report.facts import GainFacts
    from optuna_quant.report.facts import TimeFacts
    from optuna_quant.report.facts import TrialFacts


TRIALS_HEIGHT = 180
"""The height of the chart of the trials, in pixels."""

_MARGIN = 12.0
# Losses above so many tolerances are drawn at the edge: they would flatten the others.
_MOST_TOLERANCES = 4.0


@dataclass(frozen=True)
class Bar:
    """A bar with its label.

    Args:
        name:
            What it stands for.
        text:
            Its value for people.
        width:
            Its length in percent.
        kind:
            Its class.
    """

    name: str
    text: str
    width: float
    kind: str


@dataclass(frozen=True)
class LossChart:
    """The loss of the answer, its interval, no loss and the tolerance, in percent of the width."""

    zero: float
    tolerance: float
    loss: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Mark:
    """A trial in its chart: its place in percent and in pixels, its class, and its words."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True)
class TrialChart:
    """The trials in their order, with no loss and the tolerance as lines, in pixels."""

    marks: tuple[Mark, ...]
    zero: float
    tolerance: float
    off_scale: int


def gain_bars(gain: GainFacts | None, original: str) -> list[tuple[str, list[Bar]]]:
    """Bars of the answer beside the model that it is compared with, by what was measured."""
    if gain is None:
        return []
    groups = []
    if gain.seconds is not None and gain.fp32_seconds is not None:
        conditions = [] if gain.batch is None else [f"batch {gain.batch}"]
        if gain.threads is not None:
            conditions.append(f"{gain.threads} thread{'' if gain.threads == 1 else 's'}")
        name = f"time of a run ({', '.join(conditions)})" if conditions else "time of a run"
        times = gain.fp32_seconds, gain.seconds
        groups.append((name, _pair(times, original, [shown_seconds(each) for each in times])))
    if gain.nbytes is not None and gain.fp32_bytes is not None:
        sizes = gain.fp32_bytes, gain.nbytes
        groups.append(("size", _pair(sizes, original, [shown_bytes(each) for each in sizes])))
    return groups


def _pair(values: tuple[float, float], original: str, texts: Sequence[str]) -> list[Bar]:
    most = max(*values, 1e-300)
    names, kinds = (original, "quantized"), ("fp32", "quantized")
    return [
        Bar(name, text, 100 * value / most, kind)
        for name, text, value, kind in zip(names, texts, values, kinds, strict=True)
    ]


def loss_chart(answer: AnswerFacts | None, criterion: CriterionFacts) -> LossChart | None:
    """The loss of the answer beside the tolerance; None if there is no loss."""
    if answer is None or answer.loss is None or not math.isfinite(answer.loss):
        return None
    ends = answer.loss_interval or (answer.loss, answer.loss)
    low, high = min(0.0, *ends), max(criterion.tolerable_loss, *ends)
    reach = (high - low) or 1.0
    low, high = low - 0.08 * reach, high + 0.08 * reach

    def place(loss: float) -> float:
        return round(100 * (loss - low) / (high - low), 2)

    interval = answer.loss_interval
    return LossChart(
        place(0.0),
        place(criterion.tolerable_loss),
        place(answer.loss),
        None if interval is None else place(interval[0]),
        None if interval is None else place(interval[1]),
    )


def trial_chart(trials: Sequence[TrialFacts], criterion: AccuracyCriterion) -> TrialChart | None:
    """The loss of each trial in their order; None if fewer than two have one."""
    known = [(t, t.loss) for t in trials if t.loss is not None and math.isfinite(t.loss)]
    if len(known) < 2:
        return None
    tolerance = criterion.tolerable_loss
    cap = _MOST_TOLERANCES * tolerance or max(loss for _, loss in known) or 1.0
    shown = [min(loss, cap) for _, loss in known]
    low, high = min(0.0, *shown), max(tolerance, *shown)
    reach = (high - low) or 1.0

    def place(loss: float) -> float:
        # The larger the loss, the lower: better is up.
        part = (min(loss, cap) - low) / reach
        return round(_MARGIN + part * (TRIALS_HEIGHT - 2 * _MARGIN), 1)

    last = max(trial.number for trial, _ in known) or 1
    marks = tuple(
        Mark(
            round(2 + 96 * trial.number / last, 2),
            place(loss),
            trial.outcome.replace(" ", "-"),
            _described(trial, loss, criterion),
        )
        for trial, loss in known
    )
    off_scale = sum(loss > cap for _, loss in known)
    return TrialChart(marks, place(0.0), place(tolerance), off_scale)


def _described(trial: TrialFacts, loss: float, criterion: AccuracyCriterion) -> str:
    seen = ""
    if trial.samples is not None and trial.samples != trial.of_samples:
        seen = f" on {trial.samples} of {trial.of_samples} samples"
    return f"trial {trial.number}: {trial.outcome}, loss {criterion.show(loss)}{seen}"


def time_bars(time: TimeFacts) -> list[Bar]:
    """The parts of the time, the longest first."""
    most = max((part.seconds for part in time.parts), default=0.0)
    return [
        Bar(
            part.name,
            shown_duration(part.seconds),
            100 * part.seconds / most if most else 0.0,
            "time",
        )
        for part in time.parts
    ]


def shown_duration(seconds: float) -> str:
    """A duration for people."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
