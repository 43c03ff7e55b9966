"""The evaluation samples: their order, and the FP32 model's score on each."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
import math
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.sequential.bets import Bets
from optuna_quant.sequential.float_array import FloatArray
from optuna_quant.sequential.float_array import float_array
from optuna_quant.sequential.order import SampleOrder


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.sequential.lookahead import Lookahead


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """The samples on which every candidate of a study is compared.

    Inside, scores are *normal*: 0 is the worst score that a sample can have and 1 the best. Where
    there is no worst (an error has no upper bound) 0 is the mean of the baseline, and scores below
    it are negative. Then nothing is bet: a candidate is given up once it certainly fails.

    Args:
        order:
            The order of the samples.
        baseline:
            The FP32 model's scores as the metric gives them, in the data's own order, of shape
            ``(samples,)``.
        bounds:
            The lowest and the highest score that a sample can have. The worse of the two may be
            infinite.
        higher_is_better:
            Whether a higher score is better.
        error_probability:
            With what probability a candidate that meets the criterion may be given up.
        method:
            ``"paired"``, ``"unpaired"`` or ``"exact"``.
        key:
            What tells it from others, in a study.
        metric_name:
            The name of the metric; empty if it has none.
        in_parts:
            Whether candidates can be evaluated on some of the samples, and not on all only.
    """

    order: SampleOrder
    baseline: NDArray[np.float64]
    bounds: tuple[float, float]
    higher_is_better: bool = True
    error_probability: float = 1e-3
    method: str = "paired"
    key: str = ""
    metric_name: str = ""
    in_parts: bool = True

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.order.samples

    @property
    def has_worst(self) -> bool:
        """Whether it is known how bad the score of a sample can be."""
        return is_bounded(self.bounds)

    @cached_property
    def scale(self) -> float:
        """The difference of two scores whose normalized scores differ by 1."""
        low, high = self.bounds
        if self.has_worst:
            return high - low
        best = high if self.higher_is_better else low
        return float(np.abs(self.baseline - best).mean()) or 1.0

    @cached_property
    def normalized_baseline(self) -> NDArray[np.float64]:
        """The FP32 model's normalized scores, in the order of evaluation."""
        return self.normalized(self.baseline_in_order)

    @cached_property
    def normalized_baseline_mean(self) -> float:
        """The mean of the FP32 model's normalized scores."""
        return float(self.normalized_baseline.mean())

    @cached_property
    def baseline_in_order(self) -> NDArray[np.float64]:
        """The FP32 model's scores as the metric gives them, in the order of evaluation."""
        return self.baseline[self.order.indices].astype(np.float64)

    @cached_property
    def baseline_bytes(self) -> bytes:
        """The FP32 model's scores in the order of evaluation, as bytes: compared fastest."""
        return self.baseline_in_order.tobytes()

    @cached_property
    def normalized_sum(self) -> float:
        """The sum of the FP32 model's normalized scores."""
        return float(self.normalized_baseline.sum())

    @cached_property
    def normalized_sums(self) -> FloatArray:
        """The sums of the first of them, from none to all, ``samples + 1`` numbers."""
        return float_array(np.concatenate([[0.0], np.cumsum(self.normalized_baseline)]))

    @cached_property
    def probabilities(self) -> FloatArray:
        """The probability of each draw."""
        return float_array(self.order.probabilities)

    @cached_property
    def lookaheads(self) -> dict[tuple[float, int], Lookahead]:
        """What was found to lie ahead of candidates, by the sum needed and the window."""
        return {}

    def normalized(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores on the scale where 0 is the worst and 1 the best."""
        low, high = self.bounds
        # Sums of float32 would be off by more than a threshold may be missed by.
        exact = np.asarray(scores, dtype=np.float64)
        if not self.has_worst:
            short = high - exact if self.higher_is_better else exact - low
            return np.minimum(1 - short / self.scale, 1.0)
        scaled = (exact - low) / (high - low)
        return np.clip(scaled if self.higher_is_better else 1 - scaled, 0.0, 1.0)

    def metric(self, normalized_mean: float) -> float:
        """A mean of normalized scores as the metric that it stands for."""
        low, high = self.bounds
        if not self.has_worst:
            short = (1 - normalized_mean) * self.scale
            return high - short if self.higher_is_better else low + short
        part = normalized_mean if self.higher_is_better else 1 - normalized_mean
        return low + part * (high - low)

    def normalized_mean(self, metric: float) -> float:
        """A metric as a mean of normalized scores; it may lie outside of 0 to 1."""
        low, high = self.bounds
        if not self.has_worst:
            return 1 - (high - metric if self.higher_is_better else metric - low) / self.scale
        scaled = (metric - low) / (high - low)
        return scaled if self.higher_is_better else 1 - scaled

    @cached_property
    def bets(self) -> Bets:
        """What can be bet on: for each part of the baseline's score that is taken off."""
        method = self.method if self.has_worst else "exact"
        parts = {"paired": (0.0, 0.5, 1.0), "unpaired": (0.0,), "exact": ()}[method]
        control = np.array(parts).reshape(-1, 1) * self.normalized_baseline
        weights, left = self.order.weights, self.order.weight_left
        differences = self.normalized_baseline - control
        known = np.cumsum(differences, axis=1) - differences + control.sum(axis=1)[:, None]
        largest = np.maximum.accumulate(((1 - control) / weights)[:, ::-1], axis=1)[:, ::-1]
        return Bets(
            said=known + differences / self.order.probabilities,
            most=known + largest * left,
        )

    @cached_property
    def mirrored(self) -> Population:
        """The same with the worst and the best exchanged."""
        return replace(self, higher_is_better=not self.higher_is_better)


def is_bounded(bounds: tuple[float, float]) -> bool:
    """Whether both the lowest and the highest score are known."""
    return math.isfinite(bounds[0]) and math.isfinite(bounds[1])
