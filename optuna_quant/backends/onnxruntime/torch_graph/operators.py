"""Which ONNX operators have a torch counterpart, across opsets 10 and newer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from optuna_quant.backends.onnxruntime.torch_graph.elementwise import ELEMENTWISE
from optuna_quant.backends.onnxruntime.torch_graph.layers import LAYERS
from optuna_quant.backends.onnxruntime.torch_graph.node import STANDARD_DOMAINS
from optuna_quant.backends.onnxruntime.torch_graph.node import Handler
from optuna_quant.backends.onnxruntime.torch_graph.shapes import SHAPES


OPERATORS: Mapping[str, Handler] = MappingProxyType({**ELEMENTWISE, **LAYERS, **SHAPES})
"""By operator of ONNX's own domain."""


def find_handler(domain: str, op_type: str) -> Handler | None:
    """The torch counterpart of an operator; None if there is none."""
    return OPERATORS.get(op_type) if domain in STANDARD_DOMAINS else None
