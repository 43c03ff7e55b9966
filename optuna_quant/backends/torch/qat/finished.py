"""What was trained, as a plan for a program with the trained parameters."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.torch.candidates.plan import ModelPlan
from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
from optuna_quant.backends.torch.program.content import program_digest


if TYPE_CHECKING:
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch.qat.prepared import PreparedModule
    from optuna_quant.backends.weight_algorithms.moments import InputMoments


_CURE = "It has diverged: lower the learning rate, or clip gradients"


@dataclass(frozen=True, eq=False)
class TrainedProgram:
    """A program with trained parameters, and how its ops run.

    Args:
        program:
            The program.
        plan:
            How each op runs.
        weights:
            The quantized weights of the plan as tensors.
    """

    program: SwitchedProgram
    plan: ModelPlan
    weights: QuantizedWeights


def trained_program(module: PreparedModule) -> TrainedProgram:
    """What a module computes after training, as a program and a plan.

    Args:
        module:
            The module. It may be trained further; what is given here does not change.

    Raises:
        ValueError:
            If a trained parameter or range is not finite; it names it.
    """
    check_finite(module)
    how = module.how
    known = how.program.values
    values = {
        name: tensor.detach().clone().to(how.program.device)
        for name, tensor in module.values().items()
        if name in known
    }
    program = how.program.with_values(values)
    weights = QuantizedWeights(program, _no_moments, reduce_range=how.reduce_range)
    ranges = module.ranges()
    ops = {}
    for name, op in how.plan.ops.items():
        weight = op.weight
        if name in how.weights:
            weight = weights.get(op.op, how.weights[name], how.config.calibration_size)
        slots = program.slots[name].activations
        activations = tuple(
            ranges[slot].params if slot in ranges else params
            for slot, params in zip(slots, op.activations, strict=False)
        )
        ops[name] = replace(op, weight=weight, activations=activations)
    return TrainedProgram(program, ModelPlan(program_digest(program.original), ops), weights)


def check_finite(module: PreparedModule) -> None:
    """Check that what was trained are numbers to compute with.

    Args:
        module:
            The module.

    Raises:
        ValueError:
            If a trained parameter or range is not finite; it names it.
    """
    ops = {
        slot: op for op, slots in module.how.program.slots.items() for slot in slots.activations
    }
    for slot, learned in module.ranges().items():
        try:
            learned.params  # noqa: B018 (it is checked when it is read)
        except ValueError as error:
            raise ValueError(
                f"The range of an activation of op {ops[slot]!r} is not usable after training: "
                f"{error}. {_CURE}, or do without learn_ranges."
            ) from error
    before = module.how.program.values
    for name, tensor in module.values().items():
        if (
            name in before
            and not torch.isfinite(tensor).all()
            and torch.isfinite(before[name]).all()
        ):
            readers = [op.name for op in module.how.program.ops if op.weight == name]
            of = f", the weight of op {readers[0]!r}," if readers else ""
            raise ValueError(f"{name!r}{of} holds NaN or infinite values after training. {_CURE}.")


def _no_moments(op: TorchOp, size: int | None) -> InputMoments:
    raise AssertionError("Weights that are trained are rounded, which needs no calibration data.")
