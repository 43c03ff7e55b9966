"""GPTQ: inputs one after the other; those to come make up for what rounding did to the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.by_group import empty_grouped
from optuna_quant.backends.weight_algorithms.inverse_factor import inverse_factor
from optuna_quant.backends.weight_algorithms.output_error import better_rows
from optuna_quant.backends.weight_algorithms.output_error import output_errors
from optuna_quant.backends.weight_algorithms.rtn import round_to_nearest
from optuna_quant.backends.weight_algorithms.shrunk_ranges import shrunk_ranges


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.levels import Levels
    from optuna_quant.backends.weight_algorithms.moments import InputMoments

    Floats = NDArray[np.float32]

_VALUES = 1 << 22
_ROWS = 512
"""Rows are worked on together until they have that many values, but at least that many rows."""

_LEAST_DAMPING = 0.01
_FEW_SAMPLES = 0.25
"""The damping for as many samples as inputs; measured on SmolLM2's layers and texts not seen."""
_FEWEST_BITS = 2
"""With so many, ranges are clipped where that gives an output less error."""
_BLOCK = 128
"""How many inputs are quantized before all later ones are updated; of no effect but rounding."""


@dataclass(frozen=True, kw_only=True)
class GPTQOptions:
    """Options of GPTQ, with the names that its implementations use.

    Args:
        actorder:
            Take the inputs by falling size, not in their order. The ranges of the groups are then
            those of the weight as it was (static groups), so that groups keep their inputs.
        mse:
            Clip the range of a group where that costs less: 11 ranges are tried. With 2 bits
            ranges may be clipped in any case.
    """

    actorder: bool = False
    mse: bool = False


def damping(moments: InputMoments) -> float:
    """What part of the mean of the Hessian's diagonal is added to the diagonal.

    0.01, or more where there are few samples for the inputs: a quarter of the inputs over the
    samples. With less, the result fits those samples and not others.

    Args:
        moments:
            Of the layer's inputs.
    """
    return max(_LEAST_DAMPING, _FEW_SAMPLES * moments.inputs / moments.count)


def gptq(
    weight: NDArray[Any],
    levels: Levels,
    group_size: int,
    moments: InputMoments,
    options: GPTQOptions,
) -> GroupedWeight:
    """Quantize a weight so that the squared error of the layer's outputs is small.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
    Transformers", 2022, algorithm 1. The range of a group is taken when its first input is
    reached, from the weights as updated by then. Inputs that are always zero are rounded and
    change nothing else. An output for which RTN has less error is rounded instead.

    With 2 bits a range that holds every weight is often too wide: four values are left for all of
    them. So without ``options.mse`` the weight is quantized a second time with it, and each output
    has the one with less error.

    Args:
        weight:
            Floats of shape ``[outputs, inputs]``.
        levels:
            The codes that there are.
        group_size:
            Inputs of a group; the last one may be shorter.
        moments:
            Of the layer's inputs.
        options:
            The options.
    """
    order = np.arange(weight.shape[1])
    if options.actorder:
        order = np.argsort(-moments.squares(), kind="stable")
    factor = inverse_factor(moments.gram(), order, damping(moments))
    found = round_to_nearest(weight, levels, group_size)
    errors = output_errors(weight, found, moments)
    both = levels.bits == _FEWEST_BITS and not options.mse
    for each in (options, replace(options, mse=True)) if both else (options,):
        result = empty_grouped(weight.shape, levels, group_size)
        run = _Run(levels, group_size, order, factor, each)
        height = max(_ROWS, _VALUES // weight.shape[1])
        for start in range(0, len(weight), height):
            rows = slice(start, start + height)
            run.quantize(np.array(weight[rows].T, np.float32, order="C"), result, rows)
        of_result = output_errors(weight, result, moments)
        found = better_rows(found, errors, result, of_result)
        errors = np.minimum(errors, of_result)
    return found


@dataclass(frozen=True)
class _Run:
    """What is the same for all rows.

    Args:
        levels:
            The codes that there are.
        group_size:
            Inputs of a group.
        order:
            The inputs in the order in which they are quantized, of shape ``[inputs]``.
        factor:
            The upper triangular factor of the inverse Hessian in that order.
        options:
            The options.
    """

    levels: Levels
    group_size: int
    order: NDArray[np.intp]
    factor: Floats
    options: GPTQOptions

    def quantize(self, columns: Floats, result: GroupedWeight, rows: slice) -> None:
        """Quantize some rows.

        Args:
            columns:
                The weights of each input, of shape ``[inputs, rows]``. It is overwritten.
            result:
                Where to write to.
            rows:
                Which rows they are.
        """
        inputs = len(columns)
        starts = range(0, inputs, self.group_size)
        scales = np.empty((len(starts), columns.shape[1]), np.float32)
        zero_points = np.empty_like(scales)
        codes = np.empty(columns.shape, np.uint8)
        if self.options.actorder:
            importance = np.empty(inputs, np.float32)
            importance[self.order] = self._importance(slice(0, inputs))
            for group, start in enumerate(starts):
                part = slice(start, start + self.group_size)
                scales[group], zero_points[group] = self._range(columns[part], importance[part])
            columns = columns[self.order]
        for start in range(0, inputs, _BLOCK):
            stop = min(start + _BLOCK, inputs)
            errors = np.empty((stop - start, columns.shape[1]), np.float32)
            for i in range(start, stop):
                group = self.order[i] // self.group_size
                done = slice(start, i)
                if not self.options.actorder and i % self.group_size == 0:
                    part = slice(i, min(i + self.group_size, inputs))
                    now = columns[part] - self.factor[done, part].T @ errors[: i - start]
                    found = self._range(now, self._importance(part))
                    scales[group], zero_points[group] = found
                now = columns[i] - self.factor[done, i] @ errors[: i - start]
                code = np.rint(now / scales[group] + zero_points[group])
                np.clip(code, 0, self.levels.top, out=code)
                codes[i] = code
                now -= (code - zero_points[group]) * scales[group]
                np.divide(now, self.factor[i, i], out=errors[i - start])
            columns[stop:] -= self.factor[start:stop, stop:].T @ errors
        result.codes[rows, self.order] = codes.T
        result.scales[rows] = scales.T
        if result.zero_points is not None:
            result.zero_points[rows] = zero_points.T

    def _importance(self, part: slice) -> Floats:
        """What the squared error of an input costs when those after it make up for it."""
        found: Floats = 1.0 / self.factor.diagonal()[part] ** 2
        return found

    def _range(self, columns: Floats, importance: Floats) -> tuple[Floats, Floats]:
        """The scale and zero point of each row of a group, of shape ``[inputs, rows]``."""
        groups = np.ascontiguousarray(columns.T)
        if not self.options.mse:
            return self.levels.min_max(groups)
        return shrunk_ranges(groups, self.levels, lambda change: change**2 @ importance)
