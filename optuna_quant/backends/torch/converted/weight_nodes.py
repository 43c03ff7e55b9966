"""Quantized weights as nodes of a program: the integers, and what makes floats of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch

from optuna_quant.backends.torch.converted.reference_ops import ATEN
from optuna_quant.backends.torch.converted.reference_ops import QUANTIZED


if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.fx import Graph
    from torch.fx import Node

    from optuna_quant.backends.torch.candidates.weights import ChannelWeight
    from optuna_quant.backends.torch.converted.tensors import ProgramTensors
    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight


def channel_weight(
    graph: Graph, tensors: ProgramTensors, path: str, weight: ChannelWeight, *, has_kernel: bool
) -> tuple[Node, dict[str, str]]:
    """A weight of 8 bits with a scale for each output channel.

    Args:
        graph:
            The graph; nodes come where it inserts.
        tensors:
            Takes the integers and scales.
        path:
            Where they go.
        weight:
            The weight.
        has_kernel:
            Whether there may be an integer kernel for it, so that PT2E's own dequantizer is
            wanted. Passes that put kernels in take any convolution for an ordinary one.

    Returns:
        The node that gives the floats, and where its tensors are, by what they are.
    """
    named = {
        "codes": ("", torch.from_numpy(np.ascontiguousarray(weight.codes))),
        "scales": ("_scale", torch.from_numpy(np.ascontiguousarray(weight.scales))),
    }
    paths = {
        name: tensors.add(f"{path}{ending}", tensor, (weight.digest, name))
        for name, (ending, tensor) in named.items()
    }
    if not has_kernel:
        codes, scales = (tensors.read(paths[name]) for name in ("codes", "scales"))
        shape = [1] * weight.codes.ndim
        shape[weight.axis] = -1
        values = graph.call_function(ATEN.to.dtype, (codes, torch.float32))
        factors = graph.call_function(ATEN.view.default, (scales, shape))
        return graph.call_function(ATEN.mul.Tensor, (values, factors)), paths
    channels = len(weight.scales)
    zeros = torch.zeros(channels, dtype=torch.int64)
    points = tensors.add(f"{path}_zero_point", zeros, ("zeros", channels))
    read = [tensors.read(place) for place in (*paths.values(), points)]
    args: tuple[Any, ...] = (*read, weight.axis, -128, 127, torch.int8)
    return graph.call_function(QUANTIZED.dequantize_per_channel.default, args), paths


def grouped_tensors(tensors: ProgramTensors, path: str, weight: GroupedWeight) -> dict[str, str]:
    """The tensors of a weight in groups.

    Args:
        tensors:
            Takes them.
        path:
            Where they go.
        weight:
            The weight.

    Returns:
        Where they are, by what they are; without zero points if they are the middle of the codes.
    """
    named = {
        "codes": ("", torch.from_numpy(packed(weight))),
        "scales": ("_scale", torch.from_numpy(np.ascontiguousarray(weight.scales))),
    }
    if weight.zero_points is not None:
        points = torch.from_numpy(np.ascontiguousarray(weight.zero_points))
        named["zero_points"] = "_zero_point", points
    if weight.input_scale is not None:
        factors = torch.from_numpy(np.ascontiguousarray(weight.input_scale))
        named["input_scale"] = "_input_scale", factors
    return {
        name: tensors.add(f"{path}{ending}", tensor, (weight.digest, name))
        for name, (ending, tensor) in named.items()
    }


def grouped_values(
    graph: Graph, codes: Node, scales: Node, points: Node | None, weight: GroupedWeight
) -> Node:
    """Nodes that give the floats of packed codes.

    Args:
        graph:
            The graph; nodes come where it inserts.
        codes:
            Gives packed codes, in any number of rows.
        scales:
            Gives the scales of the same rows.
        points:
            Gives their zero points; None if they are the middle of the codes.
        weight:
            The weight that they are of.
    """
    call = graph.call_function
    values = _unpacked_nodes(graph, codes, weight)
    inputs, groups = weight.codes.shape[1], weight.scales.shape[1]
    whole = groups * weight.group_size
    if _columns(weight) != whole:
        values = call(ATEN.slice.Tensor, (values, -1, 0, whole))
    values = call(ATEN.to.dtype, (values, torch.float32))
    values = call(ATEN.unflatten.int, (values, -1, [groups, weight.group_size]))
    if points is None:
        values = call(ATEN.sub.Scalar, (values, float(1 << (weight.bits - 1))))
    else:
        floats = call(ATEN.to.dtype, (points, torch.float32))
        values = call(ATEN.sub.Tensor, (values, call(ATEN.unsqueeze.default, (floats, -1))))
    values = call(ATEN.mul.Tensor, (values, call(ATEN.unsqueeze.default, (scales, -1))))
    values = call(ATEN.flatten.using_ints, (values, -2, -1))
    if whole != inputs:
        values = call(ATEN.slice.Tensor, (values, -1, 0, inputs))
    return values


def _unpacked_nodes(graph: Graph, codes: Node, weight: GroupedWeight) -> Node:
    call = graph.call_function
    planes = _planes(weight.bits)
    values: Node | None = None
    start = lowest = 0
    for width in planes:
        plane, end = codes, start + _columns(weight) * width // 8
        if len(planes) > 1:
            plane = call(ATEN.slice.Tensor, (codes, -1, start, end))
        if width < 8:
            shifted = [plane]
            for shift in range(width, 8, width):
                shifted.append(call(ATEN.bitwise_right_shift.Tensor_Scalar, (plane, shift)))
            masked = [call(ATEN.bitwise_and.Scalar, (each, (1 << width) - 1)) for each in shifted]
            plane = call(ATEN.stack.default, (masked, -1))
            plane = call(ATEN.flatten.using_ints, (plane, -2, -1))
        if values is None:
            values = plane
        else:
            plane = call(ATEN.bitwise_left_shift.Tensor_Scalar, (plane, lowest))
            values = call(ATEN.bitwise_or.Tensor, (values, plane))
        start, lowest = end, lowest + width
    assert values is not None
    return values


def _planes(bits: int) -> tuple[int, ...]:
    """How the bits of a code are laid out: from the lowest on, so many in each part of a row."""
    return (2, 1) if bits == 3 else (bits,)


def _columns(weight: GroupedWeight) -> int:
    """The codes of a row, with those that fill up groups and bytes."""
    whole = weight.scales.shape[1] * weight.group_size
    a_byte = 8 // min(_planes(weight.bits))
    return int(-(-whole // a_byte) * a_byte)


def packed(weight: GroupedWeight) -> NDArray[np.uint8]:
    """The codes of a weight, as many in a byte as fit, the first one lowest.

    Of three bits, the two lower ones of all codes of a row come before the third ones.
    """
    outputs, inputs = weight.codes.shape
    padded = np.zeros((outputs, _columns(weight)), np.uint8)
    padded[:, :inputs] = weight.codes
    found, lowest = [], 0
    for width in _planes(weight.bits):
        plane = (padded >> np.uint8(lowest)) & np.uint8((1 << width) - 1)
        found.append(_in_bytes(plane, width))
        lowest += width
    return np.concatenate(found, axis=1)


def _in_bytes(codes: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    parts = codes.reshape(len(codes), -1, 8 // width)
    found = np.zeros(parts.shape[:2], np.uint8)
    for place in range(parts.shape[2]):
        found |= parts[:, :, place] << np.uint8(place * width)
    return found


def unpacked(codes: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The codes of packed ones, one a byte.

    Args:
        codes:
            Packed codes, as :func:`packed` gives them.
        bits:
            Bits of a code.
        columns:
            How many codes a row has.
    """
    whole = codes.shape[1] * 8 // bits
    parts = []
    start = lowest = 0
    for width in _planes(bits):
        end = start + whole * width // 8
        plane = codes[:, start:end]
        shifted = [(plane >> shift) & ((1 << width) - 1) for shift in range(0, 8, width)]
        parts.append(torch.stack(shifted, -1).flatten(-2) << lowest)
        start, lowest = end, lowest + width
    found = parts[0] if len(parts) == 1 else parts[0] | parts[1]
    return found[:, :columns]
