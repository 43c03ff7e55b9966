"""Times as people write them."""

from __future__ import annotations

from fractions import Fraction
import math

import numpy as np
import pytest

from optuna_quant import TuningCriterion
from optuna_quant._common.durations import as_seconds
from optuna_quant._common.durations import check_seconds
from optuna_quant._common.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        ("90s", 90),
        ("15m", 900),
        ("15min", 900),
        ("1h", 3600),
        ("1.5H", 5400),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("2d", 172800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1x", "1h30", "1 hour", "m15", "-1h", "1h;"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "above_zero", "kind"),
    [
        *((bad, False, ValueError) for bad in (-1, math.inf, math.nan)),
        *((bad, True, ValueError) for bad in (0, 0.0, -1)),
        *((bad, False, TypeError) for bad in (True, "5", [5])),
    ],
)
def test_what_is_no_length_of_time(value: object, above_zero: bool, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="pause must be a number of seconds"):
        check_seconds("pause", value, above_zero=above_zero)


@pytest.mark.parametrize("value", [None, 0, 0.5, np.float32(3), Fraction(1, 2)])
def test_lengths_of_time(value: object) -> None:
    check_seconds("pause", value)


def test_options_take_durations() -> None:
    assert TuningCriterion(timeout="15m") == TuningCriterion(timeout=900)
    assert as_seconds("timeout", None) is None
    with pytest.raises(ValueError, match=r"timeout must be .* such as 90s, .* but got 'soon'"):
        TuningCriterion(timeout="soon")
