"""Where the time of a search went, as far as its record tells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.report.facts import PartOfTime
from optuna_quant.report.facts import TimeFacts
from optuna_quant.study import record
from optuna_quant.study.computing_times import computing_times
from optuna_quant.study.trial_view import views


if TYPE_CHECKING:
    import optuna


_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "calibration": "calibration",
        record.OPTION_SCORES: "sensitivities",
        record.RECIPE_CHOICE: "sensitivities",
        record.MEASURED_COSTS: "measuring costs",
        record.COUNTED_COSTS: "measuring costs",
        record.FINALISTS: "measuring the answer",
        record.SECOND_EVALUATION: "second evaluation",
    }
)
_SENSITIVITIES, _TRIALS = "sensitivities", "building and evaluating models"


@dataclass(frozen=True)
class _Span:
    """What one worker did from one time to another."""

    name: str
    worker: str | None
    start: datetime
    end: datetime

    def holds(self, other: _Span) -> bool:
        """Whether another one was done in the course of this one."""
        return (
            other is not self
            and self.worker == other.worker
            and self.start <= other.start
            and other.end <= self.end + timedelta(milliseconds=50)
            and self.end - self.start >= other.end - other.start
        )


def time_facts(study: optuna.Study) -> TimeFacts:
    """Where the time went: the seconds of all workers by part, each counted once.

    Args:
        study:
            The study.
    """
    computed = [
        _Span(
            _NAMES.get(each.kind, _SENSITIVITIES),
            each.worker,
            each.started,
            each.started + timedelta(seconds=each.seconds),
        )
        for each in computing_times(study)
    ]
    trials = [
        _Span(_TRIALS, view.worker, view.trial.datetime_start, view.trial.datetime_complete)
        for view in views(study)
        if view.trial.datetime_start is not None and view.trial.datetime_complete is not None
    ]
    seconds: dict[str, float] = defaultdict(float)
    for span in [*computed, *trials]:
        seconds[span.name] += _own_seconds(span, computed)
    spans = [*computed, *trials]
    elapsed = None
    if trials:
        elapsed = (max(s.end for s in spans) - min(s.start for s in spans)).total_seconds()
    parts = sorted(seconds.items(), key=lambda each: -each[1])
    return TimeFacts(
        elapsed_seconds=elapsed,
        worker_seconds=sum(seconds.values()),
        parts=tuple(PartOfTime(name=name, seconds=value) for name, value in parts),
    )


def _own_seconds(span: _Span, computed: Sequence[_Span]) -> float:
    """The seconds of a span without those of what was computed in its course."""
    inner = [each for each in computed if span.holds(each)]
    # Of what is within another inner one, that one has the time.
    outermost = [each for each in inner if not any(other.holds(each) for other in inner)]
    taken = sum((each.end - each.start).total_seconds() for each in outermost)
    return max(0.0, (span.end - span.start).total_seconds() - taken)
