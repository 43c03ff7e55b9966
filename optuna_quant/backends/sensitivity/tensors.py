"""Arrays as tensors.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal
from typing import TypeAlias

import numpy as np
import torch


if TYPE_CHECKING:
    from numpy.typing import NDArray


Tensors: TypeAlias = dict[str, torch.Tensor]

FloatType: TypeAlias = Literal["float32", "float64"]
"""The type of all computations."""


def to_tensor(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """A copy of an array as a tensor: floats as ``dtype``, unsigned integers over 8 bits as int64.

    Raises:
        TypeError:
            If the array holds no numbers.
    """
    name = array.dtype.name
    if array.dtype.kind == "f" or name.startswith(("bfloat", "float")):
        wide = np.float64 if dtype == torch.float64 else np.float32
        return torch.from_numpy(np.array(array, dtype=wide)).to(dtype)
    if array.dtype.kind not in "biu" and not name.startswith(("int", "uint")):
        raise TypeError(f"expected numbers, but got an array of {name}")
    native = name in ("bool", "int8", "uint8", "int16", "int32", "int64")
    return torch.from_numpy(np.array(array, dtype=name if native else np.int64))


def batch_tensors(
    batch: Mapping[str, NDArray[Any]], inputs: Collection[str], dtype: FloatType
) -> Tensors:
    """A batch as torch takes it: the model's inputs, and what only a loss reads.

    Args:
        batch:
            The arrays.
        inputs:
            The names of the model's inputs; all others are for the loss.
        dtype:
            The type of floats.
    """
    floats = torch.float64 if dtype == "float64" else torch.float32
    return {
        name: to_tensor(array, floats) if name in inputs else _for_loss(array, floats)
        for name, array in batch.items()
    }


def _for_loss(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """An array that only the loss reads; torch takes 64-bit labels only."""
    tensor = to_tensor(array, dtype)
    return tensor if array.dtype.kind in "bf" else tensor.to(torch.int64)
