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
_EXPONENT = 0.75
_EXPONENT_DEVIATION = 0.3
_LEAST_EXPONENT, _MOST_EXPONENT = 0.3, 2.0
# How far the true share of an op may be from its sensitivity, as a factor's logarithm; of one of
# its options beside the others; and where nothing scores the ops.
_OP_DEVIATION = 0.9
_OPTION_DEVIATION = 0.5
# The same of all ops together that use another kind of option than their default: what clips
# ranges is off by the same amount for all samples, and such errors add up to more than their
# variances do.
_KIND_DEVIATION = 1.0
_UNSCORED_DEVIATION = 2.5
# How far losses are off the sum, as a part of the loss and of the tolerance; and by how much of
# their error two configurations must differ to be off it independently.
_RELATIVE_RESIDUAL = 0.3
# More by this part for every factor of e that a loss is above the tolerance: what is far off says
# little about what hardly loses anything.
_RESIDUAL_FAR_OFF = 0.2
_RESIDUAL_OF_TOLERANCE = 0.1
# Losses are compared by their logarithms from about this part of the tolerance on, or from what
# is uncertain of them; smaller ones, and those below zero, by their differences.
_BEND_OF_TOLERANCE = 0.2
_RESIDUAL_LENGTH = 0.35
_RESIDUAL_OF_UNSCORED = 0.05
# What is larger on that scale overflows.
_LARGEST_BENT = 300.0
# What is left if they do not differ: rounding.
_NUGGET_OF_TOLERANCE = 0.02
_MOST_ITERATIONS = 60
# Of a scaled covariance, as a part of its largest: what is below is rounding.
_LEAST_EIGENVALUE = 1e-12
# How far a draw may be off, in standard deviations of the prior.
_MOST_DRAWN = 3.0


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
    """The loss that is expected of a configuration: normal on a scale that bends, see ``bend``.

    Args:
        loss:
            Its median, in units of the metric.
        deviation:
            The standard deviation on that scale: of the logarithm of a loss above the bend.
        bend:
            Where the scale changes from differences to logarithms; 0 for logarithms throughout.
    """

    loss: float
    deviation: float
    bend: float = 0.0

    def probability(self, tolerance: float) -> float:
        """The probability that the loss is at most this."""
        if self.bend > 0:
            off = math.asinh(tolerance / self.bend) - math.asinh(self.loss / self.bend)
        elif self.loss <= 0:
            return 1.0
        else:
            off = math.log(tolerance) - math.log(self.loss)
        return 0.5 * math.erfc(-off / max(self.deviation, 1e-6) / math.sqrt(2))


@dataclass(frozen=True, eq=False)
class LossModel:
    """``loss = exp(a) * (E / E0) ** p``, capped, where ``E`` is the weighted sum of sensitivities.

    Each op's share in ``E`` is its option's sensitivity times a factor that is learned: log-normal
    around 1, one for the op, one for the option, and one that all ops share whose option is of the
    same kind. The scale ``a``, the exponent ``p`` and the
    factors are estimated together as the most probable ones given the observations (Gauss-Newton
    steps); how sure they are is the curvature there (Laplace's approximation). With few
    observations that is a Bayesian regression whose prior are the sensitivities: an op is blamed
    for what its configurations have lost in proportion to how likely that is.

    Losses are compared on a scale that is logarithmic for large ones and linear about zero (an
    inverse hyperbolic sine: N. Johnson, "Systems of frequency curves generated by methods of
    translation", 1949). So it matters as much that a loss was taken to be a tenth of what it is as
    that it was taken to be ten times that, and a loss of zero or less is a value as any other.

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
        kinds:
            The kind of each op's options, of the shape of the sensitivities: numbers from 0, and
            -1 for options that share nothing. Default: none does.
    """

    sensitivities: Floats
    scale: LossScale
    is_scored: bool = True
    kinds: NDArray[np.int64] | None = None
    _fit: _Fit | None = None

    @property
    def weights(self) -> Floats:
        """What each op adds to the error in each option, of shape ``(ops, options)``."""
        return self._weights(self._theta)

    def drawn_weights(self, rng: np.random.Generator) -> Floats:
        """The same as :attr:`weights`, drawn from what is believed of them instead of the best.

        A draw from the prior that the observations correct (Matheron's rule: A. Journel and C.
        Huijbregts, "Mining Geostatistics", 1978).

        Args:
            rng:
                What draws.
        """
        fit, theta = self._fit, self._theta
        step = rng.standard_normal(len(theta))
        if fit is not None:
            used = list(fit.observed)
            covariance = self._covariance(theta, used, fit.losses)
            values, vectors = np.linalg.eigh(covariance)
            noise = vectors @ (np.sqrt(np.maximum(values, 0.0)) * rng.standard_normal(len(values)))
            step -= fit.scaled.T @ (fit.total_inverse @ (fit.scaled @ step + noise))
        step = np.clip(step, -_MOST_DRAWN, _MOST_DRAWN)
        return self._weights(theta + self._prior_deviations * step)

    @property
    def learned(self) -> tuple[float, float]:
        """The logarithm of the loss at the reference error, and the exponent."""
        return float(self._theta[0]), float(self._theta[1])

    def error_for(self, loss: float) -> float:
        """The sum of weights at which a loss is expected."""
        if loss >= self.scale.most:
            return math.inf
        bent = loss
        if math.isfinite(self.scale.most):
            bent = -self.scale.most * math.log1p(-loss / self.scale.most)
        offset, exponent = self.learned
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
        bends = self._bends(used)
        # However much is gained, it says no more than that nothing is lost.
        losses = np.maximum([o.loss for o in used], -bends)
        bent = np.arcsinh(losses / bends)
        theta = mean.copy()
        covariance = self._covariance(theta, used, losses)
        precision = _inverse(covariance)
        whitening = np.linalg.cholesky(precision).T

        def objective(at: Floats) -> float:
            off = np.arcsinh(self._losses(at, used)[0] / bends) - bent
            return float(off @ precision @ off + np.square((at - mean) / deviations).sum())

        value = objective(theta)
        damping = 1e-3
        for _ in range(_MOST_ITERATIONS):
            predicted, rows = self._bent(theta, used)
            step = deviations * _step(
                whitening @ (rows * deviations),
                whitening @ (bent - predicted),
                (theta - mean) / deviations,
                damping,
            )
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
        predicted, rows = self._bent(theta, used)
        scaled = rows * deviations
        covariance = self._covariance(theta, used, losses)
        fit = _Fit(
            theta,
            tuple(used),
            losses,
            bent - predicted,
            scaled,
            _inverse(covariance),
            _inverse(covariance + scaled @ scaled.T),
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
        (bend,) = self._bends(wanted)
        (value,), (row,) = self._bent(self._theta, wanted)
        loss = float(bend * math.sinh(min(value, _LARGEST_BENT)))
        scaled = row * self._prior_deviations
        (size,) = self._residual_sizes(np.array([loss]), wanted)
        fit = self._fit
        if fit is None:
            variance = float(scaled @ scaled) + size**2
        else:
            alike = self._correlations(self._theta, wanted, fit.observed)[0]
            sizes = self._residual_sizes(fit.losses, fit.observed)
            # Where the nearest is further off the sum than is usual, this one may be as well.
            nearest = int(np.argmax(alike))
            unusual = min(sizes[nearest], abs(fit.residuals[nearest]))
            size = max(size, float(alike[nearest] * unusual))
            near = size * sizes * alike
            across = fit.scaled @ scaled + near
            variance = float(scaled @ scaled) + size**2
            variance -= float(across @ fit.total_inverse @ across)
            value += float(near @ fit.residual_inverse @ fit.residuals)
        # What is believed is positive, and no more than there is to lose.
        believed = float(bend * math.sinh(float(np.clip(value, -_LARGEST_BENT, _LARGEST_BENT))))
        loss = min(max(believed, 0.1 * loss), self.scale.most)
        (least,) = self._own_deviations(np.array([loss]), wanted)
        deviation = math.sqrt(max(variance, 0.0) + least**2)
        return Prediction(loss, deviation, float(bend))

    @property
    def _theta(self) -> Floats:
        return self._prior_mean if self._fit is None else self._fit.theta

    def _weights(self, theta: Floats) -> Floats:
        """What each op adds in each option, of shape ``(ops, options)``."""
        ops, options = self.sensitivities.shape
        factors = theta[2 : 2 + ops, None] + theta[self._first_option :][: ops * options].reshape(
            ops, options
        )
        if self.kinds is not None:
            # The last one is of those that share nothing.
            factors = factors + np.append(theta[self._first_kind :], 0.0)[self.kinds]
        return np.asarray(self.sensitivities * np.exp(factors))

    @property
    def _first_option(self) -> int:
        """The place of the first option's factor among the parameters."""
        return 2 + len(self.sensitivities)

    @property
    def _first_kind(self) -> int:
        """The place of the first kind's factor among the parameters."""
        return self._first_option + self.sensitivities.size

    @cached_property
    def _parameters(self) -> int:
        return self._first_kind + (0 if self.kinds is None else int(self.kinds.max()) + 1)

    @cached_property
    def _prior_mean(self) -> Floats:
        mean = np.zeros(self._parameters)
        at_reference = self.scale.tolerance
        if self.scale.size > 0:
            at_reference = _LOSS_AT_REFERENCE * self.scale.size
        mean[0], mean[1] = self.scale.learned or (math.log(at_reference), _EXPONENT)
        return mean

    @cached_property
    def _prior_deviations(self) -> Floats:
        found = np.full(self._parameters, _OPTION_DEVIATION)
        found[0] = _SCALE_DEVIATION if self.scale.size > 0 else _UNKNOWN_SCALE_DEVIATION
        if self.scale.learned is not None:
            found[0] = _LEARNED_SCALE_DEVIATION
        found[1] = _EXPONENT_DEVIATION
        of_ops = slice(2, self._first_option)
        found[of_ops] = _OP_DEVIATION if self.is_scored else _UNSCORED_DEVIATION
        found[self._first_kind :] = _KIND_DEVIATION
        return found

    def _bends(self, observed: Sequence[Observed]) -> Floats:
        """The loss from which on each is compared by its logarithm."""
        least = _BEND_OF_TOLERANCE * self.scale.tolerance
        return np.array([math.hypot(least, o.error, o.spread) for o in observed])

    def _bent(self, theta: Floats, observed: Sequence[Observed]) -> tuple[Floats, Floats]:
        """The loss of each on the scale that bends, and its derivatives, a row each."""
        losses, rows = self._losses(theta, observed)
        bends = self._bends(observed)
        return np.arcsinh(losses / bends), rows / np.hypot(losses, bends)[:, None]

    def _covariance(self, theta: Floats, observed: Sequence[Observed], losses: Floats) -> Floats:
        """The covariance of what observations are off the sum, on the scale that bends."""
        sizes = self._residual_sizes(losses, observed)
        own = np.diag(np.square(self._own_deviations(losses, observed)))
        found = np.outer(sizes, sizes) * self._correlations(theta, observed, observed)
        return np.asarray(found + own)

    def _own_deviations(self, losses: Floats, observed: Sequence[Observed]) -> Floats:
        """What is off for each by itself, as a standard deviation on the scale that bends."""
        errors = np.array([each.error for each in observed])
        own = np.hypot(errors, _NUGGET_OF_TOLERANCE * self.scale.tolerance)
        return np.asarray(own / np.hypot(losses, self._bends(observed)))

    def _residual_sizes(self, losses: Floats, observed: Sequence[Observed]) -> Floats:
        """How far losses are off the sum, as a standard deviation on the scale that bends."""
        far = np.log(np.maximum(losses / self.scale.tolerance, 1.0))
        relative = _RELATIVE_RESIDUAL + _RESIDUAL_FAR_OFF * far
        if not self.is_scored:
            # Then an op that loses all by itself is to be blamed, and not chance.
            relative = np.full_like(far, _RESIDUAL_OF_UNSCORED)
        least = _RESIDUAL_OF_TOLERANCE * self.scale.tolerance
        spreads = np.array([each.spread for each in observed])
        size = np.sqrt((relative * np.maximum(losses, 0.0)) ** 2 + least**2 + spreads**2)
        return np.asarray(size / np.hypot(losses, self._bends(observed)))

    def _correlations(
        self, theta: Floats, left: Sequence[Observed], right: Sequence[Observed]
    ) -> Floats:
        """How what is off the sum goes together, of shape ``(left, right)``.

        A configuration is a point in Euclidean space: what part of the error each op has in each
        option. So correlations are those of a process, whatever the configurations.
        """
        weights = self._weights(theta)
        ops = np.arange(len(weights))

        def place(each: Observed) -> Floats:
            found = np.zeros(weights.shape)
            found[ops, each.options] = weights[ops, each.options]
            return np.asarray(found.ravel() / max(found.sum(), 1e-300))

        one, other = (np.array([place(each) for each in side]) for side in (left, right))
        differ = np.sqrt(
            np.maximum(
                np.square(one).sum(axis=1)[:, None]
                + np.square(other).sum(axis=1)[None, :]
                - 2 * one @ other.T,
                0.0,
            )
        )
        return np.asarray(np.exp(-0.5 * np.square(differ / _RESIDUAL_LENGTH)))

    def _chosen(self, options: NDArray[np.int64]) -> Floats:
        return np.asarray(self.sensitivities[np.arange(len(options)), options])

    def _losses(self, theta: Floats, observed: Sequence[Observed]) -> tuple[Floats, Floats]:
        """The loss of each, and its derivatives by the parameters, a row each."""
        ops, count = self.sensitivities.shape
        offset, exponent = float(theta[0]), float(theta[1])
        weights = self._weights(theta)
        losses = np.zeros(len(observed))
        rows = np.zeros((len(observed), len(theta)))
        places = np.arange(ops)
        for k, each in enumerate(observed):
            shares = weights[places, each.options]
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
            rows[k, 2 : self._first_option] = by_op
            rows[k, self._first_option + places * count + each.options] = by_op
            if self.kinds is not None:
                kinds = self.kinds[places, each.options]
                np.add.at(rows[k], self._first_kind + kinds[kinds >= 0], by_op[kinds >= 0])
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


def _inverse(matrix: Floats) -> Floats:
    """The inverse of a covariance whose variances may be of very different sizes."""
    size = np.sqrt(np.diag(matrix))
    values, vectors = np.linalg.eigh(matrix / np.outer(size, size))
    values = np.maximum(values, _LEAST_EIGENVALUE * values[-1])
    found = (vectors / values) @ vectors.T / np.outer(size, size)
    return np.asarray((found + found.T) / 2)


def _step(rows: Floats, residuals: Floats, off: Floats, damping: float) -> Floats:
    """A damped Gauss-Newton step, in standard deviations of the prior.

    Args:
        rows:
            The derivatives by the parameters, whitened, a row for each observation.
        residuals:
            The residuals, whitened.
        off:
            How far the parameters are off the mean of the prior.
        damping:
            What is added to the precision of the prior.
    """
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    along = right @ off
    step = (values * (left.T @ residuals) - along) / (np.square(values) + 1 + damping)
    return np.asarray(right.T @ step - (off - right.T @ along) / (1 + damping))
