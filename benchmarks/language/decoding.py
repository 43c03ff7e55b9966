"""One step of a decoder that takes what earlier tokens gave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.language.decoder import DecoderShape


def no_past(shape: DecoderShape) -> dict[str, np.ndarray]:
    """The inputs of a decoder beside the tokens, where there are no earlier ones."""
    return {
        f"past_{kind}.{layer}": np.zeros((1, shape.kv_heads, 0, shape.head_width), np.float32)
        for kind in ("key", "value")
        for layer in range(shape.layers)
    }


def one_token(session: Any, shape: DecoderShape, tokens: np.ndarray) -> Callable[[], object]:
    """What decodes the 65th of some tokens after the 64 before it.

    Args:
        session:
            Of a decoder with past.
        shape:
            How large it is.
        tokens:
            Of shape ``(1, length)``.
    """
    _, *seen = session.run(None, {"tokens": tokens[:, :64], **no_past(shape)})
    names = [value.name for value in session.get_outputs()][1:]
    feed = {f"past_{name}": value for name, value in zip(names, seen, strict=True)}
    return partial(session.run, ["logits"], {"tokens": tokens[:, 64:65], **feed})
