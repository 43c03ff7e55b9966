"""Residuals of the additive model of the loss, as a Gaussian process over configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.samplers._models.observed_loss import LossScale
    from optuna_quant.samplers._models.observed_loss import Observed


Floats: TypeAlias = "NDArray[np.float64]"

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
# What is left if they do not differ: rounding.
_NUGGET_OF_TOLERANCE = 0.02


@dataclass(frozen=True)
class Residuals:
    """The residuals, on a scale that is linear around zero and logarithmic beyond.

    Args:
        scale:
            The units of the loss.
        is_scored:
            Whether the sensitivities are more than equal shares.
    """

    scale: LossScale
    is_scored: bool

    def bends(self, observed: Sequence[Observed]) -> Floats:
        """The loss from which on each is compared by its logarithm."""
        least = _BEND_OF_TOLERANCE * self.scale.tolerance
        return np.array([math.hypot(least, o.error, o.spread) for o in observed])

    def covariance(self, weights: Floats, observed: Sequence[Observed], losses: Floats) -> Floats:
        """The covariance of what observations are off the sum, on the scale that bends."""
        sizes = self.sizes(losses, observed)
        own = np.diag(np.square(self.own_deviations(losses, observed)))
        found = np.outer(sizes, sizes) * correlations(weights, observed, observed)
        return np.asarray(found + own)

    def own_deviations(self, losses: Floats, observed: Sequence[Observed]) -> Floats:
        """What is off for each by itself, as a standard deviation on the scale that bends."""
        errors = np.array([each.error for each in observed])
        own = np.hypot(errors, _NUGGET_OF_TOLERANCE * self.scale.tolerance)
        return np.asarray(own / np.hypot(losses, self.bends(observed)))

    def sizes(self, losses: Floats, observed: Sequence[Observed]) -> Floats:
        """How far losses are off the sum, as a standard deviation on the scale that bends."""
        far = np.log(np.maximum(losses / self.scale.tolerance, 1.0))
        relative = _RELATIVE_RESIDUAL + _RESIDUAL_FAR_OFF * far
        if not self.is_scored:
            # Then an op that loses all by itself is to be blamed, and not chance.
            relative = np.full_like(far, _RESIDUAL_OF_UNSCORED)
        least = _RESIDUAL_OF_TOLERANCE * self.scale.tolerance
        spreads = np.array([each.spread for each in observed])
        size = np.sqrt((relative * np.maximum(losses, 0.0)) ** 2 + least**2 + spreads**2)
        return np.asarray(size / np.hypot(losses, self.bends(observed)))


def correlations(weights: Floats, left: Sequence[Observed], right: Sequence[Observed]) -> Floats:
    """How what is off the sum goes together, of shape ``(left, right)``.

    A configuration is a point in Euclidean space: what part of the error each op has in each
    option. So correlations are those of a process, whatever the configurations.

    Args:
        weights:
            What each op adds to the error in each option, of shape ``(ops, options)``.
        left:
            Some configurations.
        right:
            Others, or the same.
    """
    return correlations_of(positions(weights, left), positions(weights, right))


def positions(weights: Floats, observed: Sequence[Observed]) -> Floats:
    """The points that configurations are, a row each.

    Args:
        weights:
            What each op adds to the error in each option, of shape ``(ops, options)``.
        observed:
            The configurations.
    """
    ops, count = weights.shape
    found = np.zeros((len(observed), weights.size))
    if len(observed):
        places = np.array([each.options for each in observed]) + np.arange(ops) * count
        found[np.arange(len(observed))[:, None], places] = weights.take(places)
    return np.asarray(found / np.maximum(found.sum(axis=1), 1e-300)[:, None])


def correlations_of(one: Floats, other: Floats) -> Floats:
    """What :func:`correlations` gives, of points instead of configurations."""
    differ = np.sqrt(
        np.maximum(
            np.square(one).sum(axis=1)[:, None]
            + np.square(other).sum(axis=1)[None, :]
            - 2 * one @ other.T,
            0.0,
        )
    )
    return np.asarray(np.exp(-0.5 * np.square(differ / _RESIDUAL_LENGTH)))
