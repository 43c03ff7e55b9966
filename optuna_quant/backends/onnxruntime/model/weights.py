"""Quantized weights, computed once and shared by all candidates."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
import hashlib
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.ranges.seven_bits import on_grid
from optuna_quant.backends.ranges.seven_bits import seven_bit_grid


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.space.config import TensorConfig


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A quantized weight.

    Args:
        values:
            The integers, in the shape of the weight.
        scale:
            One value, of shape ``()``, or one for each channel.
        zero_point:
            Of the shape of ``scale`` and the dtype of ``values``.
        axis:
            The channel axis; None if there is one scale.
    """

    values: NDArray[Any]
    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int | None

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.values.nbytes + self.scale.nbytes + self.zero_point.nbytes

    def to_floats(self) -> NDArray[np.float64]:
        """The values that the integers stand for."""
        shape = tuple(-1 if i == self.axis else 1 for i in range(self.values.ndim))
        scale, zero_point = (
            array.astype(np.float64).reshape(shape if array.ndim else ())
            for array in (self.scale, self.zero_point)
        )
        return np.asarray((self.values - zero_point) * scale)

    def quantize(self, array: NDArray[np.float32]) -> NDArray[Any]:
        """What ONNX's QuantizeLinear makes of floats on this grid."""
        shape = tuple(-1 if i == self.axis else 1 for i in range(array.ndim))
        scale, zero_point = (
            each.reshape(shape if each.ndim else ()) for each in (self.scale, self.zero_point)
        )
        limits = np.iinfo(self.values.dtype)
        steps = np.rint(array / scale) + zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.values.dtype)

    @cached_property
    def digest(self) -> bytes:
        """A hash of :attr:`values`."""
        return hashlib.blake2b(np.ascontiguousarray(self.values).data, digest_size=16).digest()


class WeightStore:
    """Gives the quantized weights of a graph.

    Args:
        graph:
            The graph.
        reduce_range:
            Whether weights use 7 bits only, for processors on which sums of two 8-bit products
            saturate (x86 without VNNI instructions).
        cache:
            Where they are kept.
    """

    def __init__(
        self, graph: Graph, *, reduce_range: bool = False, cache: BoundedCache | None = None
    ) -> None:
        self._graph = graph
        self._reduce_range = reduce_range
        self._cache = BoundedCache() if cache is None else cache

    def get(
        self, name: str, config: TensorConfig, axis: int | None, *, factor: float = 1.0
    ) -> QuantizedWeight:
        """A weight as a configuration says.

        Args:
            name:
                The initializer.
            config:
                How to quantize it.
            axis:
                Its channel axis; None to quantize it as a whole.
            factor:
                What to multiply it with first.
        """
        key = ("static", name, config, axis, factor)
        if key not in self._cache:
            array = self.array(name, factor=factor)
            try:
                self._cache[key] = quantized(array, config, axis, reduce_range=self._reduce_range)
            except ValueError as error:
                raise ValueError(f"Tensor {name!r} cannot be quantized: {error}") from error
        found: QuantizedWeight = self._cache[key]
        return found

    def cached(self, key: Hashable, make: Callable[[], QuantizedWeight]) -> QuantizedWeight:
        """A weight that is made from others, kept beside them.

        Args:
            key:
                What tells it from all others.
            make:
                Makes it.
        """
        if ("made", key) not in self._cache:
            self._cache["made", key] = make()
        found: QuantizedWeight = self._cache["made", key]
        return found

    def array(self, name: str, *, factor: float = 1.0) -> NDArray[np.float32]:
        """The value of a weight, multiplied with a factor."""
        array = self._graph.array(name)
        return array if factor == 1.0 else array * np.float32(factor)


def quantized(
    array: NDArray[np.float32], config: TensorConfig, axis: int | None, *, reduce_range: bool
) -> QuantizedWeight:
    """Quantize a weight.

    Args:
        array:
            The weight.
        config:
            How to quantize it.
        axis:
            Its channel axis; None to quantize it as a whole.
        reduce_range:
            Whether to use 7 bits only.
    """
    values, scale, zero_point = quantize_weight(
        array, config.dtype, config.scheme, axis, config.algorithm
    )
    weight = QuantizedWeight(values, scale, zero_point, axis)
    return _to_7_bits(array, weight, config) if reduce_range and config.bits == 8 else weight


def _to_7_bits(
    array: NDArray[np.float32], weight: QuantizedWeight, config: TensorConfig
) -> QuantizedWeight:
    scale, zero_point, limits = seven_bit_grid(
        weight.scale, weight.zero_point, config.dtype, config.scheme
    )
    values = on_grid(array, scale, zero_point, weight.axis, limits)
    return QuantizedWeight(values, scale, zero_point, weight.axis)


def on_coarser_grid(
    array: NDArray[np.float32], weight: QuantizedWeight, scale: NDArray[np.float32]
) -> QuantizedWeight:
    """A quantized weight on a grid whose scale is nowhere smaller than its own.

    Args:
        array:
            The weight in floats.
        weight:
            The quantized weight.
        scale:
            The new scale, of the shape of the old.
    """
    # The values move towards the zero point, so they stay within what they took so far.
    taken = weight.values.ravel(), weight.zero_point.ravel()
    limits = min(int(a.min()) for a in taken), max(int(a.max()) for a in taken)
    values = on_grid(array, scale, weight.zero_point, weight.axis, limits)
    return QuantizedWeight(values, scale, weight.zero_point, weight.axis)
