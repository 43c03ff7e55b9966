"""Torch counterparts of ONNX operators that work value by value, or reduce axes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from functools import partial
from functools import reduce
from types import MappingProxyType

import torch
from torch.nn import functional as F

from optuna_quant.backends.onnxruntime.torch_graph.node import Handler
from optuna_quant.backends.onnxruntime.torch_graph.node import Node


def _plain(function: Callable[..., torch.Tensor]) -> Handler:
    """A handler of a function that needs the inputs only."""
    return lambda node, *inputs: function(*inputs)


def _pairwise(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Handler:
    """A handler for any number of inputs."""
    return lambda node, *inputs: reduce(function, inputs)


def _mean(node: Node, *inputs: torch.Tensor) -> torch.Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def _div(node: Node, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(node: Node, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _pow(node: Node, base: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    if exponent.dim() == 0 and not exponent.requires_grad:
        # Of a number torch knows when the derivatives are constant.
        return torch.pow(base, exponent.item()).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


def _clip(
    node: Node,
    x: torch.Tensor,
    low: torch.Tensor | None = None,
    high: torch.Tensor | None = None,
) -> torch.Tensor:
    if node.opset < 11:
        low, high = (
            None if node.get(name) is None else torch.tensor(node.get(name), dtype=x.dtype)
            for name in ("min", "max")
        )
    return x if low is None and high is None else torch.clamp(x, low, high)


def _hard_sigmoid(node: Node, x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0.0, 1.0)


def _hard_swish(node: Node, x: torch.Tensor) -> torch.Tensor:
    return x * torch.clamp(x / 6.0 + 0.5, 0.0, 1.0)


def _prelu(node: Node, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, slope * x, x)


def _elu(node: Node, x: torch.Tensor) -> torch.Tensor:
    return F.elu(x, node.get("alpha", 1.0))


def _selu(node: Node, x: torch.Tensor) -> torch.Tensor:
    gamma: float = node.get("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, node.get("alpha", 1.67326319217681884765625))


def _celu(node: Node, x: torch.Tensor) -> torch.Tensor:
    return F.celu(x, node.get("alpha", 1.0))


def _leaky_relu(node: Node, x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


def _thresholded_relu(node: Node, x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, 0.0)


def _gelu(node: Node, x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate=node.get("approximate", "none"))


def _swish(node: Node, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.0) * x)


def _softmax(
    function: Callable[[torch.Tensor, int], torch.Tensor], node: Node, x: torch.Tensor
) -> torch.Tensor:
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    # Older ones take all axes from the given one on together.
    axis = node.get("axis", 1)
    return function(x.flatten(axis), axis).reshape(x.shape)


def _cast(node: Node, x: torch.Tensor) -> torch.Tensor:
    return x.to(node.torch_dtype(node.get("to")))


def _cumsum(node: Node, x: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    dim = int(axis.item())
    if node.get("reverse", 0):
        x = x.flip(dim)
    total = x.cumsum(dim, dtype=x.dtype)
    if node.get("exclusive", 0):
        total = total - x
    return total.flip(dim) if node.get("reverse", 0) else total


def _extreme(function: Callable[..., torch.Tensor], node: Node, x: torch.Tensor) -> torch.Tensor:
    if node.get("select_last_index", 0):
        raise node.unsupported("with select_last_index=1")
    return function(x, dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


def _reduce(
    function: Callable[[torch.Tensor, list[int], bool], torch.Tensor],
    node: Node,
    x: torch.Tensor,
    given: torch.Tensor | None = None,
) -> torch.Tensor:
    axes = node.axes(given, x.dim())
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    return function(x, axes or list(range(x.dim())), bool(node.get("keepdims", 1)))


def _prod(x: torch.Tensor, axes: list[int], keepdim: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keepdim, dtype=x.dtype)
    return x


def _sum(x: torch.Tensor, axes: list[int], keepdim: bool) -> torch.Tensor:
    return torch.sum(x, axes, keepdim=keepdim, dtype=x.dtype)


def _l2(x: torch.Tensor, axes: list[int], keepdim: bool) -> torch.Tensor:
    return torch.sqrt(_sum(x * x, axes, keepdim))


ELEMENTWISE: Mapping[str, Handler] = MappingProxyType(
    {
        "Abs": _plain(torch.abs),
        "Acos": _plain(torch.acos),
        "Add": _plain(torch.add),
        "And": _plain(torch.logical_and),
        "ArgMax": partial(_extreme, torch.argmax),
        "ArgMin": partial(_extreme, torch.argmin),
        "Asin": _plain(torch.asin),
        "Atan": _plain(torch.atan),
        "Cast": _cast,
        "CastLike": lambda node, x, like: x.to(like.dtype),
        "Ceil": _plain(torch.ceil),
        "Celu": _celu,
        "Clip": _clip,
        "Cos": _plain(torch.cos),
        "Cosh": _plain(torch.cosh),
        "CumSum": _cumsum,
        "Div": _div,
        "Elu": _elu,
        "Equal": _plain(torch.eq),
        "Erf": _plain(torch.erf),
        "Exp": _plain(torch.exp),
        "Floor": _plain(torch.floor),
        "Gelu": _gelu,
        "Greater": _plain(torch.gt),
        "GreaterOrEqual": _plain(torch.ge),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _hard_swish,
        "IsNaN": _plain(torch.isnan),
        "LeakyRelu": _leaky_relu,
        "Less": _plain(torch.lt),
        "LessOrEqual": _plain(torch.le),
        "Log": _plain(torch.log),
        "LogSoftmax": partial(_softmax, torch.log_softmax),
        "Max": _pairwise(torch.maximum),
        "Mean": _mean,
        "Min": _pairwise(torch.minimum),
        "Mish": _plain(F.mish),
        "Mod": _mod,
        "Mul": _plain(torch.mul),
        "Neg": _plain(torch.neg),
        "Not": _plain(torch.logical_not),
        "Or": _plain(torch.logical_or),
        "PRelu": _prelu,
        "Pow": _pow,
        "Reciprocal": _plain(torch.reciprocal),
        "ReduceL1": partial(_reduce, lambda x, axes, keep: _sum(x.abs(), axes, keep)),
        "ReduceL2": partial(_reduce, _l2),
        "ReduceLogSum": partial(_reduce, lambda x, axes, keep: _sum(x, axes, keep).log()),
        "ReduceLogSumExp": partial(_reduce, torch.logsumexp),
        "ReduceMax": partial(_reduce, torch.amax),
        "ReduceMean": partial(_reduce, torch.mean),
        "ReduceMin": partial(_reduce, torch.amin),
        "ReduceProd": partial(_reduce, _prod),
        "ReduceSum": partial(_reduce, _sum),
        "ReduceSumSquare": partial(_reduce, lambda x, axes, keep: _sum(x * x, axes, keep)),
        "Relu": _plain(torch.relu),
        "Round": _plain(torch.round),
        "Selu": _selu,
        "Sigmoid": _plain(torch.sigmoid),
        "Sign": _plain(torch.sign),
        "Sin": _plain(torch.sin),
        "Sinh": _plain(torch.sinh),
        "Softmax": partial(_softmax, torch.softmax),
        "Softplus": _plain(F.softplus),
        "Softsign": _plain(F.softsign),
        "Sqrt": _plain(torch.sqrt),
        "Sub": _plain(torch.sub),
        "Sum": _pairwise(torch.add),
        "Swish": _swish,
        "Tan": _plain(torch.tan),
        "Tanh": _plain(torch.tanh),
        "ThresholdedRelu": _thresholded_relu,
        "Where": _plain(torch.where),
        "Xor": _plain(torch.logical_xor),
    }
)
"""By operator."""
