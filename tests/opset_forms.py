"""Operators in the form that an opset has for them: attributes that have become inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_models import Maker


def _list(
    m: Maker, op_type: str, x: str, name: str, values: Sequence[int], since: int, **more: int
) -> str:
    if m.opset < since:
        return m.node(op_type, [x], **{name: values}, **more)
    return m.node(op_type, [x, m.const(np.array(values, np.int64))], **more)


def squeeze(m: Maker, x: str, axes: Sequence[int]) -> str:
    return _list(m, "Squeeze", x, "axes", axes, 13)


def unsqueeze(m: Maker, x: str, axes: Sequence[int]) -> str:
    return _list(m, "Unsqueeze", x, "axes", axes, 13)


def reduce_sum(m: Maker, x: str, axes: Sequence[int], keepdims: int = 1) -> str:
    return _list(m, "ReduceSum", x, "axes", axes, 13, keepdims=keepdims)


def reduce_mean(m: Maker, x: str, axes: Sequence[int], keepdims: int = 1) -> str:
    return _list(m, "ReduceMean", x, "axes", axes, 18, keepdims=keepdims)


def split(m: Maker, x: str, sizes: Sequence[int], axis: int) -> list[str]:
    outputs = [f"{x}_part{i}" for i in range(len(sizes))]
    if m.opset < 13:
        m.node("Split", [x], outputs=outputs, split=sizes, axis=axis)
    else:
        constant = m.const(np.array(sizes, np.int64))
        m.node("Split", [x, constant], outputs=outputs, axis=axis)
    return outputs


def clip(m: Maker, x: str, low: float | None, high: float | None) -> str:
    if m.opset < 11:
        limits = {"min": low, "max": high}
        return m.node("Clip", [x], **{k: v for k, v in limits.items() if v is not None})
    names = ["" if v is None else m.const(np.float32(v)) for v in (low, high)]
    return m.node("Clip", [x, *names])


def pad(m: Maker, x: str, pads: Sequence[int], value: float = 0.0, mode: str = "constant") -> str:
    if m.opset < 11:
        return m.node("Pad", [x], pads=pads, value=value, mode=mode)
    inputs = [x, m.const(np.array(pads, np.int64)), m.const(np.float32(value))]
    return m.node("Pad", inputs, mode=mode)


def resize(m: Maker, x: str, scales: Sequence[float], mode: str = "nearest") -> str:
    constant = m.const(np.array(scales, np.float32))
    if m.opset < 11:
        return m.node("Resize", [x, constant], mode=mode)
    # Only since opset 13 the region may be left out.
    region = m.const(np.zeros(0, np.float32)) if m.opset < 13 else ""
    return m.node(
        "Resize",
        [x, region, constant],
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def dropout(m: Maker, x: str) -> str:
    if m.opset < 12:
        return m.node("Dropout", [x], ratio=0.3)
    return m.node("Dropout", [x, m.const(np.float32(0.3))])
