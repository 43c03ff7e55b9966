"""A model of the loss over configurations: sensitivities as the prior, trials as observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
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
_LEARNED_SCALE_DEVIATION = 0.8
_EXPONENT = 0.9
_EXPONENT_DEVIATION = 0.25
_LEAST_EXPONENT, _MOST_EXPONENT = 0.3, 2.0
# How far the true share of an op may be from its sensitivity, as a factor's logarithm; of one of
# its options beside the others; and where nothing scores the ops.
_OP_DEVIATION = 0.9
_OPTION_DEVIATION = 0.5
_UNSCORED_DEVIATION = 1.5
# How far losses are off the sum, as a part of the loss and of the tolerance; and by how much of
# their error two configurations must differ to be off it independently.
_RELATIVE_RESIDUAL = 0.3
_RESIDUAL_OF_TOLERANCE = 0.1
_RESIDUAL_LENGTH = 0.35
# What is left if they do not differ: rounding.
_NUGGET_OF_TOLERANCE = 0.02
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
        learned:
            The logarithm of the loss at the reference error, and the exponent, as an earlier
            study has learned them; :obj:`None` if there is none.
    """

    tolerance: float
    size: float
    most: float = math.inf
    learned: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Observed:
    """The loss that a configuration has shown.

    Args:
        options:
            The position of the option of each op, of shape ``(ops,)``.
        loss:
            By how much the metric is worse than the baseline, in its units.
        error:
            The standard error of the loss, where only some of the samples were seen.
        spread:
            The standard error of the loss as one that all possible samples have: what these
            samples are off it, which similar configurations share.
    """

    options: NDArray[np.int64]
    loss: float
    error: float = 0.0
    spread: float = 0.0


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

    Losses are neither additive nor monotone. What is off the sum is a Gaussian process whose
    covariance falls with the part of the error in which two configurations differ (universal
    kriging: N. Cressie, "Statistics for Spatial Data", 1993, section 3.4), so a configuration
    that hardly differs from one that has failed is expected to fail as well.

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
    _fit: _Fit | None = None

    @property
    def weights(self) -> Floats:
        """What each op adds to the error in each option, of shape ``(ops, options)``."""
        _, _, factors, of_options = self._split(self._theta)
        return np.asarray(self.sensitivities * np.exp(factors[:, None] + of_options))

    @property
    def learned(self) -> tuple[float, float]:
        """The logarithm of the loss at the reference error, and the exponent."""
        offset, exponent, _, _ = self._split(self._theta)
        return offset, exponent

    def error_for(self, loss: float) -> float:
        """The sum of weights at which a loss is expected."""
        if loss >= self.scale.most:
            return math.inf
        bent = loss
        if math.isfinite(self.scale.most):
            bent = -self.scale.most * math.log1p(-loss / self.scale.most)
        offset, exponent, _, _ = self._split(self._theta)
        log_error = (math.log(bent) - offset) / exponent + math.log(_REFERENCE_ERROR)
        return math.exp(min(log_error, 300.0))

    def fitted(self, observations: Sequence[Observed]) -> LossModel:
        """The model with these observations.

        Args:
            observations:
                The observations; what no op adds to has nothing to say.
        """
        used = [o for o in observations if self._chosen(o.options).sum() > 0]
        if not used:
            return self
        deviations, mean = self._prior_deviations, self._prior_mean
        losses = np.array([max(o.loss, 0.0) for o in used])
        theta = mean.copy()
        covariance = self._residual_covariance(theta, used, losses, used, losses)
        covariance += np.diag([self._own_variance(o) for o in used])
        precision = np.asarray(np.linalg.inv(covariance), dtype=np.float64)

        def objective(at: Floats) -> float:
            off = self._losses(at, used)[0] - losses
            return float(off @ precision @ off + np.square((at - mean) / deviations).sum())

        value = objective(theta)
        damping = 1e-3
        for _ in range(_MOST_ITERATIONS):
            predicted, rows = self._losses(theta, used)
            step = _step(rows, losses - predicted, covariance, mean - theta, deviations, damping)
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
        predicted, rows = self._losses(theta, used)
        scaled = rows * deviations
        covariance = self._residual_covariance(theta, used, losses, used, losses)
        covariance += np.diag([self._own_variance(o) for o in used])
        fit = _Fit(
            theta,
            tuple(used),
            losses,
            losses - predicted,
            scaled,
            np.asarray(np.linalg.inv(covariance), dtype=np.float64),
            np.asarray(np.linalg.inv(covariance + scaled @ scaled.T), dtype=np.float64),
        )
        return replace(self, _fit=fit)

    def predict(self, options: NDArray[np.int64]) -> Prediction:
        """The loss that is expected of a configuration.

        Args:
            options:
                The position of the option of each op.
        """
        if self._chosen(options).sum() <= 0:
            return Prediction(0.0, 0.0)
        spread = 0.0
        if self._fit is not None:
            spread = float(np.median([each.spread for each in self._fit.observed]))
        wanted = [Observed(options, 0.0, spread=spread)]
        found, (row,) = self._losses(self._theta, wanted)
        loss = max(float(found[0]), 1e-300)
        scaled = row * self._prior_deviations
        (own,) = self._residual_covariance(self._theta, wanted, found, wanted, found)[0]
        fit = self._fit
        if fit is None:
            variance = float(scaled @ scaled) + own
        else:
            near = self._residual_covariance(
                self._theta, wanted, found, list(fit.observed), fit.losses
            )[0]
            across = fit.scaled @ scaled + near
            variance = float(scaled @ scaled) + own - float(across @ fit.total_inverse @ across)
            off = float(near @ fit.residual_inverse @ fit.residuals)
            # Losses are positive.
            loss = max(loss + off, 0.1 * loss)
        least = _NUGGET_OF_TOLERANCE * self.scale.tolerance
        deviation = math.sqrt(max(variance, 0.0) + least**2) / loss
        # Of the logarithm: the same for small ones, and less than proportional for large ones.
        return Prediction(loss, math.sqrt(math.log1p(deviation**2)))

    @property
    def _theta(self) -> Floats:
        return self._prior_mean if self._fit is None else self._fit.theta

    def _split(self, theta: Floats) -> tuple[float, float, Floats, Floats]:
        """The offset, the exponent, the factors of the ops, and those of their options."""
        ops, options = self.sensitivities.shape
        return (
            float(theta[0]),
            float(theta[1]),
            theta[2 : 2 + ops],
            theta[2 + ops :].reshape(ops, options),
        )

    @cached_property
    def _prior_mean(self) -> Floats:
        ops, options = self.sensitivities.shape
        mean = np.zeros(2 + ops + ops * options)
        at_reference = self.scale.tolerance
        if self.scale.size > 0:
            at_reference = _LOSS_AT_REFERENCE * self.scale.size
        mean[0], mean[1] = self.scale.learned or (math.log(at_reference), _EXPONENT)
        return mean

    @cached_property
    def _prior_deviations(self) -> Floats:
        ops, options = self.sensitivities.shape
        found = np.full(2 + ops + ops * options, _OPTION_DEVIATION)
        found[0] = _SCALE_DEVIATION if self.scale.size > 0 else _UNKNOWN_SCALE_DEVIATION
        if self.scale.learned is not None:
            found[0] = _LEARNED_SCALE_DEVIATION
        found[1] = _EXPONENT_DEVIATION
        found[2 : 2 + ops] = _OP_DEVIATION if self.is_scored else _UNSCORED_DEVIATION
        return found

    def _own_variance(self, observed: Observed) -> float:
        return observed.error**2 + (_NUGGET_OF_TOLERANCE * self.scale.tolerance) ** 2

    def _residual_covariance(
        self,
        theta: Floats,
        left: Sequence[Observed],
        left_losses: Floats,
        right: Sequence[Observed],
        right_losses: Floats,
    ) -> Floats:
        """How what is off the sum goes together, of shape ``(left, right)``."""
        _, _, factors, of_options = self._split(theta)
        weights = self.sensitivities * np.exp(factors[:, None] + of_options)
        places = np.arange(len(weights))
        shares = [weights[places, each.options] for each in (*left, *right)]
        differ = np.zeros((len(left), len(right)))
        for i, mine in enumerate(left):
            for j, theirs in enumerate(right):
                a, b = shares[i], shares[len(left) + j]
                apart = np.where(mine.options == theirs.options, 0.0, a + b).sum()
                differ[i, j] = apart / max(a.sum(), b.sum(), 1e-300)
        size = [
            np.hypot(_RELATIVE_RESIDUAL * losses, _RESIDUAL_OF_TOLERANCE * self.scale.tolerance)
            for losses in (left_losses, right_losses)
        ]
        kernel = np.exp(-0.5 * np.square(differ / _RESIDUAL_LENGTH))
        return np.asarray(np.outer(size[0], size[1]) * kernel)

    def _chosen(self, options: NDArray[np.int64]) -> Floats:
        return np.asarray(self.sensitivities[np.arange(len(options)), options])

    def _losses(self, theta: Floats, observed: Sequence[Observed]) -> tuple[Floats, Floats]:
        """The loss of each, and its derivatives by the parameters, a row each."""
        ops, count = self.sensitivities.shape
        offset, exponent, factors, of_options = self._split(theta)
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


@dataclass(frozen=True, eq=False)
class _Fit:
    """The most probable parameters, and what is needed to tell how sure they are.

    Args:
        theta:
            The parameters.
        observed:
            The observations.
        losses:
            Their losses.
        residuals:
            What these are off the sum.
        scaled:
            The derivatives of the losses, in standard deviations of the prior.
        residual_inverse:
            The inverse of the covariance of the residuals.
        total_inverse:
            The inverse of that of the losses.
    """

    theta: Floats
    observed: tuple[Observed, ...]
    losses: Floats
    residuals: Floats
    scaled: Floats
    residual_inverse: Floats
    total_inverse: Floats


def _step(
    rows: Floats,
    residuals: Floats,
    covariance: Floats,
    to_mean: Floats,
    deviations: Floats,
    damping: float,
) -> Floats:
    """A damped Gauss-Newton step, in the space of the observations, which are few."""
    precisions = (1 + damping) / np.square(deviations)
    gradient = rows.T @ np.linalg.solve(covariance, residuals) + to_mean / np.square(deviations)
    # (P + J' N^-1 J)^-1 g by the matrix inversion lemma.
    scaled = rows / precisions
    direct = gradient / precisions
    step: Floats = direct - scaled.T @ np.linalg.solve(covariance + scaled @ rows.T, rows @ direct)
    return step
