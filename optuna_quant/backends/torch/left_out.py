"""Why ops of a program are not in the tuning space, and what stays in floats."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.torch.graph.ops import why_unfit
from optuna_quant.space.left_out import FloatWeights
from optuna_quant.space.left_out import LeftOut


if TYPE_CHECKING:
    from optuna_quant.backends.torch.graph.flow import ProgramFlow
    from optuna_quant.backends.torch.graph.flow import ProgramNode
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.space.capability import Capability
    from optuna_quant.space.config import QuantConfig


_ALL = 'op_types="all"'
_FLOAT_BYTES = 4

# The part of all floats from which on an op of any type is told of.
_LARGE_PART = 0.01

_NOT_BY_DEFAULT: Mapping[str, str] = MappingProxyType(
    {
        "MatMul": "the product of two activations: quantizing it costs more accuracy and saves "
        "less time than a product with a weight",
        "Embedding": "a quantized table makes the model smaller, but no faster",
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
        sizes = {op.name: _nbytes(op) for op in self.program.ops}
        quantized = sum(sizes.get(name, 0) for name in config.quantized_ops)
        return FloatWeights(
            nbytes=max(0, self.float_bytes - quantized),
            model_bytes=self.float_bytes,
            left_out=self.find(capability, config.ops),
            in_fallback=sum(sizes.get(name, 0) for name in config.fallback_ops),
        )

    def _found(self, capability: Capability, chosen: Collection[str]) -> Iterator[LeftOut]:
        offered = {op.name: op.default for op in capability.ops}
        for node in self.flow.nodes:
            if node.name in chosen or node.is_folded:
                continue
            size = self._weight_bytes(node)
            if node.op is not None:
                why = self._why_not(node.op, offered.get(node.name))
                yield LeftOut(node.name, node.op_type, *why, size)
            elif (reason := why_unfit(node.node)) is not None:
                yield LeftOut(node.name, node.op_type, reason, "", size)
            elif size >= max(1.0, _LARGE_PART * self.float_bytes):
                reason = f"this backend does not quantize {node.op_type}"
                yield LeftOut(node.name, node.op_type, reason, "", size)

    def _why_not(self, op: TorchOp, default: bool | None) -> tuple[str, str]:
        if default:
            return "its op type was not asked for", ""
        if default is not None:
            return _NOT_BY_DEFAULT.get(op.op_type, "it is rarely worth quantizing"), _ALL
        also = "" if op.form.default else f", and {_ALL}"
        if not op.form.activations:
            return "only its table can be quantized", f"approach='weight_only'{also}"
        if self.approach == "weight_only":
            return "its weight is not quantized alone", f"approach='static'{also}"
        remedy = f"calibration_data with approach='static' or 'auto'{also}"
        return "only static quantization takes it", remedy

    def _weight_bytes(self, node: ProgramNode) -> int:
        if node.op is not None:
            return _nbytes(node.op)
        constants = (
            getattr(self.program.original, str(each.target), None)
            for each in node.node.all_input_nodes
            if each.op == "get_attr"
        )
        return sum(
            each.nbytes
            for each in constants
            if isinstance(each, torch.Tensor) and each.is_floating_point()
        )


def _nbytes(op: TorchOp) -> int:
    return 0 if op.shape is None else _FLOAT_BYTES * math.prod(op.shape)
