"""When what two models compute is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Sequence


# Of the outputs: what is rounded to 8 bits may fall on the other side of a step.
_ROUNDING = 0.02


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


def are_close(found: object, expected: object) -> bool:
    """Whether two outputs are the same but for values that are rounded to another step."""
    one, other = np.asarray(found), np.asarray(expected)
    if one.shape != other.shape:
        return False
    if other.dtype.kind != "f":
        return True  # An index says nothing of how close it was.
    return bool(np.linalg.norm(one - other) <= _ROUNDING * np.linalg.norm(other))


def assert_close(found: Sequence[Any], expected: Sequence[Any], said: str) -> None:
    """Check that two runs have given the same, but for values rounded to another step."""
    assert len(found) == len(expected), said
    for one, other in zip(found, expected, strict=True):
        assert are_close(one, other), said
