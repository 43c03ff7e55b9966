"""Quantized weights in the form of the runtime's kernels.

``MatMulNBits`` and ``GatherBlockQuantized`` are described in ONNX Runtime's ContribOperators.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.model.fingerprint import initializer_digest
from optuna_quant.backends.onnxruntime.weight_only.ops import block_size


if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.weight_only.ops import WeightOnlyOp
    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A quantized weight as a kernel takes it.

    Args:
        codes:
            Bytes with the codes, the first one in the lowest bits: ``[outputs, blocks, bytes of a
            block]`` for a product, ``[rows, bytes of a row]`` for a table.
        scales:
            One for each block, ``[outputs, blocks]``.
        zero_points:
            Packed like the codes, ``[outputs, bytes]``, or floats like the scales; None for the
            middle of the range.
        input_scale:
            What the activation is multiplied with first, ``[inputs]``; None for nothing.
        bits:
            The bits of a code.
        block_size:
            The codes of a block.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | NDArray[np.float32] | None
    input_scale: NDArray[np.float32] | None
    bits: int
    block_size: int

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """Its arrays, by name."""
        found: dict[str, NDArray[Any] | None] = {
            "codes": self.codes,
            "scales": self.scales,
            "zero_points": self.zero_points,
            "input_scale": self.input_scale,
        }
        return {name: array for name, array in found.items() if array is not None}

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    @cached_property
    def digests(self) -> Mapping[str, bytes]:
        """The hashes of its arrays, as fingerprints have them, by name."""
        return {name: initializer_digest(array) for name, array in self.arrays.items()}


def packed_weight(op: WeightOnlyOp, weight: GroupedWeight, group_size: int | None) -> PackedWeight:
    """A quantized weight as the kernel of an op takes it.

    Args:
        op:
            The op.
        weight:
            The quantized weight.
        group_size:
            What was asked for; None for one scale for each channel.
    """
    block = block_size(op, group_size)
    blocks = -(-op.inputs // block)
    scales = weight.scales
    zero_points: NDArray[Any] | None = weight.zero_points
    if group_size is None:
        scales = np.repeat(scales, blocks, axis=1)
        zero_points = None if zero_points is None else np.repeat(zero_points, blocks, axis=1)
    codes = weight.codes
    if not op.is_table:
        codes = np.pad(codes, [(0, 0), (0, blocks * block - op.inputs)])
        codes = codes.reshape(op.outputs, blocks, block)
    return PackedWeight(
        pack(codes, weight.bits),
        np.ascontiguousarray(scales, np.float32),
        _packed_zero_points(zero_points, weight.bits),
        weight.input_scale,
        weight.bits,
        block,
    )


def packed_nbytes(op: WeightOnlyOp, bits: int, group_size: int | None) -> int:
    """About how many bytes a packed weight takes, with zero points and without factors."""
    block = block_size(op, group_size)
    blocks = -(-op.inputs // block)
    return op.outputs * blocks * (block * bits // 8 + 5)


def _packed_zero_points(
    zero_points: NDArray[Any] | None, bits: int
) -> NDArray[np.uint8] | NDArray[np.float32] | None:
    if zero_points is None or zero_points.dtype == np.uint8:
        return None if zero_points is None else pack(zero_points, bits)
    return np.ascontiguousarray(zero_points, np.float32)


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Put codes into bytes along the last axis, the first one in the lowest bits.

    Args:
        codes:
            Codes of 2, 4 or 8 bits, one a byte. The last byte of each row is filled with zeros.
        bits:
            Their bits.
    """
    each = 8 // bits
    missing = -codes.shape[-1] % each
    if missing:
        codes = np.pad(codes, [*[(0, 0)] * (codes.ndim - 1), (0, missing)])
    found = np.ascontiguousarray(codes[..., ::each])
    for place in range(1, each):
        found |= codes[..., place::each] << np.uint8(place * bits)
    return found
