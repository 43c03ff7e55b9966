"""How candidates are written."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How candidates are written, beside what their configurations say of single ops.

    A field for each recipe that changes it, whose default is what is done without the recipe; and
    what the target asks for.

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
        for_cpu:
            Whether the runtime's CPU provider makes integer kernels of what is written.
        integer_biases:
            Whether biases are integers on the grid of the products; otherwise they stay in floats.
    """

    weight_pairs: bool = False
    dedicated_pairs: bool = False
    float_outputs: frozenset[str] = frozenset()
    correct_weights: bool = False
    correct_biases: bool = False
    for_cpu: bool = True
    integer_biases: bool = True

    def for_target(self, target: WriteOptions) -> WriteOptions:
        """These options with what a target asks for.

        Args:
            target:
                What it asks for.
        """
        return replace(
            self,
            weight_pairs=self.weight_pairs or target.weight_pairs,
            for_cpu=target.for_cpu,
            integer_biases=target.integer_biases,
        )


AS_USUAL = WriteOptions()
"""How they are written without any recipe."""
