"""Calibration statistics as bytes, for other processes."""

from __future__ import annotations

from collections.abc import Mapping
import io
from typing import TYPE_CHECKING
import zlib

import numpy as np

from optuna_quant._common.sealed_bytes import array_bytes
from optuna_quant._common.sealed_bytes import seal
from optuna_quant._common.sealed_bytes import unseal
from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


_MARK = b"optuna_quant statistics 2\n"


def pack(key: str, statistics: Mapping[int, CalibrationStatistics]) -> bytes:
    """The statistics for each sampling size as bytes, exact to the last bit.

    Args:
        key:
            What they were computed from, in one hash; :func:`unpack` compares it.
        statistics:
            The statistics by sampling size.
    """
    arrays: dict[str, NDArray[Any]] = {
        "key": np.frombuffer(key.encode(), dtype=np.uint8),
        "sizes": np.array(list(statistics), dtype=np.int64),
        "samples": np.array([entry.samples for entry in statistics.values()], dtype=np.int64),
    }
    for number, entry in enumerate(statistics.values()):
        for name, array in entry.to_arrays().items():
            arrays[f"{number}:{name}"] = _planes(array) if name == "counts" else array
    return seal(_MARK, zlib.compress(array_bytes(arrays), 9))


def unpack(data: bytes, key: str) -> dict[int, CalibrationStatistics]:
    """Inverse of :func:`pack`.

    Raises:
        ValueError:
            If these are no such bytes, they are damaged, or have another key.
    """
    packed = unseal(_MARK, data, what="calibration statistics")
    with np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False) as file:
        arrays = dict(file.items())
    if arrays["key"].tobytes().decode() != key:
        raise ValueError("These are the calibration statistics of another model or other data.")
    found = {}
    sizes, samples = arrays["sizes"].tolist(), arrays["samples"].tolist()
    for number, (size, seen) in enumerate(zip(sizes, samples, strict=True)):
        prefix = f"{number}:"
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        own["counts"] = _from_planes(own["counts"])
        found[size] = CalibrationStatistics.from_arrays(own, seen)
    return found


def _planes(counts: NDArray[Any]) -> NDArray[np.uint8]:
    """The first bytes of all counts, then the second ones, and so on: most of them are zero."""
    return np.ascontiguousarray(counts.astype("<i8").view(np.uint8).reshape(-1, 8).T)


def _from_planes(planes: NDArray[Any]) -> NDArray[np.int64]:
    return np.ascontiguousarray(planes.T).reshape(-1).view("<i8").astype(np.int64)
