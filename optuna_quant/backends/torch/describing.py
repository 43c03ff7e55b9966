"""What the backend tells of its program: ops, blocks, the graph, and what stays in floats."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.blocks import find_blocks
from optuna_quant.backends.torch.graph.flow import ProgramFlow
from optuna_quant.backends.torch.left_out import OpsLeftOut
from optuna_quant.backends.torch.options import find_capability
from optuna_quant.backends.torch.topic import BackendTopic


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.backends.base import GraphNode
    from optuna_quant.backends.base import MissingRange
    from optuna_quant.space.blocks import Block
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.left_out import FloatWeights
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.space.space import TuningSpace


class DescribingBackend(BackendTopic):
    """Describes the program.

    See :class:`~optuna_quant.backends.base.TellsLeftOut`,
    :class:`~optuna_quant.backends.base.TellsMissingRanges`,
    :class:`~optuna_quant.backends.base.WeighsFloats`,
    :class:`~optuna_quant.backends.base.TracesOutputs`,
    :class:`~optuna_quant.backends.base.HasBlocks`,
    :class:`~optuna_quant.backends.base.NamesSizes` and
    :class:`~optuna_quant.backends.base.HasGraph`.
    """

    sizes_are_of = "weights"  # Files have the graph as well, which is known once it is written.

    @cached_property
    def _flow(self) -> ProgramFlow:
        return ProgramFlow(self._parts.program)

    @cached_property
    def _left_out(self) -> OpsLeftOut:
        parts = self._parts
        return OpsLeftOut(parts.program, self._flow, parts.approach, parts.float_bytes)

    @cached_property
    def _capability(self) -> Capability:
        parts = self._parts
        return find_capability(
            parts.program.ops,
            parts.approach,
            calibration_sizes=parts.samples.sizes,
            has_data=parts.samples.calibration is not None,
            known_names=self._known_names(),
        )

    def _known_names(self) -> list[str]:
        """What else a user may name: the other nodes, and modules that are no ops."""
        paths = self._parts.module_paths
        containers = {path.rpartition(".")[0] for path in paths}
        return [*(node.name for node in self._flow.nodes), *sorted(paths - containers)]

    def capability(self) -> Capability:
        """What can be done with each op of the program."""
        return self._capability

    def ops_left_out(self, space: TuningSpace) -> tuple[LeftOut, ...]:
        """The ops that are not in a tuning space and might be, in the order of the program."""
        chosen = {op for tunable in space.tunables for op in tunable.ops}
        return self._left_out.find(self.capability(), chosen)

    def missing_ranges(self) -> Mapping[str, MissingRange]:
        """Why ops stay in floats in static mode, as far as models were built, by op."""
        with self._lock:
            return self._parts.missing_ranges.found

    def float_weights(self, config: QuantConfig) -> FloatWeights:
        """The weights that a configuration leaves in floats, and what would quantize them."""
        return self._left_out.float_weights(self.capability(), config)

    def outputs_behind(self, ops: Sequence[str]) -> tuple[str, ...]:
        """The outputs whose values can change when these ops are quantized."""
        return self._flow.outputs_behind(ops)

    def blocks(self) -> tuple[Block, ...]:
        """The parts of the program that repeat, such as transformer layers, by its structure.

        See :func:`~optuna_quant.backends.blocks.find_blocks`.
        """
        return find_blocks(self._flow.flow())

    def graph_nodes(self) -> tuple[GraphNode, ...]:
        """All nodes that compute tensors, producers first; the ops are among them.

        An op is called as in the tuning space, any other node as in the exported program.
        """
        return self._flow.graph_nodes()
