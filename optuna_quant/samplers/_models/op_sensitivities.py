"""The sensitivities of ops for the model of the loss: one number per op and option."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.samplers._models.scored_options import Precision
from optuna_quant.samplers._models.scored_options import algorithm_of
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.tunable import Tunable


# The sum of equal shares, where nothing scores the ops.
_UNSCORED_ERROR = 0.05
_UNSCORED_OPTION = 1.5
# By how much an option with a bit less loses more, where nothing scores the ops: the variance of
# rounding grows by 4, but what is coarse anyway hurts less than its share.
_UNSCORED_BIT = 2.0
# Larger scores are in another unit than the outputs' variance: only their ratios are used.
_LARGEST_SCORE = 10.0
# An op that was seen to do nothing may do a little: this part of what all do.
_LEAST_SHARE = 1e-6
# What an op in floats of 16 bits is expected to lose at first, as a part of what it loses in its
# default; and where nothing scores the ops. Rounding loses less, but an overflow may lose it all:
# with no share at all such an op would never be blamed for what trials lose.
_OF_16_BITS = 0.01
_UNSCORED_OF_16_BITS = 0.3


def sensitivity_matrix(
    tunables: Sequence[Tunable], scores: Mapping[str, Mapping[str, float]]
) -> tuple[NDArray[np.float64], bool]:
    """The sensitivity of each tunable in each of its options, and whether it was scored.

    Args:
        tunables:
            The tunables.
        scores:
            The scores by op and option's label; empty if nothing scores the ops.

    Returns:
        An array of shape ``(tunables, options)``, zero in FP32 and a guess in floats of 16 bits,
        and whether it is more than equal shares.
    """
    found, is_scored = _given(tunables, scores), bool(scores)
    if not found.any():  # All are equal, as far as the scores say.
        found, is_scored = _given(tunables, {}), False
    elif found.max() > _LARGEST_SCORE:
        found /= found.max()
        found /= found.max(axis=1).sum()
    total = float(found.max(axis=1).sum())
    floor = _LEAST_SHARE * total / len(tunables)
    for i, tunable in enumerate(tunables):
        for j, option in enumerate(tunable.options):
            found[i, j] = max(found[i, j], floor) if option.is_quantized else 0.0
    part = _OF_16_BITS if is_scored else _UNSCORED_OF_16_BITS
    in_16_bits = floats_of_16_bits(tunables)
    for i, tunable in enumerate(tunables):
        default = found[i, tunable.options.index(tunable.default)] or total / len(tunables)
        found[i, in_16_bits[i]] = part * default
    return found, is_scored


def floats_of_16_bits(tunables: Sequence[Tunable]) -> NDArray[np.bool_]:
    """Which options are floats of 16 bits, of the shape of the sensitivities."""
    found = np.zeros(_shape(tunables), dtype=bool)
    for i, tunable in enumerate(tunables):
        for j, option in enumerate(tunable.options):
            found[i, j] = not option.is_quantized and option != FP32
    return found


def option_kinds(tunables: Sequence[Tunable]) -> NDArray[np.int64]:
    """The kind of each tunable's options: what they have in common that are not defaults."""
    found = np.full(_shape(tunables), -1)
    numbers: dict[object, int] = {}
    for i, tunable in enumerate(tunables):
        for j, option in enumerate(tunable.options):
            kind = _kind(option)
            if option.is_quantized and kind != _kind(tunable.default):
                found[i, j] = numbers.setdefault(kind, len(numbers))
    return found


def _given(
    tunables: Sequence[Tunable], scores: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float64]:
    """What the scores say; what they lack is derived from what they have, or an equal share."""
    found = np.zeros(_shape(tunables))
    for i, tunable in enumerate(tunables):
        known = _known(tunable, scores)
        of_bits: dict[frozenset[int], float] = {}
        for option, score in known.items():
            of_bits.setdefault(Precision.of(option).bits, score)
        default = known.get(tunable.default, _UNSCORED_ERROR / len(tunables))
        for j, option in enumerate(tunable.options):
            if not option.is_quantized:
                continue
            if not scores:
                found[i, j] = default * _coarseness(option)
            elif option in known:
                found[i, j] = known[option]
            else:
                found[i, j] = _UNSCORED_OPTION * of_bits.get(Precision.of(option).bits, default)
    return found


def _known(tunable: Tunable, scores: Mapping[str, Mapping[str, float]]) -> dict[OpConfig, float]:
    """The score of each option that all ops of a tunable have one of."""
    found = {}
    for option in tunable.quantized:
        of_ops = [scores.get(op, {}).get(option.label) for op in tunable.ops]
        known = [score for score in of_ops if score is not None]
        if len(known) == len(of_ops):
            found[option] = sum(known)
    return found


def _coarseness(option: OpConfig) -> float:
    """By how much an option is expected to lose more than one of 8 bits, where nothing says it."""
    return float(_UNSCORED_BIT ** (8 - min(Precision.of(option).bits, default=8)))


def _shape(tunables: Sequence[Tunable]) -> tuple[int, int]:
    return len(tunables), max(len(tunable.options) for tunable in tunables)


def _kind(option: OpConfig) -> tuple[str, frozenset[int], str | None]:
    """What makes the errors of options alike, whatever the op: bits, and the algorithm."""
    return option.mode, Precision.of(option).bits, algorithm_of(option)
