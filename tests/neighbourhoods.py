"""Models in which one operator stands in all the neighbourhoods that exporters write.

A model has many branches from one input: an op, a tail (a bias, an activation function, a
residual, a Transpose, ...) and an end (an output of the model, another op, or both).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TypeAlias

import numpy as np
import onnx
from onnx_models import Maker


class Branch(Maker):
    """A maker that knows the shape of the tensors in its branches.

    Args:
        shape:
            The shape of the input and of almost all other tensors, as it is declared.
        opset:
            The opset.
    """

    def __init__(self, shape: Sequence[int | str], opset: int) -> None:
        super().__init__(opset, ir_version=8 if opset < 21 else 10)
        self.declared = shape
        sizes = {"n": WIDTH if len(shape) == 2 else 2, "length": WIDTH}  # matrices are square
        self.shape = tuple(n if isinstance(n, int) else sizes[n] for n in shape)
        self.rank = len(shape)
        self.is_image = shape[-1] == SIDE
        self.outputs: list[str] = []

    def scalar(self, value: float) -> str:
        return self.const(np.array(value, np.float32))

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def row(self, scale: float = 0.5) -> str:
        """A value for each channel, as a bias has it."""
        return self.weight(*((WIDTH, 1, 1) if self.is_image else (WIDTH,)), scale=scale)

    def turn(self, y: str) -> str:
        """Exchange the last two axes."""
        axes = list(range(self.rank))
        return self.node("Transpose", [y], perm=[*axes[:-2], axes[-1], axes[-2]])

    def mean(self, y: str, axes: Sequence[int], keepdims: int) -> str:
        if self.opset < 18:
            return self.node("ReduceMean", [y], axes=axes, keepdims=keepdims)
        return self.node("ReduceMean", [y, self.ints(*axes)], keepdims=keepdims)

    def clip(self, y: str, low: float, high: float) -> str:
        if self.opset < 11:
            return self.node("Clip", [y], min=low, max=high)
        return self.node("Clip", [y, self.scalar(low), self.scalar(high)])

    def fork(self, y: str) -> str:
        """The same tensor, which something else reads too."""
        self.outputs.append(self.node("Tanh", [y]))
        return y


WIDTH, SIDE = 8, 6

Op: TypeAlias = Callable[[Branch, str], str]
Tail: TypeAlias = Callable[[Branch, str, str], str]
"""Makes what is behind an op, of the op's input and of its output."""


# Ops.


def _matmul(b: Branch, x: str) -> str:
    return b.node("MatMul", [x, b.weight(b.shape[-1], b.shape[-1])])


def _matmul_left(b: Branch, x: str) -> str:
    return b.node("MatMul", [b.weight(b.shape[-2], b.shape[-2]), x])


def _matmul_activations(b: Branch, x: str) -> str:
    square = b.node("MatMul", [b.turn(x), x])
    return b.node("MatMul", [b.node("Tanh", [x]), b.node("Tanh", [square])])


def _matmul_behind_shapes(b: Branch, x: str) -> str:
    """What it reads has a shape that is computed from shapes."""
    shape = b.node("Shape", [x])
    sizes = [b.node("Gather", [shape, b.ints(i)], axis=0) for i in range(1, b.rank)]
    flat = b.node("Reshape", [x, b.node("Concat", [b.ints(-1), *sizes[-1:]], axis=0)])
    return _matmul(b, b.node("Reshape", [flat, b.node("Concat", [b.ints(-1), *sizes], axis=0)]))


def _matmul_behind_casts(b: Branch, x: str) -> str:
    """What it reads has a shape that only the runtime finds out, if anybody does."""
    floats = b.node("Cast", [b.node("Shape", [x])], to=onnx.TensorProto.FLOAT)
    shape = b.node("Cast", [floats], to=onnx.TensorProto.INT64)
    return _matmul(b, b.node("Reshape", [x, shape]))


def _gemm(b: Branch, x: str) -> str:
    return b.node("Gemm", [x, b.weight(WIDTH, WIDTH), b.weight(WIDTH)])


def _gemm_without_bias(b: Branch, x: str) -> str:
    if b.opset < 11:
        return _gemm(b, x)
    return b.node("Gemm", [x, b.weight(WIDTH, WIDTH)])


def _gemm_turned(b: Branch, x: str) -> str:
    inputs = [x, b.weight(WIDTH, WIDTH), b.weight(1, WIDTH)]
    return b.node("Gemm", inputs, transB=1, alpha=0.5, beta=2.0)


def _conv(b: Branch, x: str) -> str:
    return b.conv(x, WIDTH, WIDTH, pads=[1] * 4)


def _conv_without_bias(b: Branch, x: str) -> str:
    return b.conv(x, WIDTH, WIDTH, pads=[1] * 4, bias=False)


def _depthwise(b: Branch, x: str) -> str:
    return b.conv(x, WIDTH, WIDTH, pads=[1] * 4, group=WIDTH)


def _halved(b: Branch, y: str) -> str:
    """The second half and the next elements of the last axis, twice as long as others."""
    size = b.shape[-1]
    return b.node("Slice", [y, b.ints(size // 2), b.ints(size // 2 + size), b.ints(-1)])


def _concat(b: Branch, x: str) -> str:
    parts = [x, b.node("Tanh", [x])]
    return _halved(b, b.node("Concat", parts, axis=b.rank - 1))


def _where(b: Branch, x: str, other: str) -> str:
    return b.node("Where", [b.node("Greater", [x, b.scalar(0)]), x, other])


def _computed(b: Branch, x: str, ids: np.ndarray) -> str:
    """Indices that depend on a sample: what depends on constants alone is computed beforehand."""
    zero = b.node("Greater", [b.node("ReduceMax", [x], keepdims=0), b.scalar(1e9)])
    return b.node("Add", [b.const(ids), b.node("Cast", [zero], to=onnx.TensorProto.INT64)])


def _gather(b: Branch, x: str) -> str:
    ids = _computed(b, x, np.arange(np.prod(b.shape[:-1])).reshape(b.shape[:-1]) % 5)
    return b.node("Add", [x, b.node("Gather", [b.weight(5, b.shape[-1]), ids])])


def _gather_elements(b: Branch, x: str) -> str:
    ids = _computed(b, x, np.arange(np.prod(b.shape)).reshape(b.shape) % 2)
    return b.node("Add", [x, b.node("GatherElements", [b.weight(*b.shape), ids])])


def _arg_max(b: Branch, x: str) -> str:
    found = b.node("ArgMax", [x], axis=b.rank - 1)
    return b.node("Mul", [x, b.node("Cast", [found], to=onnx.TensorProto.FLOAT)])


def _pool(op_type: str, **attributes: object) -> Op:
    def make(b: Branch, x: str) -> str:
        return b.node("Mul", [x, b.node(op_type, [x], **attributes)])

    return make


PRODUCTS: Mapping[str, Op] = {
    "MatMul": _matmul,
    "MatMul, weight on the left": _matmul_left,
    "MatMul of activations": _matmul_activations,
    "MatMul behind computed shapes": _matmul_behind_shapes,
    "MatMul behind unknown shapes": _matmul_behind_casts,
    "Gemm": _gemm,
    "Gemm without a bias": _gemm_without_bias,
    "Gemm with factors": _gemm_turned,
    "Conv": _conv,
    "Conv without a bias": _conv_without_bias,
    "depthwise Conv": _depthwise,
}

OTHERS: Mapping[str, Op] = {
    "Add": lambda b, x: b.node("Add", [x, b.node("Tanh", [x])]),
    "Add, constant": lambda b, x: b.node("Add", [b.row(), x]),
    "Add, itself": lambda b, x: b.node("Add", [x, x]),
    "ArgMax": _arg_max,
    "AveragePool": _pool("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GlobalAveragePool": _pool("GlobalAveragePool"),
    "LeakyRelu": lambda b, x: b.node("LeakyRelu", [x], alpha=0.1),
    "Mul": lambda b, x: b.node("Mul", [x, b.node("Tanh", [x])]),
    "Mul, constant": lambda b, x: b.node("Mul", [x, b.row()]),
    "Sigmoid": lambda b, x: b.node("Sigmoid", [x]),
    "Softmax": lambda b, x: b.node("Softmax", [x], axis=b.rank - 1),
    "Where": lambda b, x: _where(b, x, b.node("Tanh", [x])),
    "Where, constant": lambda b, x: _where(b, x, b.scalar(-0.5)),
}


# Tails.


def _bias(b: Branch, x: str, y: str) -> str:
    return b.node("Add", [y, b.row()])


def _computed_row(b: Branch, x: str) -> str:
    if b.is_image:
        return b.mean(x, [0, 2, 3], 1)
    return b.mean(x, range(b.rank - 1), 0)


def _flat_and_back(b: Branch, y: str) -> str:
    flat = b.node("Reshape", [y, b.ints(0, -1)])
    return b.node("Reshape", [flat, b.ints(-1, *b.shape[1:])])


def _layer_norm(b: Branch, y: str) -> str:
    scale, shift = b.const(np.ones(b.shape[-1], np.float32)), b.weight(b.shape[-1])
    if b.opset >= 17:
        return b.node("LayerNormalization", [y, scale, shift], axis=-1)
    centred = b.node("Sub", [y, b.mean(y, [b.rank - 1], 1)])
    square = b.mean(b.node("Pow", [centred, b.scalar(2)]), [b.rank - 1], 1)
    deviation = b.node("Sqrt", [b.node("Add", [square, b.scalar(1e-5)])])
    return b.node("Add", [b.node("Mul", [b.node("Div", [centred, deviation]), scale]), shift])


def _batch_norm(b: Branch, x: str, y: str) -> str:
    if not b.is_image:
        return b.node("Add", [b.node("Mul", [y, b.row()]), b.row()])
    ones = b.const(np.ones(WIDTH, np.float32))
    return b.node("BatchNormalization", [y, ones, b.weight(WIDTH), b.weight(WIDTH), ones])


def _softmax(b: Branch, y: str) -> str:
    return b.node("Softmax", [y], axis=b.rank - 1)


def _split(b: Branch, y: str) -> str:
    number = len(b.nodes)
    halves = [f"first_{number}", f"second_{number}"]
    attributes = {} if b.opset < 18 else {"num_outputs": 2}
    b.node("Split", [y], outputs=halves, axis=b.rank - 1, **attributes)
    return b.node("Concat", halves[::-1], axis=b.rank - 1)


def _gelu(b: Branch, y: str) -> str:
    erf = b.node("Erf", [b.node("Div", [y, b.scalar(2**0.5)])])
    product = b.node("Mul", [y, b.node("Add", [erf, b.scalar(1)])])
    return b.node("Mul", [product, b.scalar(0.5)])


def _hard_swish(b: Branch, y: str) -> str:
    gate = b.clip(b.node("Add", [y, b.scalar(3)]), 0.0, 6.0)
    return b.node("Mul", [y, b.node("Div", [gate, b.scalar(6)])])


_FUNCTIONS: Mapping[str, Callable[[Branch, str], str]] = {
    "Relu": lambda b, y: b.node("Relu", [y]),
    "Clip from 0 on": lambda b, y: b.clip(y, 0.0, 6.0),
    "Clip": lambda b, y: b.clip(y, -1.0, 1.0),
    "Relu, Clip": lambda b, y: b.clip(b.node("Relu", [y]), 0.0, 2.0),
    "Tanh": lambda b, y: b.node("Tanh", [y]),
    "Sigmoid": lambda b, y: b.node("Sigmoid", [y]),
    "LeakyRelu": lambda b, y: b.node("LeakyRelu", [y], alpha=0.1),
    "Elu": lambda b, y: b.node("Elu", [y]),
    "Gelu": _gelu,
    "HardSwish": _hard_swish,
    "SiLU": lambda b, y: b.node("Mul", [y, b.node("Sigmoid", [y])]),
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "Transpose": Branch.turn,
    "Transpose, Transpose": lambda b, y: b.turn(b.turn(y)),
    "Reshape, Reshape": _flat_and_back,
    "Split": _split,
    "other reader": Branch.fork,
    "other reader, Reshape": lambda b, y: _flat_and_back(b, b.fork(y)),
    "other reader, Transpose, Transpose": lambda b, y: b.turn(b.turn(b.fork(y))),
}


def _behind_bias(function: Callable[[Branch, str], str]) -> Tail:
    return lambda b, x, y: function(b, _bias(b, x, y))


def _alone(function: Callable[[Branch, str], str]) -> Tail:
    return lambda b, x, y: function(b, y)


TAILS: Mapping[str, Tail] = {
    "nothing": lambda b, x, y: y,
    "bias": _bias,
    "bias, swapped": lambda b, x, y: b.node("Add", [b.row(), y]),
    "bias, of rank 2": lambda b, x, y: b.node(
        "Add", [y, b.weight(1, WIDTH if not b.is_image else 1)]
    ),
    "bias, scalar": lambda b, x, y: b.node("Add", [y, b.scalar(0.3)]),
    "bias, one value": lambda b, x, y: b.node("Add", [b.weight(1), y]),
    "bias, computed": lambda b, x, y: b.node("Add", [y, _computed_row(b, x)]),
    "bias, large": lambda b, x, y: b.node("Add", [y, b.row(scale=30.0)]),
    "bias, bias": lambda b, x, y: _bias(b, x, _bias(b, x, y)),
    "residual": lambda b, x, y: b.node("Add", [y, x]),
    "residual, swapped": lambda b, x, y: b.node("Add", [x, y]),
    "residual, Sum": lambda b, x, y: b.node("Sum", [y, x]),
    "twice": lambda b, x, y: b.node("Add", [y, y]),
    "bias, residual": lambda b, x, y: b.node("Add", [_bias(b, x, y), x]),
    "bias, residual, norm": lambda b, x, y: _layer_norm(b, b.node("Add", [x, _bias(b, x, y)])),
    "Mul": lambda b, x, y: b.node("Mul", [y, b.scalar(0.7)]),
    "Mul, bias": lambda b, x, y: _bias(b, x, b.node("Mul", [y, b.row()])),
    "Mul by one, bias": lambda b, x, y: _bias(b, x, b.node("Mul", [y, b.scalar(1)])),
    "Add of zero, bias": lambda b, x, y: _bias(b, x, b.node("Add", [b.scalar(0), y])),
    "Cast, bias": lambda b, x, y: _bias(b, x, b.node("Cast", [y], to=onnx.TensorProto.FLOAT)),
    "BatchNormalization": _batch_norm,
    "Identity": lambda b, x, y: b.node("Identity", [y]),
    "Identity, bias": lambda b, x, y: _bias(b, x, b.node("Identity", [y])),
    "Dropout, bias": lambda b, x, y: _bias(b, x, b.node("Dropout", [y])),
    "Identity, Transpose": lambda b, x, y: b.turn(b.node("Identity", [y])),
    "other reader, bias": lambda b, x, y: _bias(b, x, b.fork(y)),
    **{name: _alone(function) for name, function in _FUNCTIONS.items()},
    **{f"bias, {name}": _behind_bias(function) for name, function in _FUNCTIONS.items()},
}

SOME_TAILS = (
    *("nothing", "bias", "bias, of rank 2", "bias, computed", "residual", "bias, residual"),
    *("Identity", "bias, Relu", "bias, Clip", "bias, Gelu", "bias, Tanh", "bias, Transpose"),
    *("other reader, Transpose, Transpose", "bias, LayerNormalization"),
)

ENDS = ("output", "op", "both", "op and function")


@dataclass(frozen=True)
class Neighbourhoods:
    """A model and where its nodes are.

    Args:
        model:
            The model, with the input ``x``.
        shape:
            A shape of ``x``.
        places:
            The branch of each node, by name.
    """

    model: onnx.ModelProto
    shape: tuple[int, ...]
    places: dict[str, str] = field(default_factory=dict)


def neighbourhoods(
    op: Op,
    shape: Sequence[int | str],
    *,
    opset: int = 17,
    tails: Iterable[str] = TAILS,
    ends: Sequence[str] = ENDS,
    turn: int | None = None,
    before: Op | None = None,
    behind: Op | None = None,
) -> Neighbourhoods:
    """A model of branches.

    Args:
        op:
            The op.
        shape:
            The shape of the input.
        opset:
            The opset.
        tails:
            What is behind the op.
        ends:
            What is behind that.
        turn:
            Which of the ends the first tail has; the next one then has the next, and so on. Every
            tail has all of them if it is :obj:`None`.
        before:
            What is before the op; the input of the model by default.
        behind:
            The other op at the end; of the same kind by default.
    """
    b = Branch(shape, opset)
    given = b.input("x", shape)
    places: dict[str, str] = {}
    for number, tail in enumerate(tails):
        for end in ends if turn is None else [ends[(turn + number) % len(ends)]]:
            x = given if before is None else before(b, given)
            result = TAILS[tail](b, x, op(b, x))
            if end in ("output", "both"):
                b.outputs.append(result)
            if end == "op and function":
                b.outputs.append(b.node("Tanh", [result]))
            if end != "output":
                b.outputs.append((behind or op)(b, result))
            for node in b.nodes[len(places) :]:
                places[node.name] = f"{tail} / {end}: {node.name}"
    return Neighbourhoods(b.model(list(dict.fromkeys(b.outputs))), b.shape, places)
