"""Bytes for other processes that say what they are, and whether they are damaged."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import io

import numpy as np
import numpy.typing as npt


_DIGEST_BYTES = 32


def array_bytes(arrays: Mapping[str, npt.ArrayLike], *, compressed: bool = False) -> bytes:
    """Arrays as the bytes of an ``.npz`` file, which :func:`numpy.load` reads.

    Args:
        arrays:
            The arrays, by name.
        compressed:
            Whether to compress each.
    """
    file = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(file, allow_pickle=False, **arrays)
    return file.getvalue()


def seal(mark: bytes, content: bytes) -> bytes:
    """Put a mark and a digest before some bytes.

    Args:
        mark:
            What kind and version they are of.
        content:
            The bytes.
    """
    return mark + hashlib.sha256(content).digest() + content


def unseal(mark: bytes, data: bytes, *, what: str) -> bytes:
    """The bytes that :func:`seal` was given.

    Args:
        mark:
            The mark that they must have.
        data:
            What it has made of them.
        what:
            What the bytes are, in the plural, for the messages.

    Raises:
        ValueError:
            If they have another mark, or are damaged.
    """
    start = len(mark) + _DIGEST_BYTES
    content = data[start:]
    if not data.startswith(mark):
        raise ValueError(f"These are not {what} of this version of optuna_quant.")
    if hashlib.sha256(content).digest() != data[len(mark) : start]:
        raise ValueError(f"The {what} are damaged.")
    return content
