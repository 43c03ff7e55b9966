"""A model of the loss over configurations: sensitivities as the prior, trials as observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray


Floats: TypeAlias = "NDArray[np.float64]"

# The prior, from fits to convolutional nets and transformers: an output error of 3% of the
# outputs' variance costs about 1% of the metric, give or take a factor of three.
_REFERENCE_ERROR = 0.03
_LOSS_AT_REFERENCE = 0.01
_SCALE_DEVIATION = 1.2
_UNKNOWN_SCALE_DEVIATION = 3.0
_EXPONENT = 0.9
_EXPONENT_DEVIATION = 0.25
_LEAST_EXPONENT, _MOST_EXPONENT = 0.3, 2.0
# How far the true share of an op may be from its sensitivity, as a factor's logarithm; of one of
# its options beside the others; and where nothing scores the ops.
_OP_DEVIATION = 0.9
_OPTION_DEVIATION = 0.5
_UNSCORED_DEVIATION = 1.5
# How far losses are off the model, as a part of the loss and of the tolerance.
_RELATIVE_NOISE = 0.25
_NOISE_OF_TOLERANCE = 0.1
_MOST_ITERATIONS = 60


@dataclass(frozen=True)
class LossScale:
    """In what units losses are, and how large they can be.

    Args:
        tolerance:
            The largest loss that is good enough, in units of the metric; above zero.
        size:
            The size of the baseline, in units of the metric; 0 if it says nothing of the scale.
        most:
            The largest possible loss; infinite if there is none.
    """

    tolerance: float
    size: float
    most: float = math.inf


@dataclass(frozen=True, eq=False)
class Observed:
    """The loss that a configuration has shown.

    Args:
        options:
            The position of the option of each op, of shape ``(ops,)``.
        loss:
            By how much the metric is worse than the baseline, in its units.
        error:
            The standard error of the loss, for the samples that it stands for.
    """

    options: NDArray[np.int64]
    loss: float
    error: float = 0.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """The loss that is expected of a configuration: log-normal.

    Args:
        loss:
            Its median, in units of the metric.
        deviation:
            The standard deviation of its logarithm.
    """

    loss: float
    deviation: float

    def probability(self, tolerance: float) -> float:
        """The probability that the loss is at most this."""
        if self.loss <= 0:
            return 1.0
        z = (math.log(tolerance) - math.log(self.loss)) / max(self.deviation, 1e-6)
        return 0.5 * math.erfc(-z / math.sqrt(2))


@dataclass(frozen=True, eq=False)
class LossModel:
    """``loss = exp(a) * (E / E0) ** p``, capped, where ``E`` is the weighted sum of sensitivities.

    Each op's share in ``E`` is its option's sensitivity times a factor that is learned: log-normal
    around 1, one for the op and one for the option. The scale ``a``, the exponent ``p`` and the
    factors are estimated together as the most probable ones given the observations (Gauss-Newton
    steps); how sure they are is the curvature there (Laplace's approximation). With few
    observations that is a Bayesian regression whose prior are the sensitivities: an op is blamed
    for what its configurations have lost in proportion to how likely that is.

    Args:
        sensitivities:
            The sensitivity of each op in each option, zero in floats, of shape ``(ops, options)``.
            Options that an op does not have are of no matter.
        scale:
            The units of the loss.
        is_scored:
            Whether the sensitivities are more than equal shares.
    """

    sensitivities: Floats
    scale: LossScale
    is_scored: bool = True
    _factors: Floats = field(default_factory=lambda: np.zeros(0))
    _options: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    _offset: float = 0.0
    _exponent: float = _EXPONENT
    _rows: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    _inverse: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def weights(self) -> Floats:
        """What each op adds to the error in each option, of shape ``(ops, options)``."""
        if not self._factors.size:
            return self.sensitivities
        return self.sensitivities * np.exp(self._factors[:, None] + self._options)

    def error_for(self, loss: float) -> float:
        """The sum of weights at which a loss is expected."""
        if loss >= self.scale.most:
            return math.inf
        bent = loss
        if math.isfinite(self.scale.most):
            bent = -self.scale.most * math.log1p(-loss / self.scale.most)
        offset = self._offset if self._factors.size else self._prior_offset
        log_error = (math.log(bent) - offset) / self._exponent + math.log(_REFERENCE_ERROR)
        return math.exp(min(log_error, 300.0))

    @property
    def _prior_offset(self) -> float:
        if self.scale.size > 0:
            return math.log(_LOSS_AT_REFERENCE * self.scale.size)
        return math.log(self.scale.tolerance)

    def fitted(self, observations: Sequence[Observed]) -> LossModel:
        """The model with these observations.

        Args:
            observations:
                The observations; what no op adds to has nothing to say.
        """
        ops, options = self.sensitivities.shape
        used = [o for o in observations if self._chosen(o.options).sum() > 0]
        deviations = self._prior_deviations()
        mean = np.zeros(2 + ops + ops * options)
        mean[0], mean[1] = self._prior_offset, _EXPONENT
        theta = mean.copy()
        losses = np.array([max(o.loss, 0.0) for o in used])
        noise = np.array([self._noise(o) for o in used])

        def objective(at: Floats) -> float:
            predicted, _ = self._predict(at, used)
            return float(
                np.square((predicted - losses) / noise).sum()
                + np.square((at - mean) / deviations).sum()
            )

        value = objective(theta)
        damping = 1e-3
        for _ in range(_MOST_ITERATIONS if used else 0):
            predicted, rows = self._predict(theta, used)
            step = _step(rows, losses - predicted, noise, mean - theta, deviations, damping)
            moved = theta + np.clip(step, -2.0, 2.0)
            moved[1] = np.clip(moved[1], _LEAST_EXPONENT, _MOST_EXPONENT)
            found = objective(moved)
            if found <= value:
                done = value - found < 1e-9 * (1 + value)
                theta, value = moved, found
                damping = max(damping / 4, 1e-9)
                if done:
                    break
            else:
                damping *= 6
                if damping > 1e9:
                    break
        predicted, rows = self._predict(theta, used)
        scaled = rows * deviations
        gram = scaled @ scaled.T + np.diag(np.square(noise))
        inverse = np.linalg.inv(gram) if used else np.zeros((0, 0))
        return LossModel(
            self.sensitivities,
            self.scale,
            self.is_scored,
            theta[2 : 2 + ops],
            theta[2 + ops :].reshape(ops, options),
            float(theta[0]),
            float(theta[1]),
            scaled,
            inverse,
        )

    def predict(self, options: NDArray[np.int64]) -> Prediction:
        """The loss that is expected of a configuration.

        Args:
            options:
                The position of the option of each op.
        """
        if self._chosen(options).sum() <= 0:
            return Prediction(0.0, 0.0)
        ops, count = self.sensitivities.shape
        theta = np.zeros(2 + ops + ops * count)
        theta[0], theta[1] = self._prior_offset, _EXPONENT
        if self._factors.size:
            theta[0], theta[1] = self._offset, self._exponent
            theta[2 : 2 + ops] = self._factors
            theta[2 + ops :] = self._options.ravel()
        (loss,), (row,) = self._predict(theta, [Observed(options, 0.0)])
        scaled = row * self._prior_deviations() / max(float(loss), 1e-300)
        variance = float(scaled @ scaled)
        if self._rows.size:
            across = self._rows @ scaled
            variance -= float(across @ self._inverse @ across)
        variance = max(variance, 0.0) + _RELATIVE_NOISE**2
        return Prediction(float(loss), math.sqrt(variance))

    def _prior_deviations(self) -> Floats:
        ops, options = self.sensitivities.shape
        of_op = _OP_DEVIATION if self.is_scored else _UNSCORED_DEVIATION
        found = np.full(2 + ops + ops * options, _OPTION_DEVIATION)
        found[0] = _SCALE_DEVIATION if self.scale.size > 0 else _UNKNOWN_SCALE_DEVIATION
        found[1] = _EXPONENT_DEVIATION
        found[2 : 2 + ops] = of_op
        return found

    def _noise(self, observed: Observed) -> float:
        of_model = _RELATIVE_NOISE * abs(observed.loss)
        least = _NOISE_OF_TOLERANCE * self.scale.tolerance
        return math.sqrt(of_model**2 + least**2 + observed.error**2)

    def _chosen(self, options: NDArray[np.int64]) -> Floats:
        return self.sensitivities[np.arange(len(options)), options]

    def _predict(self, theta: Floats, observed: Sequence[Observed]) -> tuple[Floats, Floats]:
        """The loss of each, and its derivatives by the parameters, a row each."""
        ops, count = self.sensitivities.shape
        offset, exponent = theta[0], theta[1]
        factors, of_options = theta[2 : 2 + ops], theta[2 + ops :].reshape(ops, count)
        losses = np.zeros(len(observed))
        rows = np.zeros((len(observed), len(theta)))
        places = np.arange(ops)
        for k, each in enumerate(observed):
            shares = self._chosen(each.options) * np.exp(
                factors + of_options[places, each.options]
            )
            total = float(shares.sum())
            log_ratio = math.log(total / _REFERENCE_ERROR)
            straight = math.exp(min(offset + exponent * log_ratio, 300.0))
            most = self.scale.most
            slope = straight
            losses[k] = straight
            if math.isfinite(most):
                losses[k] = -most * math.expm1(-straight / most)
                slope = straight * math.exp(-straight / most)
            rows[k, 0] = slope
            rows[k, 1] = slope * log_ratio
            by_op = slope * exponent * shares / total
            rows[k, 2 : 2 + ops] = by_op
            rows[k, 2 + ops + places * count + each.options] = by_op
        return losses, rows


def _step(
    rows: Floats,
    residuals: Floats,
    noise: Floats,
    to_mean: Floats,
    deviations: Floats,
    damping: float,
) -> Floats:
    """A damped Gauss-Newton step, in the space of the observations, which are few."""
    precisions = (1 + damping) / np.square(deviations)
    gradient = rows.T @ (residuals / np.square(noise)) + to_mean / np.square(deviations)
    # (P + J' R^-1 J)^-1 g by the matrix inversion lemma.
    scaled = rows / precisions
    gram = np.diag(np.square(noise)) + scaled @ rows.T
    direct = gradient / precisions
    step: Floats = direct - scaled.T @ np.linalg.solve(gram, rows @ direct)
    return step
