"""A model's content, with external data by reference, and its hash."""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import onnx
    import onnxruntime


# How much of an external tensor is hashed: all of it up to this, else this much in blocks.
_SAMPLED_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 12


def model_fingerprint(model: onnx.ModelProto, base_dir: str | os.PathLike[str] | None) -> str:
    """Return a SHA-256 hash of a model's content.

    External data are not read in full, since they can be many gigabytes: each external tensor
    enters with its location, offset and length, the size and modification time of its file, and
    64 KiB of its content in evenly spaced blocks (all of it if smaller). A stale hash therefore
    needs a file that is edited in place, outside the blocks, and given its old time back.

    Args:
        model:
            The model.
        base_dir:
            The directory that external data are relative to.

    Raises:
        OSError:
            If a file of external data cannot be read.
        ValueError:
            If the model is over 2 GB with its data loaded.
    """
    digest = hashlib.sha256(serialized(model))
    for location, offset, length in external_tensors(model):
        path = Path(base_dir or ".") / location
        stat = path.stat()
        length = stat.st_size - offset if length is None else length
        digest.update(f"{location} {offset} {length} {stat.st_size} {stat.st_mtime_ns};".encode())
        with path.open("rb") as file:
            for start, size in _blocks(length):
                file.seek(offset + start)
                digest.update(file.read(size))
    return digest.hexdigest()


def external_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, int, int | None]]:
    """Yield location, offset and length (None: to the end) of each tensor in external data."""
    import onnx

    from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference

    for tensor in _tensors(model.graph):
        if onnx.external_data_helper.uses_external_data(tensor) and not is_reference(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            length = int(entries["length"]) if "length" in entries else None
            yield entries["location"], int(entries.get("offset", 0)), length


def serialized(model: onnx.ModelProto) -> bytes:
    """Return the model as bytes, the same for equal models.

    Raises:
        ValueError:
            If the model is over 2 GB, the most that its format holds.
    """
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf's EncodeError, which says no more
        raise ValueError(
            "The model cannot be serialized; over 2 GB its weights must be in external data and "
            "stay there: onnx.load(path, load_external_data=False), and pass base_dir."
        ) from error


def config_entry(options: onnxruntime.SessionOptions, key: str) -> str:
    """The value of an entry of session options; empty if there is none."""
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:  # there is no such entry, which is the same as an empty one
        return ""


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for subgraph in attribute.graphs:
                yield from _tensors(subgraph)


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    """Start and size of the parts of a tensor's bytes that are hashed."""
    if length <= _SAMPLED_BYTES:
        yield 0, length
        return
    count = _SAMPLED_BYTES // _BLOCK_BYTES
    for i in range(count):
        yield i * (length - _BLOCK_BYTES) // (count - 1), _BLOCK_BYTES
