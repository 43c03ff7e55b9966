"""Intervals that hold for several models at once, and therefore for a chosen one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.sequential.interval import CONFIDENCE
from optuna_quant.sequential.interval import loss_interval


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def chosen_loss_interval(
    candidate: NDArray[np.float64],
    baseline: NDArray[np.float64],
    *,
    models: int,
    bounds: tuple[float, float],
    higher_is_better: bool,
    relative: bool,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """A confidence interval of the loss of a model that was chosen among several by these samples.

    The model that looks best of many is, on average, worse than it looks. An interval that holds
    the loss of each of ``models`` models but for a probability of error ``e`` holds those of all
    of them but for ``models * e`` (Bonferroni), so it holds that of the chosen one, whatever the
    choice went by. So ``e`` is ``(1 - confidence) / models``.

    That is exact for models that were set beforehand. If the results of some models decide which
    others are looked at, as in a greedy search, the models that might have been looked at are more
    than those that were, and the bound is a rule of thumb: see ``docs/selection_noise.md``.

    Args:
        candidate:
            The scores of the chosen model, of shape ``(samples,)``.
        baseline:
            The scores of the FP32 model for the same samples.
        models:
            Among how many models it was chosen, itself included; at least 1.
        bounds:
            The lowest and the highest score that any sample can have.
        higher_is_better:
            Whether a higher score is better.
        relative:
            Whether the loss is a part of the size of the baseline's mean.
        confidence:
            The probability with which the interval holds the loss of the chosen model.

    Returns:
        The lower and the upper end, see :func:`optuna_quant.sequential.interval.loss_interval`.

    Raises:
        ValueError:
            If ``models`` is less than 1, or as
            :func:`~optuna_quant.sequential.interval.loss_interval` says.
    """
    if models < 1:
        raise ValueError(f"models must be at least 1, but got {models}.")
    return loss_interval(
        candidate,
        baseline,
        bounds=bounds,
        higher_is_better=higher_is_better,
        relative=relative,
        # The same number for one model: 1 - (1 - 0.95) is not 0.95.
        confidence=confidence if models == 1 else 1 - (1 - confidence) / models,
    )
