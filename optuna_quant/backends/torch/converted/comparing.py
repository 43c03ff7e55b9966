"""How far two models are from each other on data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.base.model import RunnableModel


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two models are from each other.

    Args:
        largest:
            The largest absolute difference of two numbers.
        relative:
            The norm of the difference over the norm of the first model's outputs.
        agreement:
            The fraction of samples whose largest score has the same place; None if the first
            output has no classes on its last axis.
    """

    largest: float
    relative: float
    agreement: float | None


def compare(first: RunnableModel, second: RunnableModel, feeds: Iterable[Feed]) -> Difference:
    """Run two models on the same inputs, such as a simulation and the converted program.

    Args:
        first:
            A model.
        second:
            Another model with the same inputs and outputs.
        feeds:
            Batches of inputs by name.

    Raises:
        ValueError:
            If there are no feeds.
    """
    largest = squared = norm = 0.0
    same = samples = batches = 0
    for feed in feeds:
        batches += 1
        pairs = list(zip(first.run(feed), second.run(feed), strict=True))
        for a, b in pairs:
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
            largest = max(largest, float(difference.max(initial=0.0)))
            squared += float(np.square(difference).sum())
            norm += float(np.square(a.astype(np.float64)).sum())
        scores, others = pairs[0]
        if scores.ndim > 1 and scores.shape[-1] > 1:
            agree = scores.argmax(-1) == others.argmax(-1)
            same, samples = same + int(agree.sum()), samples + agree.size
    if not batches:
        raise ValueError("There must be at least one batch of inputs to compare models on.")
    relative = float(np.sqrt(squared / norm)) if norm else float(squared > 0)
    return Difference(largest, relative, same / samples if samples else None)
