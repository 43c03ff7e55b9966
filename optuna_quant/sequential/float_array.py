"""Arrays of numbers that are read one by one."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING
from typing import TypeAlias


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# Single numbers are read from it several times as fast as from an array of numpy's.
FloatArray: TypeAlias = "array[float]"


def float_array(values: NDArray[np.float64]) -> FloatArray:
    """A copy of numbers, of shape ``(n,)``."""
    return array("d", values.tobytes())
