"""Quantized weights as bytes, for other processes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.sealed_bytes import array_bytes
from optuna_quant.backends.onnxruntime.weight_only.packing import PackedWeight


if TYPE_CHECKING:
    from typing import Any


def pack_weight(weight: PackedWeight) -> bytes:
    """A weight as bytes, for :func:`unpack_weight`."""
    arrays: dict[str, Any] = {
        **weight.arrays,
        "bits": weight.bits,
        "block_size": weight.block_size,
    }
    return array_bytes(arrays)


def unpack_weight(data: bytes) -> PackedWeight:
    """Inverse of :func:`pack_weight`.

    Raises:
        Exception:
            If the bytes are damaged, in many ways.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return PackedWeight(
            arrays["codes"],
            arrays["scales"],
            arrays.get("zero_points"),
            arrays.get("input_scale"),
            int(arrays["bits"]),
            int(arrays["block_size"]),
        )
