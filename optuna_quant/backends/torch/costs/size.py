"""The bytes that the tensors of a program take as they are saved."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
import math
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.weight_algorithms.grouped import packed_nbytes
from optuna_quant.backends.weight_algorithms.quantize import FLOAT_ZERO_POINTS
from optuna_quant.costs import CostTable
from optuna_quant.space.config import FP32


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from torch.export import ExportedProgram

    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.weight_algorithms.grouped import ZeroPoints
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.space import TuningSpace


_FLOAT_BYTES = 4
_BF16_BYTES = 2


class ProgramSize:
    """The bytes of the tensors that are saved; each counts once, however often it is read.

    Args:
        program:
            The program.
        ops:
            Its ops.
    """

    def __init__(self, program: ExportedProgram, ops: Sequence[TorchOp]) -> None:
        self._program = program
        self._ops = ops

    @cached_property
    def in_floats(self) -> int:
        """The bytes of the program with no op quantized."""
        state = self._program.state_dict.values()
        constants = self._program.constants.values()
        tensors = [each for each in (*state, *constants) if isinstance(each, torch.Tensor)]
        # Tied ones have several names.
        different = {(each.data_ptr(), each.numel()): each for each in tensors}
        return sum(each.numel() * each.element_size() for each in different.values())

    def of_plan(self, plan: ModelPlan) -> int:
        """The bytes of the program with its ops quantized as a plan says."""
        total = self.in_floats
        by_weight: dict[str, list[TorchOp]] = {}
        for op in self._ops:
            if op.weight is not None:
                by_weight.setdefault(op.weight, []).append(op)
        for ops in by_weight.values():
            forms = [plan.ops.get(op.name) for op in ops]
            size = weight_nbytes(ops[0], FP32)
            quantized = {p.weight.digest: p.weight for p in forms if p is not None and p.weight}
            total += sum(weight.packed_nbytes for weight in quantized.values())
            if any(p is not None and p.weight is None and p.mode == "bf16" for p in forms):
                total += size // 2
            if all(p is not None and (p.weight or p.mode == "bf16") for p in forms):
                total -= size  # Nothing reads the floats.
        return total


def size_table(space: TuningSpace, ops: Mapping[str, TorchOp], float_bytes: int) -> CostTable:
    """The table of sizes: int8 weights with scales, bf16 ones, few bits packed in groups.

    Args:
        space:
            The tuning space.
        ops:
            The ops of the program by name.
        float_bytes:
            The size of all tensors of the program in floats.
    """
    names = [name for tunable in space.tunables for name in tunable.ops]
    # Ops with one weight share what it takes: right where all of them have one form, as those have
    # that are tied.
    readers = Counter(ops[name].weight for name in names)
    # What others read as well stays in floats beside what is quantized.
    kept = {op.weight for name, op in ops.items() if name not in set(names)}
    costs = {}
    for tunable in space.tunables:
        for name in tunable.ops:
            op = ops[name]
            floats = weight_nbytes(op, FP32) if op.weight in kept else 0
            costs[name] = {
                option.label: (weight_nbytes(op, option) + (floats if option != FP32 else 0))
                / readers[op.weight]
                for option in dict.fromkeys((*tunable.options, FP32))
            }
    fixed = float_bytes - sum(costs[name][FP32.label] for name in names)
    return CostTable("size", "bytes", costs, (), float(fixed))


def weight_nbytes(op: TorchOp, option: OpConfig) -> int:
    """The bytes of an op's weight in an option, with scales and zero points; 0 without one."""
    if op.shape is None or op.form.weight is None:
        return 0
    size = math.prod(op.shape)
    if option.weight is None:
        return size * (_BF16_BYTES if option.mode == "bf16" else _FLOAT_BYTES)
    if option.mode == "weight_only":
        return _grouped_nbytes(op.shape, option.weight)
    channels = op.shape[op.form.weight.axis or 0]
    return size * option.weight.bits // 8 + _FLOAT_BYTES * channels


def _grouped_nbytes(shape: tuple[int, ...], config: TensorConfig) -> int:
    outputs, inputs = shape
    zero_points: ZeroPoints = "codes" if config.scheme == "asym" else "none"
    if config.algorithm in FLOAT_ZERO_POINTS:
        zero_points = "floats"
    size = inputs if config.group_size is None else config.group_size
    nbytes = packed_nbytes(outputs, inputs, config.bits, size, zero_points)
    # The factors of the inputs; where AWQ finds that they do not help there are none.
    return nbytes + (_FLOAT_BYTES * inputs if config.algorithm == "awq" else 0)
