"""Weights of a model in a file of their own, written one after the other."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import onnx


_ALIGNMENT = 1 << 12


class WeightFile:
    """Writes weights to a file; no more than one of them need be in memory.

    Args:
        path:
            The file. The model that refers to it belongs in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, name: str, array: np.ndarray) -> onnx.TensorProto:
        """Write a weight, and return the tensor that refers to it."""
        array = np.ascontiguousarray(array)
        self._file.seek(-(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT)
        offset = self._file.tell()
        self._file.write(array.data)
        tensor = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for key, value in (
            ("location", self._path.name),
            ("offset", offset),
            ("length", array.nbytes),
        ):
            tensor.external_data.add(key=key, value=str(value))
        return tensor
