"""An ONNX graph as a differentiable torch function.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.onnxruntime.model.graph import tensor_array
from optuna_quant.backends.onnxruntime.torch_graph.node import Node
from optuna_quant.backends.onnxruntime.torch_graph.operators import OPERATORS
from optuna_quant.backends.onnxruntime.torch_graph.supported import STANDARD_DOMAINS
from optuna_quant.backends.onnxruntime.torch_graph.supported import UnsupportedOperatorError
from optuna_quant.backends.onnxruntime.torch_graph.supported import check_supported
from optuna_quant.backends.onnxruntime.torch_graph.supported import without_functions
from optuna_quant.backends.sensitivity.tensors import FloatType
from optuna_quant.backends.sensitivity.tensors import to_tensor


if TYPE_CHECKING:
    import onnx

    from optuna_quant.backends.onnxruntime.torch_graph.node import Handler


class TorchGraph:
    """An ONNX model in torch, on the CPU, that can be differentiated any number of times.

    Each node is run by its torch counterpart. Floats of all widths are computed in one type.
    Operators with flow of control, and those of other domains than ONNX's own, have none.

    Args:
        model:
            The model.
        weights:
            For each op (by exact node name) whose weight becomes a leaf tensor, the initializer
            that it reads. Ops that share an initializer get a leaf each.
        base_dir:
            The directory that external data are relative to.
        dtype:
            What floats are computed in, ``"float32"`` or ``"float64"``.

    Attributes:
        inputs:
            The names of the inputs that must be fed.
        outputs:
            The names of the outputs.
        leaves:
            The leaf tensor of each op in ``weights``, in that order; they require gradients.

    Raises:
        UnsupportedOperatorError:
            If the model has operators without counterpart; the message names them.
        ValueError:
            If an op or its initializer is not there, or the graph is not in order.

    Example:
        >>> graph = TorchGraph(model, weights={"fc": "fc.weight"})  # doctest: +SKIP
        >>> outputs = graph({"x": torch.zeros(1, 8)})  # doctest: +SKIP
        >>> torch.autograd.grad(outputs["y"].sum(), graph.leaves["fc"])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        weights: Mapping[str, str] | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        dtype: FloatType = "float32",
    ) -> None:
        model = without_functions(model)
        check_supported(model)
        graph = model.graph
        opset = max(o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS)
        self.dtype = torch.float64 if dtype == "float64" else torch.float32
        self._nodes = [Node(node, opset, self.dtype) for node in graph.node]
        self._handlers = [OPERATORS[node.op_type] for node in graph.node]
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = tuple(value.name for value in graph.input if value.name not in tensors)
        self.outputs = tuple(value.name for value in graph.output)
        folder = None if base_dir is None else Path(base_dir)
        used = {name for node in graph.node for name in node.input} | set(self.outputs)
        self._constants = {
            name: to_tensor(tensor_array(tensor, folder), self.dtype)
            for name, tensor in tensors.items()
            if name in used
        }
        self._weights = dict(weights or {})
        check_weights(model, self._weights)
        self.leaves = {
            op: self._constants[name].clone().requires_grad_()
            for op, name in self._weights.items()
        }

    def __call__(self, feed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model.

        Args:
            feed:
                A tensor for each input. Floats are converted; others than inputs are ignored.

        Returns:
            The outputs by name.

        Raises:
            ValueError:
                If an input is missing.
            UnsupportedOperatorError:
                If a node uses a feature of its operator that has no counterpart.
            RuntimeError:
                If a node fails; the message names it.
        """
        return self.run(feed, ())

    def run(
        self, feed: Mapping[str, torch.Tensor], tensors: Collection[str]
    ) -> dict[str, torch.Tensor]:
        """Run the model, and keep tensors inside it that can be differentiated by.

        Args:
            feed:
                A tensor for each input. Floats are converted; others than inputs are ignored.
            tensors:
                The names of the tensors. Those of floats require gradients.

        Returns:
            These tensors and the outputs, by name.

        Raises:
            ValueError:
                If an input is missing.
            UnsupportedOperatorError:
                If a node uses a feature of its operator that has no counterpart.
            RuntimeError:
                If a node fails; the message names it.
        """
        values: dict[str, torch.Tensor] = dict(self._constants)
        for name in self.inputs:
            if name not in feed:
                raise ValueError(f"There is no value for input {name!r} of the model.")
            tensor = feed[name]
            values[name] = tensor.to(self.dtype) if tensor.is_floating_point() else tensor
        wanted = set(tensors)
        for node, handler in zip(self._nodes, self._handlers, strict=True):
            self._run(node, handler, values)
            for name in wanted.intersection(node.proto.output):
                value = values[name]
                if value.is_floating_point() and not value.requires_grad:
                    value.requires_grad_()
        return {name: values[name] for name in (*tensors, *self.outputs)}

    def _run(self, node: Node, handler: Handler, values: dict[str, torch.Tensor]) -> None:
        proto = node.proto
        weight = self._weights.get(proto.name)
        inputs = [
            self.leaves[proto.name] if name and name == weight else values.get(name)
            for name in proto.input
        ]
        try:
            result = handler(node, *inputs)
        except UnsupportedOperatorError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"Node {proto.name!r} ({proto.op_type}) failed in torch: {error}"
            ) from error
        results = [result] if isinstance(result, torch.Tensor) else result
        for name, value in zip(proto.output, results, strict=False):
            if name and value is not None:
                values[name] = value


def check_weights(model: onnx.ModelProto, weights: Mapping[str, str]) -> None:
    """Check that each op is one node of the model, and reads the initializer named for it.

    Raises:
        ValueError:
            If one does not.
    """
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        nodes.setdefault(node.name, []).append(node)
    names = {tensor.name for tensor in model.graph.initializer}
    for op, weight in weights.items():
        found = nodes.get(op, [])
        if len(found) != 1:
            many = f"{len(found)} nodes have" if found else "no node has"
            raise ValueError(f"weights: {many} the name {op!r} in the model.")
        if weight not in names:
            raise ValueError(f"weights: the model has no initializer {weight!r} (op {op!r}).")
        if weight not in found[0].input:
            raise ValueError(
                f"weights: op {op!r} ({found[0].op_type}) does not read initializer {weight!r}, "
                f"but {', '.join(map(repr, found[0].input))}."
            )
