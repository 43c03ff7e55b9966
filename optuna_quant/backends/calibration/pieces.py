"""Pieces of calibration data, and content hashes of them."""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterable
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.calibration.feeds import Feed


@dataclass(frozen=True, eq=False)
class Piece:
    """A batch, or a part of one, as ``CalibrationData.pieces`` gives it.

    Args:
        feed:
            Array for each input.
        samples:
            Number of samples in ``feed``.
        reached:
            The sampling sizes that are complete once this piece has been used.
        opens_batch:
            Whether this piece is the start of a batch.
    """

    feed: Feed
    samples: int
    reached: tuple[int, ...]
    opens_batch: bool


def content_hashes(
    pieces: Callable[[Sequence[int]], Iterable[Piece]],
    sizes: Sequence[int],
    names: Sequence[str],
    constants: Mapping[str, NDArray[Any]],
    is_divisible: Callable[[Feed], bool],
) -> dict[int, str]:
    """SHA-256 hashes of the first ``size`` samples, for each size, in one pass over the data.

    Args:
        pieces:
            Cuts the data such that each size ends a piece.
        sizes:
            The sizes. One that the data do not reach gets the hash of them all.
        names:
            The inputs that the data hold.
        constants:
            The inputs that are the same for all samples.
        is_divisible:
            Whether a batch can be cut.
    """
    # What is the same in all batches counts once, however they are cut.
    digests = {name: hashlib.sha256() for name in names}
    for name, value in constants.items():
        digests[name] = hashlib.sha256(f"{value.dtype.str} {value.shape};".encode())
        digests[name].update(_content(value))
    result: dict[int, str] = {}
    rows = 0

    def summary() -> str:
        total = hashlib.sha256(str(rows).encode())
        for name, digest in digests.items():
            total.update(name.encode() + b"\0" + digest.digest())
        return total.hexdigest()

    for piece in pieces(sizes):
        of_data = {name: piece.feed[name] for name in names}
        if piece.opens_batch:
            divisible = is_divisible(of_data)
            for name, array in of_data.items():
                axes = array.shape[1:] if divisible else array.shape
                digests[name].update(f"{rows} {array.dtype.str} {axes};".encode())
            rows = 0
        rows += piece.samples
        for name, array in of_data.items():
            digests[name].update(_content(array))
        if piece.reached:
            result.update(dict.fromkeys(piece.reached, summary()))
    whole = summary()
    return {size: result.get(size, whole) for size in sizes}


def _content(array: NDArray[Any]) -> bytes | memoryview:
    if array.dtype.kind in "OUS":
        texts = [x.decode() if isinstance(x, bytes) else str(x) for x in array.ravel().tolist()]
        return json.dumps(texts).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
