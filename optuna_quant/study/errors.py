"""Errors about a study: its baseline, what it was started with, its record."""

from __future__ import annotations


class BaselineError(ValueError):
    """The FP32 model could not be evaluated, so that no candidate can be judged."""


class TrainingError(ValueError):
    """The user's function that trains models fails before it has trained any."""


class ChangedError(ValueError):
    """A study was started with other calibration data, options or another evaluation.

    Its results do not hold for what is given now. Where it has none yet, a new search may take
    its place.
    """


class ChangedEvaluationError(ChangedError, BaselineError):
    """The FP32 model has another metric here than in the study."""


class DamagedRecordError(ValueError):
    """A value of a study's record cannot be what was written.

    Args:
        study_name:
            The study.
        attribute:
            The attribute that holds it.
        what:
            What is wrong with it.
        trial:
            The number of the trial whose attribute it is; :obj:`None` if it is the study's.
    """

    def __init__(
        self, study_name: str, attribute: str, what: str, *, trial: int | None = None
    ) -> None:
        self.attribute = attribute
        self.trial = trial
        of = "" if trial is None else f" of trial {trial}"
        super().__init__(
            f"The record of the study {study_name!r} is damaged: its attribute "
            f"{attribute!r}{of} {what}. It was edited, or the storage failed, so no result can "
            "be trusted. Restore an earlier copy of the storage, use another study name or "
            "storage, or start the study over (on the command line with --fresh)."
        )
