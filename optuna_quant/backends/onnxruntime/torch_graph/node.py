"""What the torch counterparts of ONNX operators share: a node, its types."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import TypeAlias

import onnx
import torch

from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.torch_graph.supported import UnsupportedOperatorError


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import AttributeValue


Result: TypeAlias = "torch.Tensor | Sequence[torch.Tensor | None]"
"""One output, or all of them; None for an output without a reader."""

Handler: TypeAlias = Callable[..., Result]
"""Takes the :class:`Node` and its inputs, None for each that is left out."""

_INTEGERS: Mapping[int, torch.dtype] = MappingProxyType(
    {
        onnx.TensorProto.BOOL: torch.bool,
        onnx.TensorProto.INT8: torch.int8,
        onnx.TensorProto.UINT8: torch.uint8,
        onnx.TensorProto.INT16: torch.int16,
        onnx.TensorProto.INT32: torch.int32,
        onnx.TensorProto.INT64: torch.int64,
        # Torch computes little with these, and what is counted in them is small.
        onnx.TensorProto.UINT16: torch.int64,
        onnx.TensorProto.UINT32: torch.int64,
        onnx.TensorProto.UINT64: torch.int64,
    }
)
_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)


@dataclass(frozen=True, eq=False)
class Node:
    """A node, as its handler sees it.

    Args:
        proto:
            The node.
        opset:
            The version of the standard operators.
        dtype:
            The type that all floats have.
    """

    proto: onnx.NodeProto
    opset: int
    dtype: torch.dtype

    @cached_property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The attributes as Python values."""
        return node_attributes(self.proto)

    def get(self, name: str, default: AttributeValue = None) -> AttributeValue:
        """An attribute; strings as such."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def wants(self, position: int) -> bool:
        """Whether the node has an output at a position."""
        return position < len(self.proto.output) and bool(self.proto.output[position])

    def axes(self, given: torch.Tensor | None, rank: int) -> list[int]:
        """The axes, an input of new operators and an attribute of old ones, from 0 on."""
        axes = self.get("axes", ()) if given is None else given.tolist()
        return [axis % rank if rank else 0 for axis in axes]

    def torch_dtype(self, data_type: int) -> torch.dtype:
        """The torch type that stands for a type of :class:`onnx.TensorProto.DataType`."""
        if data_type in _FLOATS:
            return self.dtype
        if data_type in _INTEGERS:
            return _INTEGERS[data_type]
        raise self.unsupported(f"of type {onnx.TensorProto.DataType.Name(data_type)}")

    def unsupported(self, what: str) -> UnsupportedOperatorError:
        """The error that says what of this node has no counterpart."""
        node = self.proto
        return UnsupportedOperatorError(
            f"there is no torch counterpart of operator {node.op_type} {what} (node {node.name!r})"
        )
