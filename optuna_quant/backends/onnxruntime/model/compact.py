"""Models whose large initializers are kept outside them, once for all models that have them.

A candidate shares most of its weights with the FP32 model and with other candidates. Copied into
each model, serialized for each session and parsed there, they cost more than quantizing does. Here
a model only refers to them by name. A session of it is given the arrays themselves; the model as a
whole is put together when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
import math
from threading import Lock
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx
import onnxruntime

from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant.backends.onnxruntime.model.fingerprint import initializer_digest
from optuna_quant.backends.onnxruntime.model.tensor_references import ITEM_BYTES
from optuna_quant.backends.onnxruntime.model.tensor_references import Source
from optuna_quant.backends.onnxruntime.model.tensor_references import add_initializer
from optuna_quant.backends.onnxruntime.model.tensor_references import copy_field
from optuna_quant.backends.onnxruntime.model.tensor_references import fill
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference


if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray


_CACHE_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class CompactModel:
    """A model without the data of its large initializers.

    Args:
        proto:
            The model, with references in place of them. Do not change it.
        outside:
            The data of those that it refers to, by name. Do not change them either.
        original:
            The whole model, if it exists already.
    """

    proto: onnx.ModelProto
    outside: Mapping[str, Source] = field(default_factory=dict)
    original: onnx.ModelProto | None = None

    def whole(self) -> onnx.ModelProto:
        """The model with all of its data, put together for each call; not to be changed."""
        if self.original is not None:
            return self.original
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        for tensor in whole.graph.initializer:
            if is_reference(tensor):
                fill(tensor, tensor.name, self.outside[tensor.name])
        return whole

    @cached_property
    def nbytes(self) -> int:
        """The size of the whole model as bytes, without data in files."""
        graph = self.proto.graph
        before = after = int(graph.ByteSize())
        for tensor in graph.initializer:
            if is_reference(tensor):
                whole = _whole_bytes(tensor, self.outside[tensor.name])
                after += _field_bytes(whole) - _field_bytes(int(tensor.ByteSize()))
        return int(self.proto.ByteSize()) - _field_bytes(before) + _field_bytes(after)

    def pruned(self) -> CompactModel:
        """The same, without data that it does not refer to."""
        tensors = self.proto.graph.initializer
        used = {t.name: self.outside[t.name] for t in tensors if is_reference(t)}
        return CompactModel(self.proto, used)

    def with_metadata(self, entries: Mapping[str, str]) -> CompactModel:
        """The same with more in its metadata; an entry that is there already is replaced."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        found = {entry.key: entry.value for entry in proto.metadata_props} | dict(entries)
        onnx.helper.set_model_props(proto, found)
        return CompactModel(proto, self.outside)


class SharedArrays:
    """Gives referenced initializers as the runtime takes them, on the same memory each time.

    May be called from several threads.

    Args:
        max_bytes:
            The most bytes of arrays that are kept of tensors of the user's model.
    """

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._lock = Lock()
        self._kept = BoundedCache(max_bytes)

    @property
    def nbytes(self) -> int:
        """The size of the arrays that are kept of tensors, in bytes."""
        return self._kept.nbytes

    def value(self, source: Source) -> onnxruntime.OrtValue:
        """The value of an initializer; it holds the array whose memory it is."""
        if isinstance(source, np.ndarray):
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(source))
        array = self._array(source)
        if source.data_type == onnx.TensorProto.BFLOAT16:
            return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, source.data_type)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def _array(self, tensor: onnx.TensorProto) -> NDArray[Any]:
        with self._lock:
            kept: _Kept | None = self._kept.get(id(tensor))
            if kept is None:
                kept = _Kept(tensor, _array_of(tensor))
                self._kept[id(tensor)] = kept
            return kept.array


def _array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The value of a tensor; of one of bfloat16, which NumPy does not have, the bits."""
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return np.frombuffer(tensor.raw_data, np.uint16).reshape(tuple(tensor.dims))
    return np.asarray(onnx.numpy_helper.to_array(tensor))


@dataclass(frozen=True, eq=False)
class _Kept:
    """An array and its tensor, which is kept so that no other one gets its identity."""

    tensor: onnx.TensorProto
    array: NDArray[Any]

    @property
    def nbytes(self) -> int:
        return self.array.nbytes


def can_share(
    providers: Sequence[Any], session_options: onnxruntime.SessionOptions | None
) -> bool:
    """Whether a session can read arrays outside its model.

    A user's options cannot be given arrays for one session only, and other providers than that of
    the CPU may want the whole model.
    """
    return session_options is None and tuple(providers) == ("CPUExecutionProvider",)


def compacted(proto: onnx.ModelProto) -> CompactModel:
    """A model with its large initializers outside; it is not changed, and shares them."""
    compact = onnx.ModelProto()
    outside: dict[str, Source] = {}
    fixed = {value.name for value in proto.graph.input}
    for descriptor, value in proto.ListFields():
        if descriptor.name == "graph":
            for inner, content in value.ListFields():
                if inner.name != "initializer":
                    copy_field(compact.graph, inner.name, content)
        else:
            copy_field(compact, descriptor.name, value)
    for tensor in proto.graph.initializer:
        known = None if tensor.name in fixed else outside
        add_initializer(compact.graph, tensor.name, tensor, known)
    return CompactModel(compact, outside, original=proto)


def missing_digests(outside: Mapping[str, Source], known: Mapping[str, bytes]) -> dict[str, bytes]:
    """The hashes of referenced initializers that are not known, as fingerprints have them."""
    return {
        name: initializer_digest(source) for name, source in outside.items() if name not in known
    }


def source_array(source: Source, base_dir: str | os.PathLike[str] | None) -> NDArray[Any]:
    """The value of an initializer, read from its file if it is in one."""
    if isinstance(source, np.ndarray):
        return source
    return np.asarray(onnx.numpy_helper.to_array(source, str(base_dir or "")))


# How protobuf writes a field of bytes or of a message: a tag of one byte for the numbers up to 15,
# which all of those here have, the length, and the content.


def _field_bytes(length: int) -> int:
    return 1 + max(1, -(-length.bit_length() // 7)) + length


def _whole_bytes(tensor: onnx.TensorProto, source: Source) -> int:
    """The size of the tensor that a reference stands for."""
    head = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type)
    head.dims.extend(tensor.dims)
    if isinstance(source, onnx.TensorProto):
        # What else it has is small; reading all fields would copy its data.
        for name in ("doc_string", "data_location"):
            if source.HasField(name):
                setattr(head, name, getattr(source, name))
        for name in ("metadata_props", "external_data"):
            head_values = getattr(head, name, None)
            if head_values is not None:
                head_values.extend(getattr(source, name))
    raw = ITEM_BYTES[tensor.data_type] * math.prod(tensor.dims)
    return int(head.ByteSize()) + _field_bytes(raw)
