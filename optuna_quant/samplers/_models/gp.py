"""A Gaussian process over points whose coordinates are choices: arrays in, arrays out.

A point has one choice for each of ``d`` parameters, as its position among that parameter's
choices. The covariance of two points falls with each parameter in which they differ:

    k(x, x') = variance * exp(-sum_i relevance_i [x_i != x'_i])

This is the product of ``d`` overlap kernels (the exponential of the weighted Hamming distance,
which is positive definite); a parameter with a small relevance hardly matters, and if all are
small the kernel is nearly additive over the parameters. The relevances, the variance and the noise
are fitted to the observations by their marginal likelihood and log-normal priors (maximum a
posteriori). The prior of a relevance is centred at a ``d``-th of a constant, so that points at
random are equally similar whatever ``d`` is, and few observations of many parameters leave most
relevances where they were.

See Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5.

In the shapes below, ``n`` and ``m`` are numbers of points and ``c`` is the number of choices of
all parameters together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve
from scipy.linalg import cholesky
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import erfcx
from scipy.special import ndtr


Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_SMALLEST_VARIANCE = 1e-12
_LOG_SQRT_2PI = 0.5 * np.log(2.0 * np.pi)
_LOG_SQRT_HALF_PI = 0.5 * np.log(0.5 * np.pi)
# Further out, the logarithm's argument is rounding noise, and its limit is exact to 1e-7.
_FAR = -1e4


class Choices:
    """The choices of all parameters in one row, with each parameter's first column.

    Args:
        sizes:
            The number of choices of each parameter. Shape ``(d,)``.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes: Ints = np.asarray(sizes, dtype=np.int64)
        self.starts: Ints = np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)
        """The column of each parameter's first choice. Shape ``(d,)``."""
        self.owner: Ints = np.repeat(np.arange(len(self.sizes)), self.sizes)
        """The parameter of each column. Shape ``(c,)``."""

    def encode(self, points: Ints) -> Floats:
        """One at each chosen column, zero elsewhere.

        Args:
            points:
                Shape ``(n, d)``.

        Returns:
            Shape ``(n, c)``.
        """
        encoded = np.zeros((len(points), len(self.owner)))
        encoded[np.arange(len(points))[:, None], points + self.starts] = 1.0
        return encoded


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters of the covariance.

    Args:
        relevance:
            How fast the covariance falls if this parameter differs. Not negative. Shape ``(d,)``.
        variance:
            The variance of the function's values.
        noise:
            The variance of an observation around the function's value.
    """

    relevance: Floats
    variance: float
    noise: float


@dataclass(frozen=True)
class Prior:
    """Log-normal priors, each given by its median and the standard deviation of its logarithm.

    Args:
        total_relevance:
            The median of a relevance times the number of parameters.
        relevance_width:
            For each relevance.
        variance:
            The median.
        variance_width:
            For the variance.
        noise:
            The median.
        noise_width:
            For the noise.
    """

    total_relevance: float = 0.3
    relevance_width: float = 1.5
    variance: float = 1.0
    variance_width: float = 1.0
    noise: float = 1e-2
    noise_width: float = 1.5

    def centre(self, parameters: int) -> Floats:
        """The logarithms of the medians: relevances, variance, noise. Shape ``(d + 2,)``."""
        relevance = np.full(parameters, self.total_relevance / parameters)
        medians: Floats = np.concatenate([relevance, [self.variance, self.noise]])
        return np.log(medians)

    def width(self, parameters: int) -> Floats:
        """The standard deviations of the logarithms. Shape ``(d + 2,)``."""
        widths = np.full(parameters, self.relevance_width)
        return np.concatenate([widths, [self.variance_width, self.noise_width]])


_PRIOR = Prior()


def covariance(a: Floats, b: Floats, choices: Choices, hyper: Hyperparameters) -> Floats:
    """The covariance of the function's values at two sets of points, without noise.

    Args:
        a:
            Encoded points. Shape ``(m, c)``.
        b:
            Encoded points. Shape ``(n, c)``.
        choices:
            The choices.
        hyper:
            The hyperparameters.

    Returns:
        Shape ``(m, n)``.
    """
    same = (a * hyper.relevance[choices.owner]) @ b.T
    result: Floats = hyper.variance * np.exp(same - hyper.relevance.sum())
    return result


def negative_log_posterior(
    theta: Floats, encoded: Floats, targets: Floats, choices: Choices, prior: Prior
) -> tuple[float, Floats]:
    """What the fit minimizes, and its gradient.

    Args:
        theta:
            The logarithms of the relevances, the variance and the noise. Shape ``(d + 2,)``.
        encoded:
            The encoded points. Shape ``(n, c)``.
        targets:
            What was observed, with mean zero. Shape ``(n,)``.
        choices:
            The choices.
        prior:
            The prior.

    Returns:
        The negative logarithm of marginal likelihood times prior density (up to a constant), and
        the gradient, of shape ``(d + 2,)``.
    """
    hyper = _hyperparameters(theta)
    size = len(targets)
    signal = covariance(encoded, encoded, choices, hyper)
    factor = cholesky(signal + hyper.noise * np.eye(size), lower=True, check_finite=False)
    precision = cho_solve((factor, True), np.eye(size), check_finite=False)
    weights = precision @ targets
    deviation = (theta - prior.centre(len(choices.sizes))) / prior.width(len(choices.sizes))
    value = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * deviation @ deviation
    # The derivative by each entry of the covariance matrix.
    by_entry = 0.5 * (precision - np.outer(weights, weights))
    by_signal = by_entry * signal
    total = by_signal.sum()
    equal = np.add.reduceat((encoded * (by_signal @ encoded)).sum(axis=0), choices.starts)
    gradient = np.concatenate(
        [(equal - total) * hyper.relevance, [total, np.trace(by_entry) * hyper.noise]]
    )
    return float(value), gradient + deviation / prior.width(len(choices.sizes))


def _hyperparameters(theta: Floats) -> Hyperparameters:
    return Hyperparameters(np.exp(theta[:-2]), float(np.exp(theta[-2])), float(np.exp(theta[-1])))


def fit(
    points: Ints,
    targets: Floats,
    choices: Choices,
    *,
    prior: Prior = _PRIOR,
    start: Hyperparameters | None = None,
    iterations: int = 30,
) -> Hyperparameters:
    """The hyperparameters of highest posterior density, by L-BFGS-B from a fixed start.

    Args:
        points:
            Shape ``(n, d)``.
        targets:
            What was observed, with mean zero and variance near one. Shape ``(n,)``.
        choices:
            The choices.
        prior:
            The prior.
        start:
            Where to begin. Default: the prior's medians.
        iterations:
            The most steps.
    """
    centre = prior.centre(len(choices.sizes))
    width = prior.width(len(choices.sizes))
    begin = centre
    if start is not None:
        begin = np.log(np.concatenate([start.relevance, [start.variance, start.noise]]))
    result: Any = minimize(
        negative_log_posterior,
        begin,
        args=(choices.encode(points), targets, choices, prior),
        jac=True,
        method="L-BFGS-B",
        # Within four standard deviations of the prior the matrix is safely positive definite.
        bounds=list(zip(centre - 4.0 * width, centre + 4.0 * width, strict=True)),
        # To a ten-thousandth of the log posterior: more changes no proposal worth the time.
        options={"maxiter": iterations, "ftol": 1e-4},
    )
    return _hyperparameters(result.x)


class Posterior:
    """The Gaussian process given observations.

    Args:
        points:
            Shape ``(n, d)``.
        targets:
            What was observed, with mean zero. Shape ``(n,)``.
        choices:
            The choices.
        hyper:
            The hyperparameters.
    """

    def __init__(
        self, points: Ints, targets: Floats, choices: Choices, hyper: Hyperparameters
    ) -> None:
        self._points = points
        self._targets = targets
        self._choices = choices
        self._hyper = hyper
        self._encoded = choices.encode(points)
        matrix = covariance(self._encoded, self._encoded, choices, hyper)
        matrix[np.diag_indices_from(matrix)] += hyper.noise
        factor = cholesky(matrix, lower=True, check_finite=False)
        self._whiten = solve_triangular(
            factor, np.eye(len(points)), lower=True, check_finite=False
        )
        self._weights = self._whiten.T @ (self._whiten @ targets)

    def predict(self, points: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the function's value, without noise.

        Args:
            points:
                Shape ``(m, d)``.

        Returns:
            Two arrays of shape ``(m,)``.
        """
        encoded = self._choices.encode(points)
        return self._predict(covariance(self._encoded, encoded, self._choices, self._hyper))

    def predict_changes(self, point: Ints, columns: Ints) -> tuple[Floats, Floats]:
        """Mean and standard deviation where one parameter has another choice.

        Args:
            point:
                Shape ``(d,)``.
            columns:
                The choices that one parameter each changes to. Shape ``(m,)``.

        Returns:
            Two arrays of shape ``(m,)``, as :meth:`predict` would give for the changed points.
        """
        choices, relevance = self._choices, self._hyper.relevance
        equal = self._encoded[:, choices.starts + point]
        changed = choices.owner[columns]
        exponent = (equal @ relevance - relevance.sum())[:, None] + relevance[changed] * (
            self._encoded[:, columns] - equal[:, changed]
        )
        return self._predict(self._hyper.variance * np.exp(exponent))

    def _predict(self, cross: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation from the covariance with the observations, ``(n, m)``."""
        whitened = self._whiten @ cross
        variance = self._hyper.variance - np.einsum("ij,ij->j", whitened, whitened)
        deviation = np.sqrt(np.maximum(variance, _SMALLEST_VARIANCE))
        return self._weights @ cross, deviation

    def believe(self, points: Ints) -> Posterior:
        """The posterior if these points were observed to have their mean.

        The mean stays what it is everywhere; the variance shrinks around the points. This is the
        "kriging believer" of Ginsbourger, Le Riche and Carraro (2010).

        Args:
            points:
                Shape ``(m, d)``.
        """
        if not len(points):
            return self
        mean, _ = self.predict(points)
        return Posterior(
            np.concatenate([self._points, points]),
            np.concatenate([self._targets, mean]),
            self._choices,
            self._hyper,
        )


def log_expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """The logarithm of the expected improvement over ``best`` where higher is better.

    It is computed without the underflow of the plain formula, after Ament et al., "Unexpected
    improvements to expected improvement for Bayesian optimization" (2023), so that points far
    below the best can still be compared.

    Args:
        mean:
            Shape ``(m,)``.
        deviation:
            Positive. Shape ``(m,)``.
        best:
            The value to improve on.

    Returns:
        Shape ``(m,)``.
    """
    z = (mean - best) / deviation
    near = np.maximum(z, -1.0)
    density = np.exp(-0.5 * near**2 - _LOG_SQRT_2PI)
    result: Floats = np.log(density + near * ndtr(near))
    low = z < -1.0
    below = z[low]
    # log(1 - |z| sqrt(pi / 2) erfcx(|z| / sqrt(2))), where the difference tends to 1 / z**2.
    middle = np.maximum(below, _FAR)
    ratio = np.log(erfcx(-middle / np.sqrt(2.0)) * -middle) + _LOG_SQRT_HALF_PI
    difference = np.where(below > _FAR, np.log(-np.expm1(ratio)), -2.0 * np.log(-below))
    result[low] = difference - 0.5 * below**2 - _LOG_SQRT_2PI
    return result + np.log(deviation)
