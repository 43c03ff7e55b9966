"""Torch counterpart of ONNX's Resize: nearest neighbour and linear, axis by axis."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import math
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
import torch


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.torch_graph.node import Node


_Floats: TypeAlias = NDArray[np.float32]


def resize(node: Node, x: torch.Tensor, *inputs: torch.Tensor | None) -> torch.Tensor:
    """Resize ``x``; the other inputs are scales, or region, scales and sizes."""
    mode = node.get("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise node.unsupported(f"in mode {mode!r}")
    if node.get("antialias", 0):
        raise node.unsupported("with antialias=1")
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("with keep_aspect_ratio_policy")
    if node.opset < 11:
        inputs = (None, *inputs)
    _, scales, sizes = (*inputs, None, None, None)[:3]
    axes = [axis % x.dim() for axis in node.get("axes", range(x.dim()))]
    if sizes is not None and sizes.numel():
        lengths = sizes.tolist()
        factors = [new / x.shape[axis] for new, axis in zip(lengths, axes, strict=True)]
    else:
        assert scales is not None
        factors = scales.tolist()
        lengths = [math.floor(x.shape[a] * f) for a, f in zip(axes, factors, strict=True)]
    for axis, length, factor in zip(axes, lengths, factors, strict=True):
        if length != x.shape[axis] or factor != 1.0:
            x = _resize_axis(node, x, axis, length, factor, mode)
    return x


def _resize_axis(
    node: Node, x: torch.Tensor, axis: int, length: int, factor: float, mode: str
) -> torch.Tensor:
    size = x.shape[axis]
    rule = node.get("coordinate_transformation_mode", "half_pixel")
    rule = "asymmetric" if node.opset < 11 else rule
    if rule not in _PLACES:
        raise node.unsupported(f"with coordinate_transformation_mode={rule!r}")
    # In 32 bits, so that ties are decided as the runtime does.
    places = _PLACES[rule](np.arange(length, dtype=np.float32), np.float32(factor), size, length)
    if mode == "nearest":
        simple = "ceil" if factor < 1.0 else "floor"
        rounding = node.get("nearest_mode", "round_prefer_floor") if node.opset >= 11 else simple
        return _take(x, axis, np.clip(_ROUNDINGS[rounding](places), 0, size - 1))
    places = np.clip(places, 0, size - 1)
    low = np.floor(places)
    parts = torch.from_numpy((places - low).astype(np.float32)).to(x.dtype)
    parts = parts.reshape(-1, *[1] * (x.dim() - 1 - axis))
    left, right = _take(x, axis, low), _take(x, axis, np.minimum(low + 1, size - 1))
    return left + parts * (right - left)


def _take(x: torch.Tensor, axis: int, places: _Floats) -> torch.Tensor:
    return x.index_select(axis, torch.from_numpy(places.astype(np.int64)))


def _half_pixel(i: _Floats, factor: np.float32, size: int, length: int) -> _Floats:
    return (i + np.float32(0.5)) / factor - np.float32(0.5)


def _pytorch_half_pixel(i: _Floats, factor: np.float32, size: int, length: int) -> _Floats:
    return _half_pixel(i, factor, size, length) if length > 1 else np.zeros_like(i)


def _half_pixel_symmetric(i: _Floats, factor: np.float32, size: int, length: int) -> _Floats:
    offset = size / 2 * (1.0 - length / (float(factor) * size))
    return np.float32(offset) + _half_pixel(i, factor, size, length)


def _align_corners(i: _Floats, factor: np.float32, size: int, length: int) -> _Floats:
    return i * np.float32(size - 1) / np.float32(length - 1) if length > 1 else np.zeros_like(i)


def _asymmetric(i: _Floats, factor: np.float32, size: int, length: int) -> _Floats:
    return i / factor


# The place in the input of each place in the output.
_PLACES: Mapping[str, Callable[[_Floats, np.float32, int, int], _Floats]] = MappingProxyType(
    {
        "align_corners": _align_corners,
        "asymmetric": _asymmetric,
        "half_pixel": _half_pixel,
        "half_pixel_symmetric": _half_pixel_symmetric,
        "pytorch_half_pixel": _pytorch_half_pixel,
    }
)
_ROUNDINGS: Mapping[str, Callable[[_Floats], _Floats]] = MappingProxyType(
    {
        "ceil": np.ceil,
        "floor": np.floor,
        "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
        "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    }
)
