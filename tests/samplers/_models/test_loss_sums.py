"""The losses by sums: their derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optuna_quant.samplers._models.loss_sums import LossSums
from optuna_quant.samplers._models.observed_loss import LossScale


@pytest.mark.parametrize("most", [0.9, math.inf])
def test_derivatives_are_those_of_finite_differences(most):
    rng = np.random.default_rng(4)
    kinds = np.tile([-1, 0, -1], (5, 1))
    shared = np.array([[0, 0, 1, 1, -1], [2, -1, 2, -1, -1]])
    sums = LossSums(
        rng.random((5, 3)) * [0.01, 0.02, 0.0],
        LossScale(0.01, 0.9, most),
        is_scored=True,
        kinds=kinds,
        shared=shared,
        guessed=None,
    )
    chosen = np.array([rng.integers(0, 2, 5), [0, 2, 1, 2, 0]])
    theta = sums.prior_mean + 0.3 * rng.standard_normal(len(sums.prior_mean))
    rows = sums._rows(sums.summed(theta, chosen), chosen)
    step = 1e-6
    for i in range(len(theta)):
        moved = np.eye(len(theta))[i] * step
        above, below = (sums.summed(theta + d, chosen).losses for d in (moved, -moved))
        assert rows[:, i] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-9)
