"""Writing models whose data are, or must be, in another file."""

from __future__ import annotations

import math
from pathlib import Path

import onnx

from optuna_quant._common.atomic_files import AsideFile
from optuna_quant._common.atomic_files import aside
from optuna_quant._common.atomic_files import locked_directory
from optuna_quant._common.atomic_files import remove_left_over
from optuna_quant.backends.onnxruntime.model.model import external_location
from optuna_quant.backends.onnxruntime.model.model import external_tensors
from optuna_quant.backends.onnxruntime.model.tensor_references import ITEM_BYTES
from optuna_quant.backends.onnxruntime.model.tensor_references import is_reference


LARGEST_MESSAGE = 2**31 - 2**20
"""The most bytes that one model file holds, with some room left."""

# Tensors smaller than this stay in the model file; others begin at a page of memory.
_SMALL_BYTES = 1 << 10
_ALIGNMENT = 1 << 12
_CHUNK = 1 << 24


def is_too_large(proto: onnx.ModelProto) -> bool:
    """Whether a model, without its external data, is larger than one file can be."""
    return sum(map(_raw_bytes, proto.graph.initializer)) > LARGEST_MESSAGE


def total_bytes(proto: onnx.ModelProto, base_dir: Path | None) -> int:
    """The size of a model in bytes, external data included."""
    return int(proto.ByteSize()) + external_bytes(proto, base_dir)


def external_bytes(proto: onnx.ModelProto, base_dir: Path | None) -> int:
    """The size in bytes of the data of a model that are in files."""
    if base_dir is None:
        return 0
    tensors = (tensor for tensor in external_tensors(proto) if not is_reference(tensor))
    return sum(external_location(tensor, base_dir).length for tensor in tensors)


def _raw_bytes(tensor: onnx.TensorProto) -> int:
    if not tensor.HasField("raw_data"):
        return 0
    item = ITEM_BYTES.get(tensor.data_type)
    # Reading the data would copy them.
    return len(tensor.raw_data) if item is None else item * math.prod(tensor.dims)


def save_model(
    proto: onnx.ModelProto,
    path: Path,
    base_dir: Path | None,
    *,
    largest: int = LARGEST_MESSAGE,
) -> None:
    """Write a model to a file, and its data to a second one if the first would be too large.

    Whatever ends the process, and the power too, ``path`` is afterwards the model that was there
    or the new one as a whole: each file is written aside and on the disk before it is moved into
    place, the one with the data first. That one is named by its content, so that a model never
    finds the data of another one. What earlier calls left beside it is removed.

    Args:
        proto:
            The model. Not changed.
        path:
            The file. The second has its name with a hash and ``.data`` behind it.
        base_dir:
            The directory that the model's external data are relative to.
        largest:
            The most bytes of the first file.

    Raises:
        OSError:
            If it cannot be written. Then what was there is still there.
    """
    if not is_too_large(proto) and total_bytes(proto, base_dir) <= largest:
        whole = proto
        if base_dir is not None:
            whole = onnx.ModelProto()
            whole.CopyFrom(proto)
            onnx.external_data_helper.load_external_data_for_model(whole, str(base_dir))
        _put_in_place(whole, path, data_path=None)
        return
    split = onnx.ModelProto()
    split.CopyFrom(proto)
    # Held until the model is in place: its data are no leftovers of a process that has died.
    with aside(path) as data:
        moved = [_write_data(tensor, base_dir, data) for tensor in external_tensors(split)]
        moved += [
            _write_data(tensor, None, data)
            for tensor in split.graph.initializer
            if len(tensor.raw_data) >= _SMALL_BYTES
        ]
        data_path = path.with_name(f"{path.name}.{data.digest()}.data")
        for tensor, offset, length in moved:
            _refer(tensor, data_path.name, offset, length)
        data.move_to(data_path)
        _put_in_place(split, path, data_path=data_path)


def _put_in_place(proto: onnx.ModelProto, path: Path, *, data_path: Path | None) -> None:
    with aside(path) as file:
        file.write(proto.SerializeToString())
        # Of two processes that write the same model neither may remove what the other one needs.
        with locked_directory(path.parent):
            file.move_to(path)
            remove_left_over(path, keep=data_path)


def _write_data(
    tensor: onnx.TensorProto, base_dir: Path | None, file: AsideFile
) -> tuple[onnx.TensorProto, int, int]:
    """Append the data of a tensor to a file; return it with their place there."""
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
    return tensor, offset, file.tell() - offset


def _refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor refer to its data in a file."""
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
