from __future__ import annotations

import numpy as np
import pytest

from optuna_quant._common.counts import check_count
from optuna_quant._common.counts import check_positive


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_numbers_of_things_are_taken(value: object) -> None:
    check_count("batch_size", value)


@pytest.mark.parametrize("value", [2.0, "2", None, True])
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="batch_size must be an integer, but got"):
        check_count("batch_size", value)


@pytest.mark.parametrize("value", [0, -1])
def test_fewer_than_one_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, but got {value}"):
        check_count("batch_size", value)


@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
def test_every_bad_value_can_be_one_error(value: object) -> None:
    with pytest.raises(ValueError, match="n must be a positive integer, but got"):
        check_positive("n", value)
