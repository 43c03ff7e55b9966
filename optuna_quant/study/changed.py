"""The error of a study that was begun with something else than what is given now."""

from __future__ import annotations

from optuna_quant.evaluation.value import BaselineError


class ChangedError(ValueError):
    """A study was begun with other calibration data, options or another evaluation.

    Its results do not hold for what is given now. Where it has none yet, a new search may take
    its place.
    """


class ChangedEvaluationError(ChangedError, BaselineError):
    """The FP32 model has another metric here than in the study."""
