"""Weight-only quantization: products and lookups with weights of a few bits, in groups.

A ``MatMul`` or a ``Gemm`` becomes a ``MatMulNBits``, a ``Gather`` from a table a
``GatherBlockQuantized``, both of them ONNX Runtime's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np
from onnx import helper

from optuna_quant.backends.onnxruntime.dynamic.rewrite import CONTRIB
from optuna_quant.backends.onnxruntime.dynamic.rewrite import gemm_bias
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.weight_only.packing import PackedWeight


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    import onnx

    from optuna_quant.backends.onnxruntime.dynamic.rewrite import Rewrite
    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp

Chosen: TypeAlias = "Mapping[str, tuple[WeightOnlyOp, PackedWeight, int | None]]"
"""Of each op, by its name: what it is, its weight, and its accuracy level."""


def apply_weight_only(
    rewrite: Rewrite, model: onnx.ModelProto, chosen: Chosen
) -> dict[str, bytes]:
    """Rewrite ops so that they read quantized weights, in place.

    The node that does an op's work keeps the op's name, and its result keeps its name; all other
    nodes stay as they are. Weights that nothing reads any more are removed.

    Args:
        rewrite:
            The rewrite of the model.
        model:
            The model.
        chosen:
            The ops.

    Returns:
        The hashes of new initializers that are known, by name.
    """
    writer = _Writer(rewrite)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name in chosen:
            op, weight, level = chosen[node.name]
            rewrite.replace_weight(op.weight)
            write = writer.table if op.is_table else writer.product
            nodes += write(node, op, weight, level)
        else:
            nodes.append(node)
    rewrite.commit(nodes)
    return writer.digests


class _Writer:
    def __init__(self, rewrite: Rewrite) -> None:
        self._rewrite = rewrite
        self._stored: dict[tuple[int, str, float], str] = {}
        self.digests: dict[str, bytes] = {}

    def table(
        self, node: onnx.NodeProto, op: WeightOnlyOp, weight: PackedWeight, level: int | None
    ) -> list[onnx.NodeProto]:
        names = [self._store(op, weight, part) for part in weight.arrays]
        inputs = [names[0], node.input[1], *names[1:]]
        return [
            helper.make_node(
                "GatherBlockQuantized",
                inputs,
                node.output,
                node.name,
                domain=CONTRIB,
                bits=weight.bits,
                block_size=weight.block_size,
                gather_axis=0,
                quantize_axis=1,
            )
        ]

    def product(
        self, node: onnx.NodeProto, op: WeightOnlyOp, weight: PackedWeight, level: int | None
    ) -> list[onnx.NodeProto]:
        rewrite, attributes = self._rewrite, node_attributes(node)
        nodes: list[onnx.NodeProto] = []
        activation = node.input[0]
        if op.op_type == "Gemm" and attributes.get("transA", 0):
            turned = rewrite.name(f"{node.name}_A")
            nodes.append(rewrite.node("Transpose", node, "transA", [activation], [turned]))
            activation = turned
        if weight.input_scale is not None:
            scale = self._store(op, weight, "input_scale")
            scaled = rewrite.name(f"{node.name}_scaled")
            nodes.append(rewrite.node("Mul", node, "input_scale", [activation, scale], [scaled]))
            activation = scaled
        alpha = float(attributes.get("alpha", 1.0)) if op.op_type == "Gemm" else 1.0
        zero_points = weight.zero_points is not None
        inputs = [
            activation,
            self._store(op, weight, "codes"),
            self._store(op, weight, "scales", alpha),
            self._store(op, weight, "zero_points") if zero_points else "",
        ]
        bias = None
        if op.op_type == "Gemm":
            beta = float(attributes.get("beta", 1.0))
            bias = gemm_bias(rewrite, node, beta, op.outputs, nodes)
        added = None
        if bias is not None and rewrite.shape_of(bias) == (op.outputs,):
            inputs += ["", bias]
        elif bias is not None:
            added = bias
        while not inputs[-1]:
            inputs.pop()
        result = rewrite.name(f"{node.name}_product") if added else node.output[0]
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                inputs,
                [result],
                node.name,
                domain=CONTRIB,
                K=op.inputs,
                N=op.outputs,
                bits=weight.bits,
                block_size=weight.block_size,
                accuracy_level=level or 0,
            )
        )
        if added:
            nodes.append(rewrite.node("Add", node, "bias", [result, added], node.output))
        return nodes

    def _store(
        self, op: WeightOnlyOp, weight: PackedWeight, part: str, factor: float = 1.0
    ) -> str:
        """An array of a weight; ops that have one weight in one option share it."""
        key = (id(weight), part, factor)
        if key not in self._stored:
            array: NDArray[Any] = weight.arrays[part]
            name = self._rewrite.constant(
                f"{op.weight}_{part}", array if factor == 1.0 else array * np.float32(factor)
            )
            self._stored[key] = name
            if factor == 1.0:
                self.digests[name] = weight.digests[part]
        return self._stored[key]
