"""Writing models whose data are, or must be, in another file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO
import uuid

import onnx

from optuna_quant.backends.onnxruntime.model import external_location
from optuna_quant.backends.onnxruntime.model import external_tensors


LARGEST_MESSAGE = 2**31 - 2**20
"""The most bytes that one model file holds, with some room left."""

# Tensors smaller than this stay in the model file; others begin at a page of memory.
_SMALL_BYTES = 1 << 10
_ALIGNMENT = 1 << 12
_CHUNK = 1 << 24


def is_too_large(proto: onnx.ModelProto) -> bool:
    """Whether a model, without its external data, is larger than one file can be."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > LARGEST_MESSAGE


def total_bytes(proto: onnx.ModelProto, base_dir: Path | None) -> int:
    """The size of a model in bytes, external data included."""
    size = int(proto.ByteSize())
    if base_dir is not None:
        size += sum(external_location(t, base_dir).length for t in external_tensors(proto))
    return size


def save_model(
    proto: onnx.ModelProto,
    path: Path,
    base_dir: Path | None,
    *,
    largest: int = LARGEST_MESSAGE,
) -> None:
    """Write a model to a file, and its data to a second one if the first would be too large.

    Args:
        proto:
            The model. Not changed.
        path:
            The file. The second has ``.data`` behind its name. Both are written aside and moved
            into place.
        base_dir:
            The directory that the model's external data are relative to.
        largest:
            The most bytes of the first file.
    """
    if not is_too_large(proto) and total_bytes(proto, base_dir) <= largest:
        whole = proto
        if base_dir is not None:
            whole = onnx.ModelProto()
            whole.CopyFrom(proto)
            onnx.external_data_helper.load_external_data_for_model(whole, str(base_dir))
        aside = _aside(path)
        try:
            aside.write_bytes(whole.SerializeToString())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
        return
    split = onnx.ModelProto()
    split.CopyFrom(proto)
    data_path = path.with_name(f"{path.name}.data")
    aside, data_aside = _aside(path), _aside(data_path)
    try:
        with data_aside.open("xb") as file:
            for tensor in list(external_tensors(split)):
                _move_out(tensor, base_dir, file, data_path.name)
            for tensor in split.graph.initializer:
                if len(tensor.raw_data) >= _SMALL_BYTES:
                    _move_out(tensor, None, file, data_path.name)
        aside.write_bytes(split.SerializeToString())
        os.replace(data_aside, data_path)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
        data_aside.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _move_out(
    tensor: onnx.TensorProto, base_dir: Path | None, file: BinaryIO, location: str
) -> None:
    """Append the data of a tensor to a file and refer to them there."""
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    offset = file.tell()
    if base_dir is None:
        file.write(tensor.raw_data)
    else:
        place = external_location(tensor, base_dir)
        with place.path.open("rb") as source:
            source.seek(place.offset)
            left = place.length
            while left > 0 and (chunk := source.read(min(left, _CHUNK))):
                file.write(chunk)
                left -= len(chunk)
    length = file.tell() - offset
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
