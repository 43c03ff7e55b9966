"""A batch of a given size from the data, on which times are measured."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.calibration.pieces import Piece


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.data import CalibrationData

# So many samples tell what is typical.
_LOOKED_AT = 256


def timed_batch(data: CalibrationData, samples: int) -> Piece:
    """The first samples of the data as one batch; where there are fewer, from the start again.

    One sample alone is a typical one instead, where sizes differ, as those of texts do: that of
    median size among the first few hundred.

    Args:
        data:
            The data.
        samples:
            How many samples. One of them may come as a larger batch, where samples cannot be
            taken apart.

    Raises:
        ValueError:
            If samples cannot be put together to such a batch, or there are no data.
    """
    if samples == 1 and _may_differ(data):
        return _typical(data)
    pieces = list(data.pieces([samples]))
    if samples == 1 or (len(pieces) == 1 and pieces[0].samples == samples):
        return pieces[0]
    if not data.is_divisible(pieces[0].feed):
        raise ValueError(
            f"latency_batch_size is {samples}, but the model, its constant inputs or the "
            f"calibration data fix the batch: it is {pieces[0].samples}. Leave latency_batch_size "
            "out, or export the model with a free first axis."
        )
    names = [spec.name for spec in data.constants.varying(data.inputs)]
    feed = {}
    for name in names:
        parts = [piece.feed[name] for piece in pieces]
        shapes = sorted({part.shape[1:] for part in parts})
        if len(shapes) > 1:
            raise ValueError(
                f"latency_batch_size is {samples}, but the batches of the calibration data have "
                f"different shapes of the input {name!r}: {shapes[0]} and {shapes[1]}, behind the "
                "axis of the samples. Put a batch of that size, padded, in front."
            )
        joined = np.concatenate(parts)
        feed[name] = joined[np.arange(samples) % len(joined)]
    return Piece({**feed, **data.constants.feed(samples)}, samples, (samples,), opens_batch=True)


def _may_differ(data: CalibrationData) -> bool:
    """Whether the model leaves open how large a sample is."""
    specs = data.constants.varying(data.inputs)
    return any(
        spec.shape is None or any(not isinstance(axis, int) for axis in spec.shape[1:])
        for spec in specs
    )


def _typical(data: CalibrationData) -> Piece:
    """The sample of median size; the first where all have one size.

    Where samples cannot be taken apart, the batch whose samples are of that size.
    """
    names = [spec.name for spec in data.constants.varying(data.inputs)]
    sizes = []
    for number, piece in enumerate(data.pieces([_LOOKED_AT])):
        size = sum(piece.feed[name].size for name in names) // piece.samples
        sizes += [(size, number)] * piece.samples
    ordered = sorted(sizes)  # Of samples of one size, the first.
    median, _ = ordered[(len(ordered) - 1) // 2]
    chosen = next(number for size, number in sizes if size == median)
    piece = next(itertools.islice(data.pieces([_LOOKED_AT]), chosen, None))
    alone = next(data.one_by_one(piece), None)
    if alone is None:
        return piece
    return Piece(alone, 1, (1,), opens_batch=piece.opens_batch)
