"""The floating-point types of 16 bits, and constants in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.backends.onnxruntime.model.graph import Graph


@dataclass(frozen=True)
class FloatType:
    """A floating-point type of 16 bits.

    Args:
        name:
            What ONNX calls it.
        mode:
            The mode of ops that compute in it.
        data_type:
            Its number in ONNX.
        largest:
            Its largest finite value.
    """

    name: str
    mode: str
    data_type: int
    largest: float

    def can_hold(self, array: NDArray[Any]) -> bool:
        """Whether all values of an array are finite, and within the range of the type."""
        return bool(np.all(np.abs(array) <= self.largest))

    def to_tensor(self, array: NDArray[Any]) -> onnx.TensorProto:
        """An array of floats as a tensor of this type, rounded to nearest, ties to even.

        Args:
            array:
                The array; see :meth:`can_hold`.
        """
        floats = np.ascontiguousarray(array, np.float32)
        if self.data_type == onnx.TensorProto.FLOAT16:
            content = floats.astype(np.float16).tobytes()
        else:
            # NumPy has no bfloat16. It is the upper half of a float32, so adding just under half
            # of its last place rounds; one more where that place is odd, for ties.
            bits = floats.view(np.uint32)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
            content = rounded.astype(np.uint16).tobytes()
        return onnx.TensorProto(data_type=self.data_type, dims=array.shape, raw_data=content)

    def constant(self, rewrite: Rewrite, graph: Graph, name: str) -> str:
        """The tensor that holds the values of a constant in this type, in place of it."""
        rewrite.replace_weight(name)
        return rewrite.constant(f"{name}_{self.name}", self.to_tensor(graph.array(name)))


FLOAT16 = FloatType(
    name="float16",
    mode="fp16",
    data_type=onnx.TensorProto.FLOAT16,
    largest=float(np.finfo(np.float16).max),
)
BFLOAT16 = FloatType(
    name="bfloat16",
    mode="bf16",
    data_type=onnx.TensorProto.BFLOAT16,
    largest=(2 - 2**-7) * 2.0**127,
)

FLOAT_TYPES: Mapping[str, FloatType] = MappingProxyType(
    {kind.mode: kind for kind in (BFLOAT16, FLOAT16)}
)
"""The types by the mode of ops that compute in them."""
