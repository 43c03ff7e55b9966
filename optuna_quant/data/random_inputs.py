"""Random inputs of a model, to run it on where there are no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.inputs import InputSpec


def random_feed(specs: Sequence[InputSpec], batch: int, seed: int) -> dict[str, NDArray[Any]]:
    """Random inputs: normally distributed numbers, and integers that are zero or one.

    Args:
        specs:
            The inputs. An axis of dynamic size must be the first one of an input, or have the
            same name as such an axis.
        batch:
            The size of such axes.
        seed:
            The seed of the random numbers.

    Raises:
        ValueError:
            If an input has another axis without a size, no known number of axes, or text.
    """
    rng = np.random.default_rng(seed)
    firsts = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], str)}
    feed: dict[str, NDArray[Any]] = {}
    for spec in specs:
        cure = "give data to run the models on (calibration data, or labelled data)"
        if spec.shape is None or spec.dtype == object:
            raise ValueError(f"Random inputs cannot be made for {spec.name!r} ({spec}): {cure}.")
        shape = []
        for i, size in enumerate(spec.shape):
            if isinstance(size, int):
                shape.append(size)
            elif i == 0 or size in firsts:
                shape.append(batch)
            else:
                raise ValueError(
                    f"Random inputs cannot be made for {spec.name!r} ({spec}), whose axis {i} has "
                    f"no fixed size: {cure}."
                )
        if spec.dtype.kind == "f":
            feed[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
        else:
            feed[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
    return feed
