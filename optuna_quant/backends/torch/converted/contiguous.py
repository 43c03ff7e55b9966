"""The inputs of Linear layers in one piece of memory, so that their kernels are found."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.reference_ops import QUANTIZED


if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.fx import Node


_DEQUANTIZERS = (
    QUANTIZED.dequantize_per_tensor.default,
    QUANTIZED.dequantize_per_tensor.tensor,
)


def make_inputs_contiguous(graph: GraphModule) -> None:
    """Make the inputs of Linear layers contiguous where they have more than two axes.

    Otherwise PyTorch decomposes such a layer into a product of stacked matrices with copies of
    its weight. Quantized inputs are copied as integers.

    Args:
        graph:
            The program in reference form, which is changed.
    """
    for node in list(graph.graph.nodes):
        if node.target is ATEN.linear.default and _axes(node) > 2:
            source: Any = node.args[0]
            reader = source if source.target in _DEQUANTIZERS else node
            tensor: Any = reader.args[0]
            with graph.graph.inserting_before(reader):
                copy = graph.graph.call_function(ATEN.contiguous.default, (tensor,))
            reader.args = (copy, *reader.args[1:])
    graph.graph.lint()
    graph.recompile()


def _axes(node: Node) -> int:
    value = node.meta.get("val")
    return value.ndim if isinstance(value, torch.Tensor) else 0
