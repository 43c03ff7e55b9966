"""The baseline of a study (the FP32 model's metric), and the rule for who measures it.

One rule elects the trial that measures it, for samplers and objectives alike: of the running
trials one that evaluates the FP32 model itself comes first, then the one with the lowest number.
Whatever is measured, the first value that the study holds counts.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
import hashlib
import json
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._optuna import study_user_attrs
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Baseline:
    """The FP32 model's metric.

    Args:
        value:
            The metric.
        trial:
            The number of the trial that measured it; :obj:`None` if it was given.
        population:
            The key under which the study keeps its scores of single samples; :obj:`None` if it
            keeps none.
    """

    value: float
    trial: int | None = None
    population: str | None = None

    @property
    def digest(self) -> str:
        """A digest that shows whether the study's attribute was edited."""
        text = json.dumps([float(self.value), self.trial, self.population])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def to_attr(self) -> dict[str, Any]:
        """The value of the study's attribute."""
        stored: dict[str, Any] = {"value": self.value, "trial": self.trial}
        if self.population is not None:
            stored["population"] = self.population
        return {**stored, "digest": self.digest}

    @classmethod
    def from_attr(cls, stored: Mapping[str, Any]) -> Baseline:
        """The baseline that a study's attribute holds."""
        return cls(stored["value"], stored["trial"], stored.get("population"))


def get_baseline(study: optuna.Study) -> Baseline | None:
    """The baseline of a study, if it has been measured."""
    stored = study_user_attrs(study).get(record.BASELINE)
    return None if stored is None else Baseline.from_attr(stored)


def set_baseline(study: optuna.Study, baseline: Baseline) -> None:
    """Keep the baseline in the study, in place of an earlier one.

    Args:
        study:
            The study.
        baseline:
            The baseline. With ``trial=None`` it is one that was measured elsewhere.
    """
    study.set_user_attr(record.BASELINE, baseline.to_attr())


def propose_baseline(
    study: optuna.Study, baseline: Baseline, *, before: Callable[[], None] | None = None
) -> Baseline:
    """Keep what was measured, unless the study has a baseline already.

    Args:
        study:
            The study.
        baseline:
            What was measured.
        before:
            Called before it is kept, if it is.

    Returns:
        The baseline that counts.
    """
    known = get_baseline(study)
    if known is not None:
        return known
    if before is not None:
        before()
    set_baseline(study, baseline)
    return baseline


def measures_baseline(trial: FrozenTrial, fp32_key: str) -> bool:
    """Whether a running trial evaluates the FP32 model, as its own configuration.

    Args:
        trial:
            The trial.
        fp32_key:
            The key of the FP32 configuration.
    """
    claim = TrialView(trial).claim
    return claim is not None and fp32_key == claim.key


def who_measures(running: Iterable[FrozenTrial], fp32_key: str) -> str | None:
    """The worker that evaluates the FP32 model now; :obj:`None` if none does.

    Args:
        running:
            The running trials.
        fp32_key:
            The key of the FP32 configuration.
    """
    found = (TrialView(trial).worker for trial in running if measures_baseline(trial, fp32_key))
    return next(found, None)


def ahead_of(number: int, running: Iterable[FrozenTrial], fp32_key: str) -> list[FrozenTrial]:
    """The running trials that come before another one to measure the baseline.

    Args:
        number:
            The number of the other one.
        running:
            The running trials.
        fp32_key:
            The key of the FP32 configuration.

    Returns:
        Those that come first; the trial that has none measures. Empty if it does not run.
    """
    positions = {(not measures_baseline(t, fp32_key), t.number): t for t in running}
    own = [position for position in positions if position[1] == number]
    return [trial for position, trial in positions.items() if [position] < own]
