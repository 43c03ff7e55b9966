"""Samples in pieces of which tensors inside a model can be held in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.calibration.pieces import Piece


# Tensors that are looked at together may take so much; one sample is run even if it takes more.
_PIECE_BYTES = 1 << 28
_PIECE_SAMPLES = 32


def pieces_within(
    data: CalibrationData, samples: int, nbytes: Callable[[Feed], int]
) -> Iterator[Piece]:
    """Samples in pieces, such that the tensors looked at take at most 256 MiB.

    Args:
        data:
            The samples.
        samples:
            How many, from the start.
        nbytes:
            How many bytes the tensors take that are looked at, with these inputs.
    """
    probe = next(data.pieces([1]))
    size = max(nbytes(probe.feed), 1)
    step = int(np.clip(_PIECE_BYTES * probe.samples // size, 1, _PIECE_SAMPLES))
    yield from data.pieces([*range(step, samples, step), samples])
