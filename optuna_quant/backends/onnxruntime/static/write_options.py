"""How candidates are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How candidates are written, beside what their configurations say of single ops.

    A field for each recipe that changes it, whose default is what is done without the recipe.

    Args:
        weight_pairs:
            Whether weights stay in floats and have a pair, instead of being written as integers.
        dedicated_pairs:
            Whether each reader of a quantized activation has a pair of its own.
        float_outputs:
            The op types whose outputs are not quantized with them.
        correct_weights:
            Whether quantized weights get the means and the deviation of those in floats.
        correct_biases:
            Whether biases take back what the rounding of weights adds to the mean of an output.
    """

    weight_pairs: bool = False
    dedicated_pairs: bool = False
    float_outputs: frozenset[str] = frozenset()
    correct_weights: bool = False
    correct_biases: bool = False


AS_USUAL = WriteOptions()
"""How they are written without any recipe."""
