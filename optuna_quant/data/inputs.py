"""What a model expects of its inputs, whatever the backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class InputSpec:
    """What the model expects of one input.

    Args:
        name:
            Name of the input.
        dtype:
            Element type, or what NumPy makes one of, such as ``np.float32``; ``object`` for
            strings.
        shape:
            Size of each axis; a name, or None, where the size is dynamic. None if even the number
            of axes is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype.name} of any shape"
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.dtype.name} of shape ({axes})"
