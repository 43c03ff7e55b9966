"""A content hash of a model, blind to names that carry no meaning.

Each tensor gets a hash of what it is computed from: the operator, its attributes and the hashes of
its inputs. The fingerprint is that of the outputs. Names of nodes and inner tensors, the order of
nodes, and nodes that contribute nothing therefore do not enter; names, types and order of the
model's inputs and outputs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import MutableMapping
import hashlib
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.model.model import external_location
from optuna_quant.backends.onnxruntime.model.model import is_external


if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SIZE = 16
_CHUNK = 1 << 20
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def fingerprint(
    model: onnx.ModelProto,
    *,
    base_dir: Path | None = None,
    known: MutableMapping[str, bytes] | None = None,
) -> str:
    """The content hash of a model: 32 hexadecimal digits, the same in every process.

    Args:
        model:
            The model.
        base_dir:
            The directory that external data are relative to. They are read in full.
        known:
            Hashes of initializers by name; those that are missing are added.
    """
    known = {} if known is None else known
    for tensor in model.graph.initializer:
        if tensor.name not in known:
            known[tensor.name] = _tensor(tensor, base_dir)
    opsets = sorted(f"{entry.domain}:{entry.version}" for entry in model.opset_import)
    parts = [",".join(opsets).encode()]
    parts.append(b"".join(_bytes(function) for function in model.functions))
    parts.append(_graph(model.graph, {}, known))
    for value in (*model.graph.input, *model.graph.output):
        parts += [value.name.encode(), _bytes(value.type)]
    return _hash(*parts).hex()


def _graph(
    graph: onnx.GraphProto,
    outside: Mapping[str, bytes],
    known: Mapping[str, bytes],
    depth: int = 0,
) -> bytes:
    """The hash of a graph's outputs, given those of the tensors outside that it can see."""
    values = dict(outside)
    for i, value in enumerate(graph.input):
        values[value.name] = _hash(b"input", f"{depth} {i}".encode())
    for tensor in graph.initializer:
        values[tensor.name] = known[tensor.name] if known else _tensor(tensor, None)
    for sparse in graph.sparse_initializer:
        values[sparse.values.name] = _hash(b"sparse", _bytes(sparse))
    for node in graph.node:
        own = _node(node, values, depth)
        for i, name in enumerate(node.output):
            values[name] = _hash(own, str(i).encode())
    return _hash(*(values[value.name] for value in graph.output))


def _node(node: onnx.NodeProto, values: Mapping[str, bytes], depth: int) -> bytes:
    domain = "" if node.domain == "ai.onnx" else node.domain
    parts = [domain.encode(), node.op_type.encode(), str(len(node.output)).encode()]
    parts += [values[name] if name else b"" for name in node.input]
    for attribute in sorted(node.attribute, key=lambda a: a.name):
        if attribute.type not in _GRAPHS:
            parts.append(_bytes(attribute))
            continue
        inner = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
        parts.append(attribute.name.encode())
        parts += [_graph(graph, values, {}, depth + 1) for graph in inner]
    return _hash(*parts)


def _tensor(tensor: onnx.TensorProto, base_dir: Path | None) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIZE)
    if is_external(tensor) and base_dir is not None:
        place = external_location(tensor, base_dir)
        left = place.length
        with place.path.open("rb") as file:
            file.seek(place.offset)
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
    elif tensor.HasField("raw_data"):
        digest.update(tensor.raw_data)
    elif tensor.data_type == onnx.TensorProto.STRING:
        digest.update(_hash(*tensor.string_data))
    else:
        digest.update(np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).tobytes())
    return typed_digest(digest.digest(), tensor.data_type, tuple(tensor.dims))


def initializer_digest(value: onnx.TensorProto | NDArray[Any]) -> bytes:
    """The hash of an initializer, a tensor with its data or an array."""
    if isinstance(value, onnx.TensorProto):
        return _tensor(value, None)
    content = hashlib.blake2b(np.ascontiguousarray(value).data, digest_size=_SIZE).digest()
    return typed_digest(
        content, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), tuple(value.shape)
    )


def typed_digest(content: bytes, data_type: int, shape: tuple[int, ...]) -> bytes:
    """The hash of a tensor whose bytes have this hash."""
    return _hash(content, str(data_type).encode(), str(tuple(shape)).encode())


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _hash(*parts: bytes) -> bytes:
    pieces = [piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)]
    return hashlib.blake2b(b"".join(pieces), digest_size=_SIZE).digest()
