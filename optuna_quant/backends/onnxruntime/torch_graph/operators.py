"""The torch counterparts of ONNX operators, across opsets 10 and newer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from optuna_quant.backends.onnxruntime.torch_graph.elementwise import ELEMENTWISE
from optuna_quant.backends.onnxruntime.torch_graph.layers import LAYERS
from optuna_quant.backends.onnxruntime.torch_graph.node import Handler
from optuna_quant.backends.onnxruntime.torch_graph.shapes import SHAPES


OPERATORS: Mapping[str, Handler] = MappingProxyType({**ELEMENTWISE, **LAYERS, **SHAPES})
"""By operator of ONNX's own domain; ``supported.py`` has the same names."""
