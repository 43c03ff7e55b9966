"""What a line of progress says of a trial."""

from __future__ import annotations

import pytest

from optuna_quant.callbacks.trial_line import clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
