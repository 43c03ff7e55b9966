"""Small ONNX models for tests."""

from __future__ import annotations

from collections import Counter
import contextlib
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import onnxruntime as ort
import pytest

from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray


FLOAT = onnx.TensorProto.FLOAT


class Maker:
    """Makes a model node by node.

    Nodes are named after their op type and their number among those of that type, ``Conv0``; their
    outputs have the same name with ``_out`` behind it.
    """

    def __init__(self, opset: int = 17, seed: int = 0, ir_version: int = 8) -> None:
        self.opset = opset
        self.ir_version = ir_version
        self.rng = np.random.default_rng(seed)
        self.inputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._numbers: Counter[str] = Counter()

    def input(self, name: str, shape: Sequence[int | str | None], dtype: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def const(self, array: Any, name: str | None = None) -> str:
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, scale: float = 0.5, name: str | None = None) -> str:
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32), name)

    def node(
        self,
        op_type: str,
        inputs: Sequence[str],
        *,
        outputs: Sequence[str] | None = None,
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        own = f"{op_type}{self._numbers[op_type]}"
        self._numbers[op_type] += 1
        outputs = [f"{own}_out"] if outputs is None else outputs
        name = own if name is None else name
        self.nodes.append(
            helper.make_node(op_type, inputs, outputs, name, domain=domain, **attributes)
        )
        return outputs[0]

    def conv(
        self,
        x: str,
        channels_in: int,
        channels_out: int,
        *,
        kernel: Sequence[int] = (3, 3),
        bias: bool = True,
        group: int = 1,
        **attributes: Any,
    ) -> str:
        inputs = [x, self.weight(channels_out, channels_in // group, *kernel)]
        if bias:
            inputs.append(self.weight(channels_out))
        return self.node("Conv", inputs, group=group, **attributes)

    def model(self, outputs: Sequence[str] | Mapping[str, int]) -> onnx.ModelProto:
        types = outputs if hasattr(outputs, "items") else dict.fromkeys(outputs, FLOAT)
        graph = helper.make_graph(
            self.nodes,
            "graph",
            self.inputs,
            [helper.make_tensor_value_info(name, dtype, None) for name, dtype in types.items()],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)


def convnet(opset: int = 17, seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Conv, Relu, Flatten, Gemm: input ``x`` of (N, 2, 8, 8)."""
    m = Maker(opset, seed)
    x = m.input("x", ["N", 2, 8, 8])
    h = m.node("Relu", [m.conv(x, 2, 4)])
    h = m.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2])
    h = m.node("Relu", [m.conv(h, 4, 6, kernel=(2, 2))])
    h = m.node("Flatten", [h])
    y = m.node("Gemm", [h, m.weight(24, 5), m.weight(5)])
    return m.model([y])


def residual(seed: int = 0) -> onnx.ModelProto:
    """A convolution block with a shortcut, and one behind it: input ``x`` of (N, 3, 6, 6)."""
    m = Maker(seed=seed)
    x = m.input("x", ["N", 3, 6, 6])
    stem = m.node("Relu", [m.conv(x, 3, 4, kernel=(1, 1))])
    h = m.node("Relu", [m.conv(stem, 4, 4, kernel=(1, 1))])
    h = m.conv(h, 4, 4, kernel=(1, 1))
    h = m.node("Relu", [m.node("Add", [h, stem])])
    y = m.node("GlobalAveragePool", [m.conv(h, 4, 4, kernel=(1, 1))])
    return m.model([y])


def attention(seed: int = 0, heads: int = 2, width: int = 8) -> onnx.ModelProto:
    """Self-attention with a dynamic batch and sequence: input ``x`` of (N, L, 8)."""
    m = Maker(seed=seed)
    x = m.input("x", ["N", "L", width])
    split = m.const(np.array([0, 0, heads, width // heads], dtype=np.int64))
    join = m.const(np.array([0, 0, width], dtype=np.int64))

    def project(name: str, perm: Sequence[int]) -> str:
        h = m.node("MatMul", [x, m.weight(width, width)], name=name)
        h = m.node("Add", [h, m.weight(width)])
        return m.node("Transpose", [m.node("Reshape", [h, split])], perm=perm)

    query = project("query", [0, 2, 1, 3])
    key = project("key", [0, 2, 3, 1])
    value = project("value", [0, 2, 1, 3])
    scores = m.node("Mul", [m.node("MatMul", [query, key]), m.const(np.float32(0.5))])
    h = m.node("MatMul", [m.node("Softmax", [scores], axis=-1), value])
    h = m.node("Reshape", [m.node("Transpose", [h], perm=[0, 2, 1, 3]), join])
    y = m.node("MatMul", [h, m.weight(width, width)], name="out")
    return m.model([y])


def fused_attention(seed: int = 0, heads: int = 2, width: int = 8) -> onnx.ModelProto:
    """The runtime's own embedding and attention layers: ``ids`` of (N, L), int32, below 20."""
    m = Maker(seed=seed)
    ids = m.input("ids", ["N", "L"], onnx.TensorProto.INT32)
    tables = [m.weight(20, width, name="words"), m.weight(12, width, name="positions")]
    norm = [m.const(np.ones(width, np.float32)), m.weight(width)]
    h = m.node(
        "EmbedLayerNormalization",
        [ids, "", *tables, "", *norm],
        outputs=["embedded", "mask"],
        domain="com.microsoft",
    )
    weight, bias = m.weight(width, 3 * width), m.weight(3 * width)
    for _ in range(2):
        h = m.node("Attention", [h, weight, bias], domain="com.microsoft", num_heads=heads)
    y = m.node("MatMul", [h, m.weight(width, 3)])
    return m.model([y])


def samples(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exact_options() -> ort.SessionOptions:
    """Session options with which optimized graphs compute the same on every processor.

    Sums of products of unsigned and signed 8-bit numbers saturate on x86 processors without VNNI
    instructions; with these options the runtime makes weights unsigned. It does so from the
    extended level of optimization on.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Have the backend compute with :func:`exact_options` where a test cannot give it options.

    For tests of whole searches, whose figures would be others where products saturate.
    """
    given = SessionMaker.__init__

    def with_exact_options(
        self: SessionMaker, providers: Any, options: ort.SessionOptions | None, **others: Any
    ) -> None:
        given(self, providers, exact_options() if options is None else options, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SessionMaker, "__init__", with_exact_options)
        yield


def run(
    model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]], *, optimized: bool = True
) -> list[NDArray[Any]]:
    """The outputs of a model, with the runtime's graph optimizations or without.

    They saturate on no processor, see :func:`exact_options`, but for integer operators in the
    model itself where there are no optimizations.
    """
    options = exact_options()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feed)))
