"""Times as people write them."""

from __future__ import annotations

import pytest

from optuna_quant import TuningCriterion
from optuna_quant._common.durations import as_seconds
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


def test_options_take_durations() -> None:
    assert TuningCriterion(timeout="15m") == TuningCriterion(timeout=900)
    assert as_seconds("timeout", None) is None
    with pytest.raises(ValueError, match=r"timeout must be .* such as 90s, .* but got 'soon'"):
        TuningCriterion(timeout="soon")
