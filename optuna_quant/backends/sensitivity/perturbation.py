"""How far quantization moves weights."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.weight_algorithms.quantize import NEEDS_INPUTS
from optuna_quant.backends.weight_algorithms.quantize import WEIGHT_ONLY_ALGORITHMS
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped


if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from optuna_quant.space.config import TensorConfig


class WeightPerturbations:
    """The squared perturbations of the weights of ops, each computed once.

    Args:
        weight:
            Gives the weight of an op and the axis of its output channels, None if it has none.
    """

    def __init__(self, weight: Callable[[str], tuple[NDArray[Any], int | None]]) -> None:
        self._weight = weight
        self._found: dict[tuple[str, TensorConfig], float] = {}

    def of(self, op: str, config: TensorConfig) -> float:
        """See :func:`squared_perturbation`.

        Raises:
            ValueError:
                If the weight cannot be quantized so; it names the op.
        """
        key = (op, config)
        if key not in self._found:
            weight, axis = self._weight(op)
            try:
                self._found[key] = squared_perturbation(weight, config, axis)
            except ValueError as error:
                raise ValueError(f"The weight of op {op!r} as {config.label}: {error}") from error
        return self._found[key]


def squared_perturbation(weight: NDArray[Any], config: TensorConfig, axis: int | None) -> float:
    """The squared L2 norm of what rounding to the nearest value changes of a weight.

    Weight-only algorithms that look at the inputs of an op are taken as ``"rtn"``: what they
    change is a matter of the data.

    Args:
        weight:
            The weight.
        config:
            How it is quantized. Groups (``"per_group"``) are formed of the values of one channel,
            in order, or of the rows of a table; the last may be smaller.
        axis:
            Its channel axis; None to quantize it as a whole, or in groups over all of it.

    Raises:
        ValueError:
            If the weight is not finite, or its quantized type is not known.
    """
    if config.algorithm in WEIGHT_ONLY_ALGORITHMS:
        return _grouped_perturbation(weight if axis != 1 else weight.T, config)
    if config.granularity == "per_group":
        assert config.group_size is not None
        rows = weight[np.newaxis] if axis is None else np.moveaxis(weight, axis, 0)
        rows = rows.reshape(rows.shape[0], -1)
        # Zeros are in every range, and exact.
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % config.group_size)))
        weight, axis = rows.reshape(-1, config.group_size), 0
    elif config.granularity == "per_tensor":
        axis = None
    algorithm = config.algorithm if config.algorithm == "mse" else "minmax"
    integers, scale, zero_point = quantize_weight(
        weight, config.dtype, config.scheme, axis, algorithm
    )
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    steps = integers.astype(np.float32) - zero_point.astype(np.float32).reshape(shape)
    change = (steps * scale.reshape(shape) - weight.astype(np.float32)).reshape(-1)
    return float(np.einsum("i,i->", change, change, dtype=np.float64))


def _grouped_perturbation(weight: NDArray[Any], config: TensorConfig) -> float:
    """The same for a matrix ``[outputs, inputs]`` whose weights alone are quantized."""
    needs_inputs = config.algorithm in NEEDS_INPUTS
    grouped = quantize_grouped(
        weight,
        bits=config.bits,
        group_size=config.group_size,
        scheme=config.scheme,  # type: ignore[arg-type]
        algorithm="rtn" if needs_inputs else config.algorithm,
    )
    change = grouped.effective() - weight
    return float(np.einsum("oi,oi->", change, change, dtype=np.float64))
