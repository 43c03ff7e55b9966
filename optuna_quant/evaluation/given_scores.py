"""The scores of all samples that a function has given."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant.evaluation.data_checks import warn_of_few
from optuna_quant.evaluation.metrics.score_bounds import Bounds
from optuna_quant.workers.launch import this_rank


if TYPE_CHECKING:
    from numpy.typing import NDArray


_logger = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class GivenScores:
    """The scores of all samples.

    It is a :class:`~optuna_quant.evaluation.sample_evaluation.SampleEvaluation`.

    Args:
        values:
            The scores of the samples, of shape ``(samples,)``.
        bounds:
            The lowest and the highest score of a sample; :obj:`None` if they are not known.
        in_parts:
            Whether candidates can be evaluated on some of the samples.
        higher_is_better:
            Whether a higher score is better.
        margins:
            How far each sample is from being decided otherwise, of the same shape; :obj:`None` if
            the function does not tell.
    """

    values: NDArray[np.float64]
    bounds: Bounds | None
    in_parts: bool
    higher_is_better: bool
    margins: NDArray[np.float64] | None = None

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The metric."""
        return float(self.values.sum() / len(self.values))

    @property
    def is_graded(self) -> bool:
        """Whether there is more than right and wrong."""
        return len(np.unique(self.values)) > 2

    def warn(self, *, wants_bounds: bool) -> None:
        """Warn of too few samples, and say what is missed if the bounds are not known.

        Args:
            wants_bounds:
                Whether bounds would be of any use.
        """
        if not this_rank().is_leader:
            return
        warn_of_few(self.samples)
        if self.bounds is not None or not wants_bounds:
            return
        give = (
            "give metric_bounds=(lowest, highest), the range of a sample's score, or return "
            "booleans for right and wrong"
        )
        if self.in_parts:
            _logger.warning(
                "Every configuration is evaluated on all samples, because the bounds of "
                f"evaluate's scores are not known: {give}."
            )
        else:
            _logger.info(
                "The loss has no confidence interval, because the bounds of evaluate's scores "
                f"are not known: {give}."
            )

    def scores(
        self, model: object, indices: NDArray[np.intp]
    ) -> Generator[NDArray[np.float64], None, None]:
        """The scores of samples, in one batch."""
        yield self.values[indices]

    def scores_and_margins(
        self, model: object, indices: NDArray[np.intp]
    ) -> Generator[tuple[NDArray[np.float64], NDArray[np.float64] | None], None, None]:
        """The scores and the margins.

        Where the function does not tell them, it is how good a score is: those that are bad
        already tend to change most. Right and wrong alone do not tell how close a sample is to
        the other.
        """
        values = self.values[indices]
        if self.margins is not None:
            yield values, self.margins[indices]
        elif self.is_graded:
            yield values, values if self.higher_is_better else -values
        else:
            yield values, None
