"""Torch counterparts of ONNX's products, convolutions, poolings and normalizations."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
import math
from types import MappingProxyType

import torch
from torch.nn import functional as F

from optuna_quant.backends.onnxruntime.torch_graph.node import Handler
from optuna_quant.backends.onnxruntime.torch_graph.node import Node
from optuna_quant.backends.onnxruntime.torch_graph.node import Result


_Pads = list[tuple[int, int]]

_CONVOLUTIONS = MappingProxyType({1: F.conv1d, 2: F.conv2d, 3: F.conv3d})
_TRANSPOSED = MappingProxyType(
    {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
)
_MAX_POOLS = MappingProxyType({1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d})
_AVERAGE_POOLS = MappingProxyType({1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d})


def _gemm(
    node: Node, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None
) -> torch.Tensor:
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    product = a @ b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = product if alpha == 1.0 else alpha * product
    if c is None:
        return product
    return product + (c if beta == 1.0 else beta * c)


def _einsum(node: Node, *inputs: torch.Tensor) -> torch.Tensor:
    return torch.einsum(node.get("equation"), *inputs)


# Convolutions.


def _conv(
    node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    kernel = weight.shape[2:]
    rank = _check_rank(node, len(kernel))
    strides = node.get("strides", [1] * rank)
    dilations = node.get("dilations", [1] * rank)
    pads = _padding(node, x.shape[2:], kernel, strides, dilations)
    even = all(begin == end for begin, end in pads)
    return _CONVOLUTIONS[rank](
        x if even else _padded(x, pads),
        weight,
        bias,
        strides,
        [begin for begin, _ in pads] if even else 0,
        dilations,
        node.get("group", 1),
    )


def _conv_transpose(
    node: Node, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    rank = _check_rank(node, weight.dim() - 2)
    strides = node.get("strides", [1] * rank)
    dilations = node.get("dilations", [1] * rank)
    more = node.get("output_padding", [0] * rank)
    whole = _TRANSPOSED[rank](x, weight, None, strides, 0, 0, node.get("group", 1), dilations)
    sizes = [size + extra for size, extra in zip(whole.shape[2:], more, strict=True)]
    auto = node.get("auto_pad", "NOTSET")
    wanted = node.get("output_shape")
    if wanted is None and auto.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = _given_pads(node, rank)
    else:
        totals = [size - want for size, want in zip(sizes, wanted[-rank:], strict=True)]
        pads = [_split(max(total, 0), upper=auto == "SAME_UPPER") for total in totals]
    # What is padded here is cut off there, and the reverse.
    cut = [(-begin, extra - end) for (begin, end), extra in zip(pads, more, strict=True)]
    result = _padded(whole, cut)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def _check_rank(node: Node, rank: int) -> int:
    if rank not in _CONVOLUTIONS:
        raise node.unsupported(f"over {rank} axes")
    return rank


def _given_pads(node: Node, rank: int) -> _Pads:
    pads = node.get("pads", [0] * (2 * rank))
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _padding(
    node: Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> _Pads:
    """What is padded before and behind each spatial axis."""
    auto = node.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        return _given_pads(node, len(sizes))
    if auto == "VALID":
        return [(0, 0)] * len(sizes)
    pads = []
    for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = (math.ceil(size / stride) - 1) * stride + (length - 1) * dilation + 1 - size
        pads.append(_split(max(total, 0), upper=auto == "SAME_UPPER"))
    return pads


def _split(total: int, *, upper: bool) -> tuple[int, int]:
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)


def _padded(x: torch.Tensor, pads: _Pads, value: float = 0.0) -> torch.Tensor:
    if not any(begin or end for begin, end in pads):
        return x
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)


# Poolings.


def _windows(
    node: Node, x: torch.Tensor
) -> tuple[list[int], list[int], list[int], _Pads, list[int]]:
    """Kernel, strides, dilations, pads, and what else is needed behind for ``ceil_mode``."""
    kernel = list(node.get("kernel_shape"))
    rank = _check_rank(node, len(kernel))
    strides = list(node.get("strides", [1] * rank))
    dilations = list(node.get("dilations", [1] * rank))
    pads = _padding(node, x.shape[2:], kernel, strides, dilations)
    extra = [0] * rank
    if node.get("ceil_mode", 0):
        for i, (begin, end) in enumerate(pads):
            reach, size = (kernel[i] - 1) * dilations[i] + 1, x.shape[2 + i] + begin + end
            last = math.ceil((size - reach) / strides[i])
            if last * strides[i] >= x.shape[2 + i] + begin:
                last -= 1  # a window must not begin in the padding
            extra[i] = max(last * strides[i] + reach - size, 0)
    return kernel, strides, dilations, pads, extra


def _max_pool(node: Node, x: torch.Tensor) -> torch.Tensor:
    if node.wants(1):
        raise node.unsupported("with indices as its second output")
    kernel, strides, dilations, pads, extra = _windows(node, x)
    values = x if x.is_floating_point() else x.to(node.dtype)
    whole = [(begin, end + more) for (begin, end), more in zip(pads, extra, strict=True)]
    values = _padded(values, whole, -math.inf)
    return _MAX_POOLS[len(kernel)](values, kernel, strides, 0, dilations).to(x.dtype)


def _average_pool(node: Node, x: torch.Tensor) -> torch.Tensor:
    kernel, strides, dilations, pads, extra = _windows(node, x)
    if any(dilation != 1 for dilation in dilations):
        raise node.unsupported("with dilations")
    behind = [(0, more) for more in extra]
    pool = partial(_AVERAGE_POOLS[len(kernel)], kernel_size=kernel, stride=strides)
    average = pool(_padded(_padded(x, pads), behind))
    if not any(extra) and (node.get("count_include_pad", 0) or not any(map(any, pads))):
        return average
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
    counted = 1.0 if node.get("count_include_pad", 0) else 0.0
    return average / pool(_padded(_padded(ones, pads, counted), behind))


def _global(x: torch.Tensor) -> list[int]:
    return list(range(2, x.dim()))


# Normalizations.


def _channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A value for each channel, in a shape that goes with ``x``."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _batch_norm(
    node: Node,
    x: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor:
    if node.get("training_mode", 0) or any(node.wants(i) for i in range(1, 5)):
        raise node.unsupported("in training mode")
    factor = scale / torch.sqrt(variance + node.get("epsilon", 1e-5))
    return (x - _channels(mean, x)) * _channels(factor, x) + _channels(bias, x)


def _layer_norm(
    node: Node, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> Result:
    shape = list(x.shape[node.get("axis", -1) % x.dim() :])
    epsilon = node.get("epsilon", 1e-5)
    result = F.layer_norm(x, shape, None, None, epsilon) * scale
    result = result if bias is None else result + bias
    if not (node.wants(1) or node.wants(2)):
        return result
    axes = list(range(x.dim() - len(shape), x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return result, mean, torch.rsqrt(variance + epsilon)


def _rms_norm(node: Node, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    axes = list(range(node.get("axis", -1) % x.dim(), x.dim()))
    squares = torch.mean(x * x, axes, keepdim=True)
    return x * torch.rsqrt(squares + node.get("epsilon", 1e-5)) * scale


def _instance_norm(
    node: Node, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    normal = F.layer_norm(x, list(x.shape[2:]), None, None, node.get("epsilon", 1e-5))
    return normal * _channels(scale, x) + _channels(bias, x)


def _group_norm(
    node: Node, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    groups = node.get("num_groups")
    if node.opset < 21:  # a value for each group
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    split = x.reshape(x.shape[0], groups, -1)
    normal = F.layer_norm(split, [split.shape[2]], None, None, node.get("epsilon", 1e-5))
    return normal.reshape(x.shape) * _channels(scale, x) + _channels(bias, x)


def _lp_norm(node: Node, x: torch.Tensor) -> torch.Tensor:
    axis = node.get("axis", -1)
    if node.get("p", 2) == 1:
        return x / torch.sum(torch.abs(x), axis, keepdim=True)
    return x / torch.sqrt(torch.sum(x * x, axis, keepdim=True))


def _attention(
    node: Node,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *cached: torch.Tensor | None,
) -> torch.Tensor:
    if any(tensor is not None for tensor in cached) or any(node.wants(i) for i in range(1, 4)):
        raise node.unsupported("with cached keys and values")
    if node.get("softcap", 0.0):
        raise node.unsupported("with softcap")
    packed = query.dim() == 3
    if packed:
        heads, shared = node.get("q_num_heads"), node.get("kv_num_heads")
        query, key, value = (
            t.reshape(t.shape[0], t.shape[1], n, -1).transpose(1, 2)
            for t, n in ((query, heads), (key, shared), (value, shared))
        )
    repeats = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(repeats, 1) for t in (key, value))
    scale = node.get("scale", 1.0 / math.sqrt(query.shape[-1]))
    scores = scale * (query @ key.transpose(2, 3))
    if node.get("is_causal", 0):
        seen = torch.ones(scores.shape[2:], dtype=torch.bool).tril()
        scores = torch.where(seen, scores, -math.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = torch.where(mask, scores, -math.inf)
    elif mask is not None:
        scores = scores + mask
    result = torch.softmax(scores, -1) @ value
    return result.transpose(1, 2).flatten(2) if packed else result


LAYERS: Mapping[str, Handler] = MappingProxyType(
    {
        "Attention": _attention,
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Einsum": _einsum,
        "Gemm": _gemm,
        "GlobalAveragePool": lambda node, x: torch.mean(x, _global(x), keepdim=True),
        "GlobalMaxPool": lambda node, x: torch.amax(x, _global(x), keepdim=True),
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LayerNormalization": _layer_norm,
        "LpNormalization": _lp_norm,
        "MatMul": lambda node, a, b: torch.matmul(a, b),
        "MaxPool": _max_pool,
        "RMSNormalization": _rms_norm,
    }
)
"""By operator."""
