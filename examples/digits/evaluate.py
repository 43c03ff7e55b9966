"""Top-1 accuracy of a digits model on ``eval.npz``, the evaluation half of the data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import onnxruntime


BATCH_SIZE = 128


def accuracy(session: onnxruntime.InferenceSession) -> float:
    """Classify the evaluation samples.

    Args:
        session: A model with input ``x``, float32 ``[N, 1, 8, 8]`` in [0, 1], and output
            ``logits``, float32 ``[N, 10]``.

    Returns:
        The share of samples that are classified as labelled, between 0 and 1.
    """
    x, y = _samples()
    correct = 0
    for start in range(0, len(y), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        (logits,) = session.run(["logits"], {"x": x[batch]})
        correct += int(np.count_nonzero(logits.argmax(axis=1) == y[batch]))
    return correct / len(y)


@cache
def _samples() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the images ``[N, 1, 8, 8]`` and labels ``[N]``, once a process."""
    with np.load(Path(__file__).with_name("eval.npz")) as data:
        return data["x"], data["y"]
