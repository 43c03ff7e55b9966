"""Initializers that a model only refers to, because their data are kept outside it.

See :mod:`~optuna_quant.backends.onnxruntime.model.compact` for the models that have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import MutableMapping
import math
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np
import onnx


if TYPE_CHECKING:
    from numpy.typing import NDArray


Source: TypeAlias = "onnx.TensorProto | NDArray[Any]"
"""What a referenced initializer is: a tensor of the user's model, or an array."""

SMALL_BYTES = 1 << 12
"""Smaller initializers stay in the model: the runtime reads some when it infers shapes."""

# Where a referenced initializer is said to be. The runtime never looks there: it has the array.
_PLACE = "__optuna_quant_outside__"

# Types of weights; shapes, which the runtime wants to see early, are of 64-bit integers.
_SHARED_TYPES = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT32,
        onnx.TensorProto.UINT8,
    }
)
ITEM_BYTES: Mapping[int, int] = MappingProxyType(
    {
        **{t: int(onnx.helper.tensor_dtype_to_np_dtype(t).itemsize) for t in _SHARED_TYPES},
        # NumPy has none, so it is only ever outside as a tensor.
        onnx.TensorProto.BFLOAT16: 2,
    }
)
"""The size of an element of the types that can be outside."""

SHARED_DTYPES: Mapping[np.dtype[Any], int] = MappingProxyType(
    {np.dtype(onnx.helper.tensor_dtype_to_np_dtype(t)): t for t in _SHARED_TYPES}
)
"""The types that arrays outside can have, as those of tensors."""


def add_initializer(
    graph: onnx.GraphProto,
    name: str,
    source: Source,
    outside: MutableMapping[str, Source] | None,
) -> None:
    """Give a graph an initializer.

    Args:
        graph:
            The graph.
        name:
            The initializer's name.
        source:
            Its value.
        outside:
            Where it is put if it is large; None to have it in the graph whatever its size. So it
            must be for inputs with a default.
    """
    tensor = graph.initializer.add()
    if outside is None or not _is_shared(source):
        fill(tensor, name, source)
        return
    outside[name] = source
    tensor.name = name
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if isinstance(source, onnx.TensorProto):
        tensor.data_type = source.data_type
        tensor.dims.extend(source.dims)
    else:
        tensor.data_type = SHARED_DTYPES[source.dtype]
        tensor.dims.extend(source.shape)
    nbytes = ITEM_BYTES[tensor.data_type] * math.prod(tensor.dims)
    for key, value in (("location", _PLACE), ("offset", "0"), ("length", str(nbytes))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def is_reference(tensor: onnx.TensorProto) -> bool:
    """Whether an initializer's data are outside of a compact model."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return False
    return any(e.key == "location" and e.value == _PLACE for e in tensor.external_data)


def fill(tensor: onnx.TensorProto, name: str, source: Source) -> None:
    """Give a tensor a name and a value."""
    if isinstance(source, onnx.TensorProto):
        tensor.CopyFrom(source)
    else:
        tensor.Clear()
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(source.dtype)
        tensor.dims.extend(source.shape)
        tensor.raw_data = source.tobytes()
    tensor.name = name


def copy_field(message: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    """Set a field of a message to what it is in another one."""
    if isinstance(value, (str, bytes, int, float)):
        setattr(message, name, value)
    elif hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    else:
        getattr(message, name).extend(value)


def _is_shared(source: Source) -> bool:
    if isinstance(source, onnx.TensorProto):
        item = ITEM_BYTES.get(source.data_type)
        large = item is not None and item * math.prod(source.dims) >= SMALL_BYTES
        return large and bool(source.HasField("raw_data"))
    return source.nbytes >= SMALL_BYTES and source.dtype in SHARED_DTYPES
