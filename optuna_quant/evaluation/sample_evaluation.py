"""What gives the scores of single samples, and who watches it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable

import numpy as np

from optuna_quant._common.rounding import bounds_slack


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.base import NativeModel


@runtime_checkable
class SampleEvaluation(Protocol):
    """Evaluates a model on single samples; its metric is their mean.

    ``bounds`` are the lowest and the highest score of a sample, or :obj:`None` if it has none.
    ``scores`` gives the scores of the samples of these indices, in their order, batch by batch;
    ``scores_and_margins`` also how far each is from being decided otherwise, or :obj:`None`.
    """

    @property
    def samples(self) -> int:
        """The number of samples."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest score of a sample."""

    def scores(
        self, model: NativeModel, indices: NDArray[np.intp]
    ) -> Iterator[NDArray[np.float64]]:
        """The scores of samples, batch by batch."""

    def scores_and_margins(
        self, model: NativeModel, indices: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
        """The scores and margins of samples, batch by batch."""


@dataclass(frozen=True)
class EvaluationProgress:
    """The progress of a trial's evaluation, for display.

    Args:
        trial:
            The number of the trial.
        samples:
            How many samples were seen.
        of:
            How many there are.
        metric:
            The metric so far, an estimate; of the baseline the mean so far.
        bounds:
            Gives between what values the metric is, see
            :func:`optuna_quant.sequential.weighted_threshold.bounds`; takes a few milliseconds.
    """

    trial: int
    samples: int
    of: int
    metric: float
    bounds: Callable[[], tuple[float, float]] | None = None


Watch = Callable[[EvaluationProgress], None]


def check_scores(scores: NDArray[np.float64], evaluation: SampleEvaluation) -> None:
    """Refuse scores that are not within the bounds.

    Raises:
        ValueError:
            If one is not.
    """
    if evaluation.bounds is None or not len(scores):
        return
    low, high = evaluation.bounds
    slack = bounds_slack(evaluation.bounds, np.float32)  # They may have been computed in that.
    wrong = scores[~((scores >= low - slack) & (scores <= high + slack))]
    if len(wrong):
        raise ValueError(
            f"The evaluation gave a score of {wrong[0]}, which is not between its bounds {low:g} "
            f"and {high:g}: bounds must hold the score of every sample."
        )


def checked_batch(given: object) -> NDArray[np.float64]:
    """A copy of the scores of a batch.

    Raises:
        ValueError:
            If they are no numbers, or not one for each sample.
    """
    batch = np.array(given)
    if batch.ndim != 1 or batch.dtype.kind not in "biuf":
        raise ValueError(
            "The evaluation must give the scores of a batch as one number for each sample, of "
            f"shape (samples,), but gave {batch.dtype} of shape {batch.shape}."
        )
    return batch.astype(np.float64)
