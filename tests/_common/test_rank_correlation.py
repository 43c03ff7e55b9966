"""Spearman's rank correlation is that of SciPy."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
import pytest
from scipy.stats import spearmanr

from optuna_quant._common.rank_correlation import rank_correlation


PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.floats(-1e9, 1e9)), min_size=2, max_size=20)


@given(PAIRS)
def test_is_that_of_scipy(pairs: list[tuple[int, float]]) -> None:
    first, second = map(list, zip(*pairs, strict=True))
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(spearmanr(first, second).statistic), abs=1e-12)
