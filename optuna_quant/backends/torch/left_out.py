"""Why ops of a program are not in the tuning space, and what stays in floats."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.torch.graph.nested import nested_ops
from optuna_quant.backends.torch.graph.ops import why_unfit
from optuna_quant.space.left_out import FloatWeights
from optuna_quant.space.left_out import LeftOut


if TYPE_CHECKING:
    from optuna_quant.backends.torch.graph.flow import ProgramFlow
    from optuna_quant.backends.torch.graph.flow import ProgramNode
    from optuna_quant.backends.torch.graph.nested import NestedOp
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig


_ALL = 'op_types="all"'

# The part of all floats from which on an op of any type is told of.
_LARGE_PART = 0.01

_TABLES = ("Embedding", "EmbeddingBag")
_NOT_BY_DEFAULT: Mapping[str, str] = MappingProxyType(
    {
        "MatMul": "the product of two activations: quantizing it costs more accuracy and saves "
        "less time than a product with a weight",
        **dict.fromkeys(_TABLES, "a quantized table makes the model smaller, but no faster"),
    }
)


@dataclass(frozen=True, eq=False)
class OpsLeftOut:
    """Finds the ops that a tuning space leaves out.

    Args:
        program:
            The program.
        flow:
            Its nodes.
        approach:
            The approach to quantization.
        float_bytes:
            The size of all tensors of the program in floats.
    """

    program: SwitchedProgram
    flow: ProgramFlow
    approach: str
    float_bytes: int

    def find(self, capability: Capability, chosen: Collection[str]) -> tuple[LeftOut, ...]:
        """The ops that could be quantized in principle, or have large weights.

        Args:
            capability:
                What can be done with ops.
            chosen:
                The ops of the tuning space.
        """
        return tuple(self._found(capability, chosen))

    def float_weights(self, capability: Capability, config: QuantConfig) -> FloatWeights:
        """The weights that a configuration leaves in floats, and what would quantize them."""
        in_fallback = set(config.fallback_ops)
        others = {node.owner for node in self.flow.nodes}.difference(config.ops)
        return FloatWeights(
            nbytes=self._constant_bytes(in_fallback | others),
            model_bytes=self.float_bytes,
            left_out=self.find(capability, config.ops),
            in_fallback=self._constant_bytes(in_fallback),
        )

    def _found(self, capability: Capability, chosen: Collection[str]) -> Iterator[LeftOut]:
        offered = {op.name: op.default for op in capability.ops}
        for node in self.flow.nodes:
            if node.name in chosen or node.is_folded:
                continue
            size = self._constant_bytes({node.owner})
            if node.op is not None:
                why = self._why_not(node.op, offered.get(node.name))
                yield LeftOut(node.name, node.op_type, *why, size)
            elif (reason := why_unfit(node.node)) is not None:
                yield LeftOut(node.name, node.op_type, reason, "", size)
            elif inside := nested_ops(self.program, node.node):
                yield from self._inside(node, inside)
            elif size >= max(1.0, _LARGE_PART * self.float_bytes):
                reason = f"this backend does not quantize {node.op_type}"
                yield LeftOut(node.name, node.op_type, reason, "", size)

    def _inside(self, node: ProgramNode, ops: Iterable[NestedOp]) -> Iterator[LeftOut]:
        """What a node runs, such as one of two branches, is no part of the graph of ops."""
        taken = {each.name for each in self.flow.nodes}
        reason = f"it is computed inside torch.{node.op_type}, where ops are not switched"
        for op in ops:
            name = f"{node.name}.{op.name}" if op.name in taken else op.name
            yield LeftOut(name, op.op_type, reason, "", op.nbytes)

    def _why_not(self, op: TorchOp, default: bool | None) -> tuple[str, str]:
        if default:
            return "its op type was not asked for", ""
        if default is not None:
            remedy = f'op_types=["default", "{op.op_type}"]' if op.op_type in _TABLES else _ALL
            return _NOT_BY_DEFAULT.get(op.op_type, "it is rarely worth quantizing"), remedy
        also = "" if op.form.default else f", and {_ALL}"
        if not op.form.activations:
            return "only its table can be quantized", f"approach='weight_only'{also}"
        if self.approach == "weight_only":
            reason = "its weight is not quantized alone"
            if op.form.weight is None:
                reason = "it has no weight"
            return reason, f"approach='static'{also}"
        if self.approach in ("auto", "qat"):
            return "only static quantization takes it", f"calibration_data{also}"
        remedy = f"calibration_data with approach='static' or 'auto'{also}"
        return "only static quantization takes it", remedy

    def _constant_bytes(self, owners: Collection[str]) -> int:
        """The bytes of the floats of ops, with those of batch normalizations that they fold."""
        found = {
            id(each): each.nbytes for name in owners for each in self._constants.get(name, ())
        }
        return sum(found.values())

    @cached_property
    def _constants(self) -> Mapping[str, list[torch.Tensor]]:
        """The constant tensors of floats of each op or other node, by name."""
        found: dict[str, list[torch.Tensor]] = {}
        for node in self.flow.nodes:
            for each in node.node.all_input_nodes:
                if each.op != "get_attr":
                    continue
                tensor = getattr(self.program.original, str(each.target))
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    found.setdefault(node.owner, []).append(tensor)
        return found
