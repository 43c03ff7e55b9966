"""The loss by the sum of what ops add to the error: its parameters, and their prior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import math
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np

from optuna_quant.samplers._models.observed_loss import LossScale


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
LEAST_EXPONENT, MOST_EXPONENT = 0.3, 2.0
# How far the true share of an op may be from its sensitivity, as a factor's logarithm; of one of
# its options beside the others; and where nothing scores the ops.
_OP_DEVIATION = 0.9
_OPTION_DEVIATION = 0.5
# The same of all ops together that use another kind of option than their default: what clips
# ranges is off by the same amount for all samples, and such errors add up to more than their
# variances do.
_KIND_DEVIATION = 1.0
_UNSCORED_DEVIATION = 2.5
# The same of all ops of a block, and of all that have the same place in the blocks of a family.
_SHARED_DEVIATION = 1.5
# Of an option whose sensitivity is a guess: it may lose next to nothing, or all there is.
_GUESSED_DEVIATION = 3.0


@dataclass(frozen=True, eq=False)
class LossSums:
    """The part of a :class:`LossModel` that has parameters.

    These are, in this order: the logarithm of the loss at the reference error, the exponent, and
    the logarithm of a factor for each op, for each option of each op, for each kind, and for each
    group of ops that share one.

    Args:
        sensitivities:
            As of the model, like all that follow.
        scale:
            The units of the loss.
        is_scored:
            Whether the sensitivities are more than equal shares.
        kinds:
            The kind of each op's options.
        shared:
            The factors that ops share with others.
        guessed:
            Which of the sensitivities are guesses.
    """

    sensitivities: Floats
    scale: LossScale
    is_scored: bool
    kinds: NDArray[np.int64] | None
    shared: NDArray[np.int64] | None
    guessed: NDArray[np.bool_] | None

    def weights(self, theta: Floats) -> Floats:
        """What each op adds in each option, of shape ``(ops, options)``."""
        ops, options = self.sensitivities.shape
        factors = theta[2 : 2 + ops, None] + theta[self._first_option :][: ops * options].reshape(
            ops, options
        )
        if self.kinds is not None:
            # The last one is of those that share nothing.
            of_kinds = np.append(theta[self._first_kind : self._first_shared], 0.0)
            factors = factors + of_kinds[self.kinds]
        if self.shared is not None:
            of_shared = np.append(theta[self._first_shared :], 0.0)
            factors = factors + of_shared[self.shared].sum(axis=0)[:, None]
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
    def _first_shared(self) -> int:
        """The place of the first shared factor among the parameters."""
        return self._first_kind + (0 if self.kinds is None else int(self.kinds.max()) + 1)

    @cached_property
    def _parameters(self) -> int:
        return self._first_shared + (0 if self.shared is None else int(self.shared.max()) + 1)

    @cached_property
    def prior_mean(self) -> Floats:
        """What the parameters are taken to be before anything is observed."""
        mean = np.zeros(self._parameters)
        at_reference = self.scale.tolerance
        if self.scale.size > 0:
            at_reference = _LOSS_AT_REFERENCE * self.scale.size
        mean[0], mean[1] = self.scale.learned or (math.log(at_reference), _EXPONENT)
        return mean

    @cached_property
    def prior_deviations(self) -> Floats:
        """Their standard deviations then."""
        found = np.full(self._parameters, _OPTION_DEVIATION)
        found[0] = _SCALE_DEVIATION if self.scale.size > 0 else _UNKNOWN_SCALE_DEVIATION
        if self.scale.learned is not None:
            found[0] = _LEARNED_SCALE_DEVIATION
        found[1] = _EXPONENT_DEVIATION
        of_ops = slice(2, self._first_option)
        found[of_ops] = _OP_DEVIATION if self.is_scored else _UNSCORED_DEVIATION
        found[self._first_kind : self._first_shared] = _KIND_DEVIATION
        found[self._first_shared :] = _SHARED_DEVIATION
        if self.guessed is not None:
            found[self._first_option : self._first_kind][self.guessed.ravel()] = _GUESSED_DEVIATION
        return found

    def bent(
        self, summed: Summed, options: NDArray[np.int64], bends: Floats
    ) -> tuple[Floats, Floats]:
        """The losses on the scale that bends, and their derivatives, a row each."""
        losses, rows = summed.losses, self._rows(summed, options)
        return np.arcsinh(losses / bends), rows / np.hypot(losses, bends)[:, None]

    def chosen(self, options: NDArray[np.int64]) -> Floats:
        """The sensitivities of the options of one configuration."""
        return np.asarray(self.sensitivities[np.arange(len(options)), options])

    def summed(self, theta: Floats, options: NDArray[np.int64]) -> Summed:
        """The losses that the sums give.

        Args:
            theta:
                The parameters.
            options:
                The position of the option of each op, a row for each configuration.
        """
        offset, exponent = float(theta[0]), float(theta[1])
        shares = self.weights(theta).take(options + self._first_options)
        totals = shares.sum(axis=1)
        log_ratios = [math.log(total / _REFERENCE_ERROR) for total in totals.tolist()]
        straight = [math.exp(min(offset + exponent * ratio, 300.0)) for ratio in log_ratios]
        losses = slopes = straight
        most = self.scale.most
        if math.isfinite(most):
            losses = [-most * math.expm1(-loss / most) for loss in straight]
            slopes = [loss * math.exp(-loss / most) for loss in straight]
        return Summed(
            exponent, shares, totals, np.array(log_ratios), np.array(losses), np.array(slopes)
        )

    def _rows(self, summed: Summed, options: NDArray[np.int64]) -> Floats:
        """The derivatives of the losses by the parameters, a row for each configuration."""
        count, ops = options.shape
        rows = np.zeros((count, self._parameters))
        rows[:, 0] = summed.slopes
        rows[:, 1] = summed.slopes * summed.log_ratios
        by_op = (summed.slopes * summed.exponent)[:, None] * summed.shares
        by_op /= summed.totals[:, None]
        places = np.arange(count)[:, None]
        rows[:, 2 : self._first_option] = by_op
        rows[places, self._first_option + self._first_options + options] = by_op
        if self.kinds is not None:
            kinds = self.kinds.take(options + self._first_options)
            rows[:, self._first_kind : self._first_shared] = _grouped(
                by_op, kinds, self._first_shared - self._first_kind
            )
        for group in () if self.shared is None else self.shared:
            rows[:, self._first_shared :] += _grouped(
                by_op,
                np.broadcast_to(group, (count, ops)),
                self._parameters - self._first_shared,
            )
        return rows

    @cached_property
    def _first_options(self) -> NDArray[np.int64]:
        """The place of the first option of each op among all options."""
        ops, count = self.sensitivities.shape
        return np.arange(0, ops * count, count, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Summed:
    """The losses of some configurations by the sums of what their ops add, and what gives them.

    Args:
        exponent:
            The exponent of the sums.
        shares:
            What each op adds to the error, a row for each configuration.
        totals:
            The sums of these.
        log_ratios:
            The logarithms of the sums, in reference errors.
        losses:
            The losses.
        slopes:
            Their derivatives by the logarithm of the scale.
    """

    exponent: float
    shares: Floats
    totals: Floats
    log_ratios: Floats
    losses: Floats
    slopes: Floats


def _grouped(values: Floats, groups: NDArray[np.int64], count: int) -> Floats:
    """The sums of the values of each group, a row for each of theirs; -1 is in no group."""
    rows = len(values)
    inside = groups >= 0
    places = (np.arange(rows)[:, None] * count + groups)[inside]
    found = np.bincount(places, weights=values[inside], minlength=rows * count)
    return np.asarray(found.reshape(rows, count))
