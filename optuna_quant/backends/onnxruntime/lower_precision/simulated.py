"""Floats of 16 bits on a provider that computes in float32, with each result rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from optuna_quant.backends.onnxruntime.lower_precision.types import FLOAT_TYPES
from optuna_quant.backends.onnxruntime.model.graph import node_attributes
from optuna_quant.backends.onnxruntime.model.graph import subgraphs
from optuna_quant.backends.onnxruntime.model.graph import take_name


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence


_FLOAT = onnx.TensorProto.FLOAT
_NAMES = {kind.data_type: f"tensor({kind.name})" for kind in FLOAT_TYPES.values()}


def with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that computes in float32 what another one computes in floats of 16 bits.

    The CPU provider has hardly any operators for bfloat16. For float16 it puts Casts around an op,
    which it then removes together with those that the model itself has there, so that nothing is
    rounded. Here each such op reads and writes float32, and a pair of Casts, which the runtime
    keeps, rounds what it writes.

    Args:
        model:
            The model. It is not changed.

    Returns:
        The model itself if no op computes in such floats.
    """
    rounding = _Rounding(model)
    if not rounding.is_needed:
        return model
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:]
    found.graph.node.extend(rounding.nodes)
    return found


class _Rounding:
    """Rewrites the nodes of a model one by one; :attr:`nodes` are the new ones."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.is_needed = False
        nodes = model.graph.node
        self._names = {name for node in nodes for name in (node.name, *node.output)}
        self._opsets = {opset.domain: opset.version for opset in model.opset_import}
        self._types = {t.name: t.data_type for t in model.graph.initializer}
        self._floats: dict[str, str] = {}
        for value in model.graph.input:
            self._types.setdefault(value.name, value.type.tensor_type.elem_type)
        for node in nodes:
            self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Cast" and not node.domain:
            self._types[node.output[0]] = int(node_attributes(node).get("to", _FLOAT))
            self.nodes.append(node)
            return
        parameters = self._parameters(node)
        if not parameters:
            self.nodes.append(node)
            return
        self.is_needed = True
        schema = self._schema(node)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name and _formal(schema.inputs, position).type_str in parameters:
                copy.input[position] = self._as_float(name)
        casts = []
        for position, name in enumerate(node.output):
            kind = parameters.get(_formal(schema.outputs, position).type_str)
            if name and kind is not None:
                copy.output[position] = self._unused(f"{name}_exact")
                self._types[name] = kind
                casts.append(self._cast(copy.output[position], name, kind))
        self.nodes += [copy, *casts]

    def _parameters(self, node: onnx.NodeProto) -> Mapping[str, int]:
        """The type parameters of an operator that are floats of 16 bits; empty if it stays."""
        known = [self._types.get(name) in _NAMES for name in node.input]
        if not any(known) or any(True for _ in subgraphs(node)):
            return {}
        try:
            schema = self._schema(node)
        except onnx.defs.SchemaError:
            return {}  # One of the runtime's own operators, which the user's model has.
        formal = [_formal(schema.inputs, i).type_str for i in range(len(node.input))]
        # An output whose type does not follow from the inputs would become float32.
        if not {each.type_str for each in schema.outputs if self._may_be_float(schema, each)} <= {
            *formal
        }:
            return {}
        return {
            formal[i]: self._types[name] for i, name in enumerate(node.input) if known[i] and name
        }

    @staticmethod
    def _may_be_float(
        schema: onnx.defs.OpSchema, formal: onnx.defs.OpSchema.FormalParameter
    ) -> bool:
        types = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
        allowed = types.get(formal.type_str, (formal.type_str,))
        return not set(_NAMES.values()).isdisjoint(allowed)

    def _schema(self, node: onnx.NodeProto) -> onnx.defs.OpSchema:
        domain = "" if node.domain == "ai.onnx" else node.domain
        return onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)

    def _as_float(self, name: str) -> str:
        """The tensor that has the values of another one in float32."""
        if name not in self._floats:
            self._floats[name] = self._unused(f"{name}_float")
            self.nodes.append(self._cast(name, self._floats[name], _FLOAT))
        return self._floats[name]

    def _cast(self, source: str, target: str, kind: int) -> onnx.NodeProto:
        return helper.make_node(
            "Cast", [source], [target], self._unused(f"{target}_rounding"), to=kind
        )

    def _unused(self, wish: str) -> str:
        return take_name(wish, self._names)


def _formal(
    formal: Sequence[onnx.defs.OpSchema.FormalParameter], position: int
) -> onnx.defs.OpSchema.FormalParameter:
    """What the schema says of a place; the last one may be that of many."""
    return formal[min(position, len(formal) - 1)]
