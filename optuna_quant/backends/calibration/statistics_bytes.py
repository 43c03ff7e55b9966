"""Calibration statistics as bytes, for other processes."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import io
from typing import TYPE_CHECKING
import zlib

import numpy as np

from optuna_quant.backends.calibration.tensor_statistics import CalibrationStatistics


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


_MAGIC = b"optuna_quant statistics 2\n"
_DIGEST_BYTES = 32


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
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    packed = zlib.compress(file.getvalue(), 9)
    return _MAGIC + hashlib.sha256(packed).digest() + packed


def unpack(data: bytes, key: str) -> dict[int, CalibrationStatistics]:
    """Inverse of :func:`pack`.

    Raises:
        ValueError:
            If these are no such bytes, they are damaged, or have another key.
    """
    start = len(_MAGIC) + _DIGEST_BYTES
    packed = data[start:]
    if not data.startswith(_MAGIC):
        raise ValueError("These are not calibration statistics of this version of optuna_quant.")
    if hashlib.sha256(packed).digest() != data[len(_MAGIC) : start]:
        raise ValueError("The calibration statistics are damaged.")
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
