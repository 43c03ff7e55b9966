from __future__ import annotations

import math

import numpy as np
import pytest

from optuna_quant._common.rounding import ROUNDING
from optuna_quant._common.rounding import bounds_slack


def test_slack_grows_with_the_bounds() -> None:
    assert bounds_slack((0.0, 1.0)) == ROUNDING
    assert bounds_slack((-200.0, 100.0)) == 200 * ROUNDING


def test_infinite_bounds_do_not_count() -> None:
    assert bounds_slack((0.0, math.inf)) == ROUNDING
    assert bounds_slack((-math.inf, 5.0)) == 5 * ROUNDING


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_slack_is_that_of_the_precision(dtype: type) -> None:
    slack = bounds_slack((0.0, 1.0), dtype)
    one = dtype(1)
    assert np.nextafter(one, dtype(2)) - one < slack < 1e-2


def test_integers_are_exact() -> None:
    assert bounds_slack((0.0, 1.0), np.int64) == ROUNDING
