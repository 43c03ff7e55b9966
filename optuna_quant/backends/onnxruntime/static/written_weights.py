"""Writing quantized weights, biases, and constants that ops read as activations."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.onnxruntime.calibration.accumulator import INT32_MAX


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.weights import QuantizedWeight
    from optuna_quant.backends.onnxruntime.model.weights import WeightStore
    from optuna_quant.backends.onnxruntime.static.corrections.op_weights import OpWeight
    from optuna_quant.backends.onnxruntime.static.write_options import WriteOptions
    from optuna_quant.backends.onnxruntime.static.written import WrittenGraph
    from optuna_quant.backends.ranges.qparams import Params
    from optuna_quant.space.config import TensorConfig


class WrittenWeights:
    """Writes the quantized constants of one candidate; ops that want the same share it.

    Args:
        written:
            Where they are written.
        weights:
            Gives the quantized weights.
        options:
            How candidates are written.
    """

    def __init__(self, written: WrittenGraph, weights: WeightStore, options: WriteOptions) -> None:
        self._written = written
        self._weights = weights
        self._options = options

    def operand(self, name: str, config: TensorConfig) -> str:
        """A constant that is quantized as an activation is; what comes out behind it."""
        # Its range is known and need not be estimated.
        config = replace(config, algorithm="minmax")
        return self.weight(name, self._weights.get(name, config, None), (config, None, 1.0))

    def weight(
        self, name: str, weight: QuantizedWeight, kind: Hashable, factor: float = 1.0
    ) -> str:
        """What comes out behind a quantized weight.

        Args:
            name:
                The initializer in floats.
            weight:
                The quantized weight.
            kind:
                What tells it from other forms of the initializer.
            factor:
                What the initializer was multiplied with.
        """
        written = self._written
        key = ("weight", name, kind)
        if key not in written.shared:
            source = self._source(name, weight, factor)
            scale = written.constant(f"{name}_scale", weight.scale)
            zero_point = written.constant(f"{name}_zero_point", weight.zero_point)
            written.shared[key] = output = written.name(f"{name}_dequantized")
            dtype, params = weight.values.dtype.name, [scale, zero_point]
            if self._options.weight_pairs:
                written.quantize_constant(source, params, output, weight.axis, dtype=dtype)
            else:
                written.dequantize([source, *params], output, weight.axis, dtype=dtype)
        return written.shared[key]

    def _source(self, name: str, weight: QuantizedWeight, factor: float) -> str:
        """The integers of a weight, or the floats of which QuantizeLinear makes them."""
        if not self._options.weight_pairs:
            values = self._written.constant(f"{name}_quantized", weight.values)
            self._written.digests[values] = weight.digest
            return values
        array = self._weights.array(name, factor=factor)
        if not np.array_equal(weight.quantize(array), weight.values):
            array = weight.to_floats().astype(np.float32)
        elif factor == 1.0:
            return name
        return self._written.constant(f"{name}_floats", array)

    def bias(self, name: str, found: OpWeight, params: Params) -> str:
        """What comes out behind a bias, on the grid of the products; in floats if that is asked.

        Args:
            name:
                The initializer, or what one would be called.
            found:
                The bias in floats, and the weight.
            params:
                How the activation is quantized.
        """
        assert found.bias is not None
        written = self._written
        if not self._options.integer_biases:
            if found.bias_kind == (1.0, None):
                return name
            floats = found.bias.astype(np.float32)
            return written.shared_constant(("bias", name, found.bias_kind), f"{name}_own", floats)
        scale = np.float32(params.scale) * found.weight.scale
        key = ("bias", name, found.bias_kind, scale.tobytes())
        if key not in written.shared:
            steps = np.divide(found.bias, scale, out=np.zeros(found.bias.shape), where=scale > 0)
            integers = np.clip(np.rint(steps), -INT32_MAX, INT32_MAX).astype(np.int32)
            inputs = [
                written.constant(f"{name}_quantized", integers),
                written.constant(f"{name}_scale", np.asarray(scale)),
                written.constant(f"{name}_zero_point", np.zeros(scale.shape, np.int32)),
            ]
            written.shared[key] = output = written.name(f"{name}_dequantized")
            written.dequantize(inputs, output, None if scale.ndim == 0 else 0)
        return written.shared[key]
