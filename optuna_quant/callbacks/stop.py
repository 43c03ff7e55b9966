"""The decision to stop a study, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
import enum
from typing import TYPE_CHECKING

from optuna_quant.study import record


if TYPE_CHECKING:
    import optuna


class StopReason(enum.StrEnum):
    """Why a study stopped."""

    MET = "met"
    """A configuration meets the criterion, and the search was to stop at the first one."""
    TIMEOUT = "timeout"
    """The time limit is reached."""
    MAX_TRIALS = "max_trials"
    """The maximum number of trials is reached."""
    EXHAUSTED = "exhausted"
    """The strategy has nothing left to evaluate, or nothing that it takes to be worth a trial."""
    FAILING = "failing"
    """Every candidate failed in the same way."""
    CALLBACK = "callback"
    """Another callback stopped the study."""
    NO_GAIN = "no_gain"
    """The cost table predicts no quantized model to be better than FP32: only FP32 and the
    enqueued trials were evaluated."""
    INTERRUPTED = "interrupted"
    """The user interrupted the search."""


@dataclass(frozen=True)
class Stop:
    """The decision to stop.

    Args:
        reason:
            Why, for programs.
        message:
            Why, for people: one sentence.
    """

    reason: StopReason
    message: str

    def __str__(self) -> str:
        return self.message


def keep_reason(study: optuna.Study, stop: Stop) -> None:
    """Write to the study why it stopped.

    Args:
        study:
            The study. Its user attribute :data:`optuna_quant.study.record.STOPPED_BECAUSE` is set
            to a dict with ``reason`` and ``message``, in place of an earlier one.
        stop:
            The decision.
    """
    attr = {"reason": stop.reason.value, "message": stop.message}
    study.set_user_attr(record.STOPPED_BECAUSE, attr)
