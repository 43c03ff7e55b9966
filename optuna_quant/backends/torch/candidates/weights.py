"""The quantized weights of ops, each computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_quant._common.bounded_cache import CACHE_BYTES
from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.ranges.seven_bits import on_grid
from optuna_quant.backends.ranges.seven_bits import seven_bit_grid
from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.weight_algorithms.moments import InputMoments
    from optuna_quant.space.config import TensorConfig


@dataclass(frozen=True, eq=False)
class ChannelWeight:
    """A weight of 8 bits with one scale, or one for each output channel.

    Args:
        codes:
            The integers, of the shape of the weight.
        scales:
            Of shape ``[channels]``; the same for all if there is one for the tensor.
        axis:
            The axis of the channels.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int

    @cached_property
    def digest(self) -> bytes:
        """A hash of all of it."""
        found = hashlib.blake2b(repr((self.codes.shape, self.axis)).encode(), digest_size=16)
        found.update(np.ascontiguousarray(self.codes).data)
        found.update(np.ascontiguousarray(self.scales).data)
        return found.digest()

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return self.codes.nbytes + self.scales.nbytes

    @property
    def packed_nbytes(self) -> int:
        """Bytes that it takes in a file."""
        return self.nbytes

    def effective(self) -> NDArray[np.float32]:
        """The float32 weight that the integers stand for."""
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return self.codes.astype(np.float32) * self.scales.reshape(shape)


class QuantizedWeights:
    """Quantizes the weights of a program, and keeps those that were used last.

    Several threads may use it.

    Args:
        program:
            The program.
        moments:
            Gives the moments of an op's inputs, which some algorithms need, for a calibration
            sampling size.
        max_bytes:
            The most bytes that kept integers take, and kept tensors, each. Default: 1 GB, but at
            least what two configurations take.
        reduce_range:
            Whether weights that are multiplied as integers use 7 of their 8 bits.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        moments: Callable[[TorchOp, int | None], InputMoments],
        *,
        max_bytes: int | None = None,
        reduce_range: bool = False,
    ) -> None:
        self._program = program
        self._reduce_range = reduce_range
        self._moments = moments
        if max_bytes is None:
            max_bytes = max(CACHE_BYTES, 2 * sum(t.nbytes for t in program.values.values()))
        self._found = BoundedCache(max_bytes)
        self._tensors = BoundedCache(max_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self._found.nbytes + self._tensors.nbytes

    def get(
        self, op: TorchOp, config: TensorConfig, size: int | None
    ) -> ChannelWeight | GroupedWeight:
        """The weight of an op as a configuration says, with its batch normalization folded in.

        Args:
            op:
                The op.
            config:
                How it is quantized.
            size:
                The calibration sampling size, for algorithms that use the data.
        """
        needs_inputs = config.algorithm in NEEDS_INPUTS
        key = (op.name, config, size if needs_inputs else None)
        found: ChannelWeight | GroupedWeight | None = self._found.get(key)
        if found is None:
            moments = self._moments(op, size) if needs_inputs else None
            found = self._found[key] = self._quantized(op, config, moments)
        return found

    def tensor(self, weight: ChannelWeight | GroupedWeight, op: TorchOp) -> torch.Tensor:
        """The floats that a quantized weight stands for, where the program computes."""
        found: torch.Tensor | None = self._tensors.get(weight.digest)
        if found is None:
            values = weight.effective()
            like = self._program.weight(op)
            found = torch.from_numpy(values.reshape(tuple(like.shape))).to(like.device)
            self._tensors[weight.digest] = found
        return found

    def _quantized(
        self, op: TorchOp, config: TensorConfig, moments: InputMoments | None
    ) -> ChannelWeight | GroupedWeight:
        values = np.ascontiguousarray(self._program.weight(op).detach().cpu().numpy())
        if config.bits != 8 or config.algorithm not in ("minmax", "mse"):
            scheme: Literal["sym", "asym"] = "sym" if config.scheme == "sym" else "asym"
            return quantize_grouped(
                values,
                bits=config.bits,
                group_size=config.group_size,
                scheme=scheme,
                algorithm=config.algorithm,
                moments=moments,
            )
        axis = op.channel_axis if config.granularity == "per_channel" else None
        codes, scales, zeros = quantize_weight(
            values, config.dtype, config.scheme, axis, config.algorithm
        )
        if self._reduce_range:
            scales, zeros, limits = seven_bit_grid(scales, zeros, config.dtype, config.scheme)
            codes = on_grid(values, scales, zeros, axis, limits)
        place = op.form.weight.axis if op.form.weight and op.form.weight.axis is not None else 0
        if axis is None:
            scales = np.full(values.shape[place], scales, np.float32)
        return ChannelWeight(codes, scales, place)
