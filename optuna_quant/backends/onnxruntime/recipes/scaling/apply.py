"""Dividing the tensors of a group by a factor per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.recipes.scaling.edits import GraphEdits
    from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroup


def divide(edits: GraphEdits, group: ScaleGroup, factors: NDArray[np.float64]) -> None:
    """Divide the tensors of a group by factors, and let their readers make up for it.

    Args:
        edits:
            Takes the changes.
        group:
            The group.
        factors:
            A factor above zero for each channel, of shape ``(channels,)``.
    """
    for source in group.sources:
        layout = source.layout
        weight = edits.constant(source.index, layout.position)
        edits.replace(source.index, layout.position, layout.scaled_outputs(weight, 1 / factors))
        if layout.bias is not None:
            bias = edits.constant(source.index, layout.bias)
            edits.replace(source.index, layout.bias, bias / factors)
    for constant in group.constants:
        array = edits.constant(constant.index, constant.position)
        by_place = np.repeat(factors, constant.repeat).reshape(-1, *[1] * (-constant.axis - 1))
        scaled = array * by_place if constant.inverse else array / by_place
        edits.replace(constant.index, constant.position, scaled)
    for reader in group.readers:
        layout = reader.layout
        weight = edits.constant(reader.index, layout.position)
        by_input = np.repeat(factors, reader.repeat)
        edits.replace(reader.index, layout.position, layout.scaled_inputs(weight, by_input))
