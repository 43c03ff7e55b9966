"""Why ops are not in the tuning space."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx

from optuna_quant.backends.onnxruntime.dynamic.fused import lacking_kernel
from optuna_quant.backends.onnxruntime.dynamic.ops import OLDEST_OPSET
from optuna_quant.backends.onnxruntime.dynamic.ops import dynamic_rule
from optuna_quant.backends.onnxruntime.model.constant_folding import QUANTIZING
from optuna_quant.backends.onnxruntime.model.constant_folding import RANDOM
from optuna_quant.backends.onnxruntime.model.float_constants import FLOAT_TYPES
from optuna_quant.backends.onnxruntime.model.float_constants import float_constants
from optuna_quant.backends.onnxruntime.model.float_constants import graph_constants
from optuna_quant.backends.onnxruntime.model.float_constants import total_float_bytes
from optuna_quant.backends.onnxruntime.model.graph import subgraphs
from optuna_quant.backends.onnxruntime.model.op_tables import DYNAMIC_RULES
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.backends.onnxruntime.targets.table import CPU
from optuna_quant.backends.onnxruntime.weight_only.ops import OP_TYPES
from optuna_quant.backends.onnxruntime.weight_only.ops import lacking_weight_only
from optuna_quant.space.left_out import LeftOut


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.static.ops import StaticOp
    from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
    from optuna_quant.space.capability import OpCapability


# The weights and biases of op types, by position, and what each is called.
_CONSTANTS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "Attention": {1: "weight"},
        "Conv": {1: "weight", 2: "bias"},
        "ConvTranspose": {1: "weight", 2: "bias"},
        "EmbedLayerNormalization": dict.fromkeys((2, 3, 4, 5, 6), "weight"),
        "Gather": {0: "table"},
        "GatherElements": {0: "table"},
        "Gemm": {1: "weight", 2: "bias"},
        "LSTM": {1: "weight", 2: "weight"},
    }
)
# What reads the shape of a tensor alone.
_OF_SHAPES = frozenset({"Shape", "Size"})
_ONLY_WITH_DYNAMIC = frozenset({"LSTM"})

# The part of all floating-point constants from which on an op of any type is told of.
_LARGE_PART = 0.01

EXPORT = "export the model in float32"
"""What to do about another floating-point type."""

_ALL = 'op_types="all" or --op-types all'
_AUTO = 'approach="auto" or --approach auto'

_TABLES = ("Gather", "GatherElements")
_NOT_BY_DEFAULT: Mapping[str, str] = MappingProxyType(
    {
        "MatMulActivations": "the product of two activations: quantizing it costs more accuracy "
        "and saves less time than a product with a weight",
        **dict.fromkeys(_TABLES, "a quantized table makes the model smaller, but no faster"),
    }
)


@dataclass(frozen=True)
class Reason:
    """Why an op is left out, and what to do about it."""

    text: str
    remedy: str = ""


def find_left_out(
    graph: Graph,
    static: Mapping[str, StaticOp],
    approach: str,
    offered: Mapping[str, OpCapability],
    chosen: Collection[str],
    *,
    profile: TargetProfile = CPU,
) -> tuple[LeftOut, ...]:
    """The ops that could be quantized in principle, or have large weights, and are left out.

    Args:
        graph:
            The graph.
        static:
            The ops that can be quantized statically, by name.
        approach:
            The approach.
        offered:
            What can be done with ops under this approach, by name.
        chosen:
            The ops of the tuning space.
        profile:
            What the target runs.
    """
    return tuple(_Search(graph, static, approach, offered, chosen, profile).find())


def nonfinite_reason(node: onnx.NodeProto, graph: Graph) -> Reason | None:
    """Which weight of a node holds NaN or infinite values; None if none does."""
    positions = _CONSTANTS.get(node.op_type) or ({0: "", 1: ""} if _is_product(node) else {})
    for position in positions:
        name = node.input[position] if position < len(node.input) else ""
        if graph.is_constant(name) and graph.is_float(name) and not graph.is_finite(name):
            return _nonfinite(name, positions[position] or "weight", graph)
    return None


def _nonfinite(name: str, what: str, graph: Graph) -> Reason:
    values = graph.array(name)
    bad = int(values.size - np.isfinite(values).sum())
    count = f"{bad} of {values.size} values"
    return Reason(f"its {what} {name!r} has {count} that are NaN or infinite", "fix the weight")


def _is_product(node: onnx.NodeProto) -> bool:
    return node.op_type == "MatMul" and node.domain in ("", "ai.onnx")


class _Search:
    def __init__(
        self,
        graph: Graph,
        static: Mapping[str, StaticOp],
        approach: str,
        offered: Mapping[str, OpCapability],
        chosen: Collection[str],
        profile: TargetProfile,
    ) -> None:
        self._graph = graph
        self._profile = profile
        self._static = static
        self._approach = approach
        self._offered = offered
        self._chosen = chosen

    @cached_property
    def _large(self) -> float:
        return _LARGE_PART * total_float_bytes(self._graph.nodes, self._graph)

    def find(self) -> Iterator[LeftOut]:
        for node in self._graph.nodes:
            if node.name not in self._chosen:
                size = sum(float_constants(node, self._graph).values())
                if any(True for _ in subgraphs(node)):
                    yield from self._inside(node, f"the {node.op_type} {node.name!r}")
                elif _is_known(node) and not self._is_of_integers(node):
                    reason = self._reason(node)
                    yield LeftOut(node.name, self._type(node), reason.text, reason.remedy, size)
                elif size and size >= self._large and node.op_type not in QUANTIZING:
                    yield LeftOut(node.name, node.op_type, _no_kernel(node), "", size)

    def _inside(self, outer: onnx.NodeProto, where: str) -> Iterator[LeftOut]:
        for graph in subgraphs(outer):
            sizes = graph_constants(graph)
            for node in graph.node:
                if is_worth_quantizing(node.op_type):
                    size = sum(sizes.get(name, 0) for name in node.input)
                    if not size:
                        size = sum(float_constants(node, self._graph).values())
                    reason = f"it is inside {where}, which stays as it is"
                    yield LeftOut(node.name, node.op_type, reason, "", size)
                yield from self._inside(node, where)

    def _type(self, node: onnx.NodeProto) -> str:
        op = self._static.get(node.name)
        return op.op_type if op is not None else str(node.op_type)

    def _is_of_integers(self, node: onnx.NodeProto) -> bool:
        """Whether it handles shapes, indices or conditions."""
        position = 1 if node.op_type == "Where" else 0
        if node.op_type == "EmbedLayerNormalization":
            return False
        dtype = self._graph.dtypes.get(node.input[position])
        return dtype is not None and dtype not in FLOAT_TYPES

    def _reason(self, node: onnx.NodeProto) -> Reason:
        graph = self._graph
        op = self._static.get(node.name)
        rule = dynamic_rule(node, graph) if self._profile.dynamic else None
        offered = self._offered.get(node.name)
        if op is None and offered is None and self._lacks(node):
            return Reason(f"the target {self._profile.name!r} does not run it on integers")
        if offered is None and self._approach == "weight_only":
            return self._no_weight_only(node)
        if offered is None and (op is not None or rule is not None):
            return self._other_approach(node, op)
        if offered is not None:
            # A product whose weight is not known as one passes for that of two activations.
            computed = self._constant_behind(node) if offered.op_type.endswith("tions") else None
            return computed or self._not_chosen(node, offered)
        return self._unfit(node)

    def _lacks(self, node: onnx.NodeProto) -> bool:
        """Whether the target has no form for ops of a type that the CPU takes."""
        types = {node.op_type, f"{node.op_type}Activations"}
        return not self._profile.is_cpu and not types & self._profile.op_types

    def _no_weight_only(self, node: onnx.NodeProto) -> Reason:
        if node.op_type in OP_TYPES and (nonfinite := nonfinite_reason(node, self._graph)):
            return nonfinite
        lacking = lacking_weight_only(node, self._graph)
        if node.op_type not in OP_TYPES and node.name in self._static:
            return Reason(f"{lacking}", 'approach="static" or --approach static')
        return Reason(lacking or "it is not offered")

    def _other_approach(self, node: onnx.NodeProto, op: StaticOp | None) -> Reason:
        named = "" if op is None or op.rule.default else f" and {_ALL}"
        if op is None:
            rule = dynamic_rule(node, self._graph)
            named = "" if rule is not None and rule.default else f" and {_ALL}"
            return Reason("only dynamic quantization takes it", _AUTO + named)
        return Reason("only static quantization takes it", f"{_AUTO} with calibration data{named}")

    def _not_chosen(self, node: onnx.NodeProto, offered: OpCapability) -> Reason:
        if offered.default:
            return Reason("its op type was not asked for")
        modes = {option.mode for option in offered.options if option.is_quantized}
        rule = STATIC_RULES.get(offered.op_type)
        remedy = _ALL
        if offered.op_type in _NOT_BY_DEFAULT:
            text = _NOT_BY_DEFAULT[offered.op_type]
            if offered.op_type in _TABLES:  # Without all that only costs accuracy.
                name = offered.op_type
                remedy = f'op_types=["default", "{name}"] or --op-types default,{name}'
        elif modes == {"dynamic"}:
            text = "quantized dynamically it is slower than in FP32"
        elif rule is not None and not rule.kernel:
            text = (
                "it has no integer kernel: it would compute in floating point on quantized values"
            )
        else:
            text = "it is rarely worth quantizing"
        return Reason(text, remedy)

    # Ops that nothing takes.

    def _unfit(self, node: onnx.NodeProto) -> Reason:
        for position, what in self._constants(node).items():
            name = node.input[position] if position < len(node.input) else ""
            reason = self._no_weight(name, what) if name else None
            if reason is not None:
                return reason
        computed = self._constant_behind(node)
        if computed is not None:
            return computed
        for name in node.input[:2] if _is_product(node) else node.input[:1]:
            dtype = self._graph.dtypes.get(name)
            if dtype is not None and dtype != onnx.TensorProto.FLOAT and dtype in FLOAT_TYPES:
                return Reason(f"it computes in {_shown(dtype)}", EXPORT)
        if node.op_type in _ONLY_WITH_DYNAMIC and self._graph.opset < OLDEST_OPSET:
            return Reason(
                f"dynamic quantization needs opset {OLDEST_OPSET}, the model has "
                f"{self._graph.opset}",
                "export it again, or convert it with onnx.version_converter",
            )
        if node.op_type == "Resize":
            return Reason("it only passes values on, as the op before it produces them")
        lacking = lacking_kernel(node)
        if lacking:
            return Reason(f"ONNX Runtime has no quantized kernel for this form of it: {lacking}")
        if all(self._graph.is_constant(name) for name in node.input if name):
            return Reason("it depends on constants alone")
        for name in filter(None, node.input):
            if self._graph.dtypes.get(name) is None:
                return Reason(f"the type of its input {name!r} is not known")
        return Reason("ONNX Runtime has no integer kernel for it in this form")

    def _constants(self, node: onnx.NodeProto) -> Mapping[int, str]:
        if _is_product(node):
            known = [i for i, name in enumerate(node.input) if self._graph.is_constant(name)]
            return dict.fromkeys(known, "weight")
        return _CONSTANTS.get(node.op_type, {})

    def _constant_behind(self, node: onnx.NodeProto) -> Reason | None:
        """Why an operand that does not depend on the model's inputs is no weight."""
        for name in node.input if _is_product(node) else ():
            if name not in self._graph.initializers and not self._origins(name)[0]:
                return self._no_weight(name, "weight")
        return None

    def _no_weight(self, name: str, what: str) -> Reason | None:
        """Why a tensor is no weight; None if it is one."""
        graph = self._graph
        if name in graph.initializers:
            if name in graph.inputs:
                text = f"its {what} {name!r} is an input of the model that callers may replace"
                return Reason(text, "remove it from the list of inputs")
            dtype = graph.initializers[name].data_type
            if dtype != onnx.TensorProto.FLOAT:
                return Reason(f"its {what} {name!r} is {_shown(dtype)}", EXPORT)
            return None if graph.is_finite(name) else _nonfinite(name, what, graph)
        if name in graph.inputs:
            return Reason(f"its {what} is the input {name!r}")
        inputs, makers = self._origins(name)
        given = [each for each in inputs if each not in graph.initializers]
        if given:
            return Reason(f"its {what} is computed from the input {given[0]!r}")
        shapes = [each for each in self._origins(name, shapes=True)[0] if each not in inputs]
        if shapes:
            return Reason(f"its {what} is computed from the shape of the input {shapes[0]!r}")
        if inputs:
            text = f"its {what} is computed from {inputs[0]!r}, an input that callers may replace"
            return Reason(text, "remove it from the list of inputs")
        for node in makers:
            maker = f"the {node.op_type} {node.name!r}"
            if any(True for _ in subgraphs(node)):
                return Reason(f"its {what} comes out of {maker}")
            if node.op_type in RANDOM:
                return Reason(f"its {what} comes out of {maker}, and differs each time")
            if node.op_type in QUANTIZING:
                return Reason(
                    f"its {what} is already quantized: it comes out of {maker}",
                    "give the FP32 model",
                )
            if node.domain not in ("", "ai.onnx"):
                return Reason(
                    f"its {what} comes out of {maker}, which is not a standard operator",
                    "compute it before export",
                )
        return Reason(
            f"its {what} is computed from constants, but too large to store",
            "compute it before export",
        )

    def _origins(
        self, name: str, *, shapes: bool = False
    ) -> tuple[list[str], list[onnx.NodeProto]]:
        """The inputs that a tensor depends on, and the nodes on the way, the nearest first.

        Inputs of which only the shape is read are among them only if ``shapes``.
        """
        graph = self._graph
        inputs: list[str] = []
        makers: list[onnx.NodeProto] = []
        seen = {name}
        waiting = [name]
        for tensor in waiting:
            index = graph.producer.get(tensor)
            if index is None:
                if tensor in graph.inputs:
                    inputs.append(tensor)
                continue
            makers.append(graph.nodes[index])
            if graph.nodes[index].op_type in _OF_SHAPES and not shapes:
                continue
            read = {*graph.nodes[index].input, *graph.captures.get(index, ())} - seen - {""}
            seen |= read
            waiting += sorted(read)
        return inputs, makers


def is_worth_quantizing(op_type: str) -> bool:
    """Whether ops of a type are worth quantizing."""
    static = STATIC_RULES.get(op_type)
    dynamic = (rule for (_, known), rule in DYNAMIC_RULES.items() if known == op_type)
    return (static is not None and static.default) or any(rule.default for rule in dynamic)


def _is_known(node: onnx.NodeProto) -> bool:
    """Whether there are ops of its type that can be quantized."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule = STATIC_RULES.get(node.op_type)
    is_static = rule is not None and not domain and not rule.layer
    return bool(node.input) and (is_static or (domain, node.op_type) in DYNAMIC_RULES)


def _no_kernel(node: onnx.NodeProto) -> str:
    return f"ONNX Runtime has no quantized {node.op_type}"


def _shown(dtype: int) -> str:
    return str(onnx.TensorProto.DataType.Name(dtype)).lower()
