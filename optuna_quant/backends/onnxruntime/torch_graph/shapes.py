"""Torch counterparts of ONNX operators that make, move and choose values."""

from __future__ import annotations

from collections.abc import Mapping
import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from optuna_quant.backends.onnxruntime.model.graph import tensor_array
from optuna_quant.backends.onnxruntime.torch_graph.node import Handler
from optuna_quant.backends.onnxruntime.torch_graph.node import Node
from optuna_quant.backends.onnxruntime.torch_graph.node import Result
from optuna_quant.backends.onnxruntime.torch_graph.resize import resize
from optuna_quant.backends.sensitivity.tensors import to_tensor


if TYPE_CHECKING:
    from collections.abc import Sequence


# Making values.


def _constant(node: Node) -> torch.Tensor:
    for name, value in node.attributes.items():
        if name == "value":
            return to_tensor(tensor_array(value, None), node.dtype)
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=node.dtype)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise node.unsupported(f"with the attributes {', '.join(node.attributes)}")


def _constant_of_shape(node: Node, shape: torch.Tensor) -> torch.Tensor:
    proto = node.get("value")
    if proto is None:
        return torch.zeros(shape.tolist(), dtype=node.dtype)
    value = to_tensor(tensor_array(proto, None), node.dtype)
    return value.reshape(()).repeat(shape.tolist())


def _range(
    node: Node, start: torch.Tensor, limit: torch.Tensor, delta: torch.Tensor
) -> torch.Tensor:
    count = math.ceil((limit.item() - start.item()) / delta.item())
    return start + delta * torch.arange(max(count, 0), dtype=start.dtype)


def _shape(node: Node, x: torch.Tensor) -> torch.Tensor:
    start, end = node.get("start", 0), node.get("end")
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _eye_like(node: Node, x: torch.Tensor) -> torch.Tensor:
    dtype = x.dtype if node.get("dtype") is None else node.torch_dtype(node.get("dtype"))
    offset = node.get("k", 0)
    return torch.diagonal_scatter(
        torch.zeros(x.shape, dtype=dtype),
        torch.ones(x.shape, dtype=dtype).diagonal(offset),
        offset,
    )


def _one_hot(
    node: Node, indices: torch.Tensor, depth: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    axis, count = node.get("axis", -1), int(depth.item())
    places = torch.arange(count).reshape(-1, *[1] * (indices.dim() - axis % (indices.dim() + 1)))
    wrapped = torch.where(indices < 0, indices + count, indices).unsqueeze(axis)
    return torch.where(wrapped == places, values[1], values[0])


# Moving values.


def _reshape(node: Node, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    sizes = shape.tolist()
    if not node.get("allowzero", 0):
        sizes = [size or x.shape[i] for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: Node, x: torch.Tensor) -> torch.Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(node: Node, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    dims = node.axes(axes, x.dim())
    return x.squeeze(tuple(dims)) if dims else x.squeeze()


def _unsqueeze(node: Node, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    count = len(node.get("axes", ())) if axes is None else axes.numel()
    for axis in sorted(node.axes(axes, x.dim() + count)):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: Node, x: torch.Tensor) -> torch.Tensor:
    return x.permute(node.get("perm", list(reversed(range(x.dim())))))


def _expand(node: Node, x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    return x.broadcast_to(np.broadcast_shapes(tuple(x.shape), tuple(shape.tolist())))


def _tile(node: Node, x: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    return x.repeat(repeats.tolist())


def _depth_to_space(node: Node, x: torch.Tensor) -> torch.Tensor:
    size, (n, c, h, w) = node.get("blocksize"), x.shape
    if node.get("mode", "DCR") == "DCR":
        blocks = x.reshape(n, size, size, -1, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, -1, size, size, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c // (size * size), h * size, w * size)


def _space_to_depth(node: Node, x: torch.Tensor) -> torch.Tensor:
    size, (n, c, h, w) = node.get("blocksize"), x.shape
    blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * size * size, h // size, w // size)


def _concat(node: Node, *inputs: torch.Tensor) -> torch.Tensor:
    return torch.cat(inputs, node.get("axis"))


def _split(node: Node, x: torch.Tensor, sizes: torch.Tensor | None = None) -> Result:
    axis = node.get("axis", 0)
    given = node.get("split") if sizes is None else sizes.tolist()
    if given is None:
        count = node.get("num_outputs", len(node.proto.output))
        part = math.ceil(x.shape[axis] / count)
        given = [part] * (count - 1)
        given.append(x.shape[axis] - sum(given))
    return torch.split(x, given, axis)


def _pad(
    node: Node,
    x: torch.Tensor,
    pads: torch.Tensor | None = None,
    value: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
) -> torch.Tensor:
    amounts = node.get("pads") if pads is None else pads.tolist()
    fill = node.get("value", 0.0) if value is None else value.item()
    where = node.axes(axes, x.dim()) or list(range(x.dim()))
    before, behind = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(where):
        before[axis], behind[axis] = amounts[i], amounts[i + len(where)]
    mode = node.get("mode", "constant")
    if mode == "constant":
        flat = [n for pair in zip(reversed(before), reversed(behind), strict=True) for n in pair]
        return F.pad(x, flat, value=fill)
    for axis, (begin, end) in enumerate(zip(before, behind, strict=True)):
        if begin or end:
            size = x.shape[axis]
            inside = np.arange(max(-begin, 0), size - max(-end, 0))
            width = (max(begin, 0), max(end, 0))
            places = np.pad(inside, width, mode)
            x = x.index_select(axis, torch.from_numpy(places))
    return x


# Choosing values.


def _slice(
    node: Node,
    x: torch.Tensor,
    starts: torch.Tensor | None = None,
    ends: torch.Tensor | None = None,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    first = node.get("starts") if starts is None else starts.tolist()
    last = node.get("ends") if ends is None else ends.tolist()
    dims = node.axes(axes, x.dim()) or list(range(len(first)))
    strides = [1] * len(first) if steps is None else steps.tolist()
    for axis, start, end, step in zip(dims, first, last, strides, strict=True):
        low, high, step = slice(start, end, step).indices(x.shape[axis])
        if step == 1:
            x = x.narrow(axis, low, max(high - low, 0))
        else:
            x = x.index_select(axis, torch.tensor(range(low, high, step), dtype=torch.int64))
    return x


def _wrapped(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Indices from 0 on, of such as may count from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


def _gather(node: Node, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = node.get("axis", 0) % x.dim()
    chosen = x.index_select(axis, _wrapped(indices, x.shape[axis]).reshape(-1))
    return chosen.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gather_elements(node: Node, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _wrapped(indices, x.shape[axis]))


def _gather_nd(node: Node, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    if node.get("batch_dims", 0):
        raise node.unsupported("with batch_dims")
    return x[tuple(indices.to(torch.int64).unbind(-1))]


def _top_k(node: Node, x: torch.Tensor, k: torch.Tensor) -> Sequence[torch.Tensor]:
    values, places = torch.topk(
        x, int(k.item()), node.get("axis", -1), largest=bool(node.get("largest", 1))
    )
    return values, places


def _trilu(node: Node, x: torch.Tensor, k: torch.Tensor | None = None) -> torch.Tensor:
    offset = 0 if k is None else int(k.item())
    return torch.triu(x, offset) if node.get("upper", 1) else torch.tril(x, offset)


def _dropout(node: Node, x: torch.Tensor, *ratio_and_mode: torch.Tensor | None) -> Result:
    mode = ratio_and_mode[1] if len(ratio_and_mode) > 1 else None
    if mode is not None and bool(mode.item()):
        raise node.unsupported("in training mode")
    return x, torch.ones(x.shape, dtype=torch.bool)


SHAPES: Mapping[str, Handler] = MappingProxyType(
    {
        "Concat": _concat,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "DepthToSpace": _depth_to_space,
        "Dropout": _dropout,
        "Expand": _expand,
        "EyeLike": _eye_like,
        "Flatten": _flatten,
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "GatherND": _gather_nd,
        "Identity": lambda node, x: x,
        "NonZero": lambda node, x: torch.nonzero(x).T,
        "OneHot": _one_hot,
        "Pad": _pad,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": resize,
        "Shape": _shape,
        "Size": lambda node, x: torch.tensor(x.numel()),
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "TopK": _top_k,
        "Transpose": _transpose,
        "Trilu": _trilu,
        "Unsqueeze": _unsqueeze,
    }
)
"""By operator."""
