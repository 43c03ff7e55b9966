"""When what two models compute is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Sequence


def assert_same(found: Sequence[Any], expected: Sequence[Any], said: str = "") -> None:
    """Check that two runs have given the same, but for rounding."""
    assert len(found) == len(expected), said
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6, err_msg=said
        )


def are_same(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two runs have given the same, but for rounding."""
    try:
        assert_same(found, expected)
    except AssertionError:
        return False
    return True
