"""How well a language model predicts texts."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import numpy as np


def losses(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The negative logarithm of the probability of each token but the first.

    Args:
        logits:
            Of shape ``(batch, length, vocabulary)``.
        tokens:
            Of shape ``(batch, length)``.

    Returns:
        Of shape ``(batch, length - 1)``.
    """
    scores = logits[:, :-1]
    highest = scores.max(axis=-1, keepdims=True)
    # In place of exponentials of all in double precision, which take ten times as long.
    sums = np.exp(scores - highest).sum(axis=-1, dtype=np.float64)
    chosen = np.take_along_axis(scores, tokens[:, 1:, None], axis=-1)
    found: np.ndarray = np.log(sums) + (highest - chosen)[..., 0]
    return found


def perplexity(session: Any, texts: Sequence[np.ndarray]) -> float:
    """The perplexity of a model on texts.

    Args:
        session:
            Gives logits for the input ``tokens``.
        texts:
            Tokens of shape ``(batch, length)``.
    """
    found = [losses(session.run(["logits"], {"tokens": each})[0], each) for each in texts]
    return math.exp(np.concatenate([each.ravel() for each in found]).mean())
