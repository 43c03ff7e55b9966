"""Reading the user's model: from a file, bytes or a ModelProto; checked, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from optuna_quant.backends.onnxruntime.model.files import is_lfs_pointer
from optuna_quant.backends.onnxruntime.model.files import what_it_is
from optuna_quant.backends.onnxruntime.model.files import what_to_do_with
from optuna_quant.backends.onnxruntime.model.graph import name_nodes
from optuna_quant.backends.onnxruntime.model.training_mode import check_inference_mode


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Iterator


IN_MEMORY_BYTES = 1 << 30
"""External data up to this size are read into memory; larger ones stay where they are."""

OLDEST_OPSET = 10
"""The first opset with quantized operators."""


@dataclass(frozen=True, eq=False)
class SourceModel:
    """The user's model.

    Args:
        proto:
            A copy of it, in which each node has a name of its own. Do not change it.
        base_dir:
            The directory that its external data are relative to; None if it has none (or they
            have been read into memory).
        opset:
            The version of the standard operators.
        name:
            What to call it in a message, as the start of a sentence.
    """

    proto: onnx.ModelProto
    base_dir: Path | None
    opset: int
    name: str = "The model"


def load_model(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> SourceModel:
    """Read a model.

    Args:
        model:
            A path, the bytes of a model file, or a :class:`onnx.ModelProto`. With external data
            that are not loaded it must be a path.
        in_memory_bytes:
            External data up to this size are read into memory; larger ones are referred to.

    Raises:
        FileNotFoundError:
            If there is no such file, or a file with external data is missing.
        TypeError:
            If ``model`` is something else.
        ValueError:
            If it is not an ONNX model, has no nodes, is too old, was exported in training mode,
            or its external data are incomplete.
    """
    folder, content = None, b""
    if isinstance(model, onnx.ModelProto):
        name, proto = "The model", onnx.ModelProto()
        proto.CopyFrom(model)
    elif isinstance(model, (bytes, bytearray, memoryview)):
        name, content = "The model", bytes(model)
        proto = _parse(content, name)
    elif isinstance(model, (str, os.PathLike)):
        path = Path(model)
        name, folder = f"Model {str(path)!r}", path.absolute().parent
        content = _read(path)
        proto = _parse(content, name)
    else:
        raise TypeError(
            "The model must be a path, bytes or an onnx.ModelProto, but got "
            f"{type(model).__name__}. {what_to_do_with(model)}"
        )
    if not proto.graph.node:
        if not isinstance(model, onnx.ModelProto) and not proto.ir_version:
            raise ValueError(f"{name} is not an ONNX model: {what_it_is(content)}.")
        raise ValueError(f"{name} has no nodes, so there is nothing to quantize.")
    del content
    opset = _standard_opset(proto, name)
    # The runtime refuses models in which two nodes have the same name.
    name_nodes(proto.graph.node)
    external = list(external_tensors(proto))
    if not external:
        check_inference_mode(proto, name)
        return SourceModel(proto, None, opset, name)
    if folder is None:
        raise ValueError(
            f"The data of tensor {external[0].name!r} are in another file; pass the path of the "
            "model file instead of its content, or load the data first."
        )
    size = _checked_size(external, folder)
    check_inference_mode(proto, name, base_dir=folder)
    if size > in_memory_bytes:
        return SourceModel(proto, folder, opset, name)
    onnx.external_data_helper.load_external_data_for_model(proto, str(folder))
    return SourceModel(proto, None, opset, name)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"There is no model file {str(path)!r}.")
    if not path.is_file():
        raise ValueError(f"Model {str(path)!r} is not a file.")
    return path.read_bytes()


def _parse(content: bytes, name: str) -> onnx.ModelProto:
    # The class of the error depends on protobuf's implementation.
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except Exception as error:
        raise ValueError(f"{name} is not an ONNX model: {what_it_is(content)}.") from error
    return proto


def _standard_opset(proto: onnx.ModelProto, name: str) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ValueError(f"{name} does not import the standard operators.")
    if versions[0] < OLDEST_OPSET:
        raise ValueError(
            f"{name} has opset {versions[0]}, but quantization needs at least {OLDEST_OPSET}: "
            "export it again, or convert it with onnx.version_converter."
        )
    return int(versions[0])


def _checked_size(tensors: Iterable[onnx.TensorProto], folder: Path) -> int:
    total = 0
    for tensor in tensors:
        location = external_location(tensor, folder)
        size = location.path.stat().st_size
        if size < location.offset + location.length:
            with location.path.open("rb") as file:
                pointer = is_lfs_pointer(file.read(64))
            cure = (
                "It is a Git LFS pointer; run: git lfs pull"
                if pointer
                else "It is truncated, or belongs to another model: export or copy both files "
                "again"
            )
            raise ValueError(
                f"The data of tensor {tensor.name!r} are incomplete: {str(location.path)!r} has "
                f"{size} bytes, but {location.length} are needed from {location.offset} on. "
                f"{cure}."
            )
        total += location.length
    return total


@dataclass(frozen=True)
class ExternalLocation:
    """Where the data of a tensor are: ``length`` bytes from ``offset`` on in a file."""

    path: Path
    offset: int
    length: int


def external_location(tensor: onnx.TensorProto, folder: Path) -> ExternalLocation:
    """The place of a tensor's external data.

    Raises:
        FileNotFoundError:
            If the file is missing.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = folder / entries["location"]
    if not path.is_file():
        raise FileNotFoundError(
            f"The data of tensor {tensor.name!r} are missing: there is no file {str(path)!r}. "
            "The model consists of several files: put the others where it expects them, or "
            "export it again as one file."
        )
    offset = int(entries.get("offset", 0))
    if "length" in entries:
        return ExternalLocation(path, offset, int(entries["length"]))
    return ExternalLocation(path, offset, max(0, path.stat().st_size - offset))


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the data of a tensor are in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a model, in any subgraph, whose data are in other files."""
    yield from _external_in_graph(proto.graph)
    for function in proto.functions:
        yield from _external_in_nodes(function.node)


def _external_in_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from filter(is_external, graph.initializer)
    yield from _external_in_nodes(graph.node)


def _external_in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and is_external(attribute.t):
                yield attribute.t
            yield from filter(is_external, attribute.tensors)
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _external_in_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _external_in_graph(graph)
