"""Results of the second evaluation and of the hold-out set."""

from __future__ import annotations

from dataclasses import dataclass
import itertools
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant.criteria import AccuracyCriterion


@dataclass(frozen=True)
class HoldoutResult:
    """The result of the answer on the hold-out set.

    The search has not seen these samples. So of the loss here nothing was selected, and its
    interval may be believed.

    Attributes:
        metric:
            The metric of the model on the hold-out set.
        baseline:
            The metric of the FP32 model on it.
        loss:
            The loss of the model against that baseline, as the criterion defines it.
        met:
            Whether the criterion is met there.
        loss_interval:
            Between which values the loss is for the population that the hold-out set was drawn
            from, with 95% confidence, see
            :func:`optuna_quant.sequential.interval.loss_interval`; :obj:`None` if the metric has
            no scores of single samples, or these have no bounds.
        samples:
            The number of samples; :obj:`None` if it is not known.
    """

    metric: float
    baseline: float
    loss: float
    met: bool
    loss_interval: tuple[float, float] | None = None
    samples: int | None = None


@dataclass(frozen=True)
class SecondEvaluation:
    """The result of evaluating the answer a second time.

    Args:
        first:
            The metric and that of the FP32 model, as the first evaluation gave them.
        metric:
            The metric; :obj:`None` if a few samples have given the same as before, so that there
            was no need to evaluate all.
        baseline:
            The metric of the FP32 model, evaluated a second time as well because something is
            random; :obj:`None` if nothing is, as far as that shows.
        evaluated:
            How much was evaluated for it, in full evaluations.
    """

    first: tuple[float, float]
    metric: float | None
    baseline: float | None
    evaluated: float

    @property
    def differs(self) -> bool:
        """Whether it has given something else than the first time."""
        return self.baseline is not None

    def meets(self, criterion: AccuracyCriterion) -> bool:
        """Whether the criterion is met by both evaluations, against both of FP32."""
        if self.metric is None or self.baseline is None:
            return True
        metrics, baselines = (self.first[0], self.metric), (self.first[1], self.baseline)
        return all(criterion.meets(m, b) for m, b in itertools.product(metrics, baselines))

    def shown(self, criterion: AccuracyCriterion) -> str:
        """A line of the summary, if it differs."""
        assert self.metric is not None and self.baseline is not None
        again = "met again" if self.meets(criterion) else "NOT met each time"
        return (
            f"not reproducible exactly: evaluated twice, the metric is {self.first[0]:.6g} and "
            f"{self.metric:.6g}, FP32 {self.first[1]:.6g} and {self.baseline:.6g}: {again}"
        )
