"""From a plan to what is switched in the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.torch.candidates.plan import limits_of
from optuna_quant.backends.torch.graph.slots import Cast
from optuna_quant.backends.torch.graph.slots import DynamicFakeQuantize
from optuna_quant.backends.torch.graph.slots import FakeQuantize
from optuna_quant.backends.torch.graph.slots import Unchanged
from optuna_quant.backends.torch.graph.switched import Switch


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.candidates.plan import OpPlan
    from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram


def switch_of(plan: ModelPlan, program: SwitchedProgram, weights: QuantizedWeights) -> Switch:
    """What is other than in the original program.

    Args:
        plan:
            How each op runs.
        program:
            The program.
        weights:
            Gives quantized weights as tensors.
    """

    def weight_of(op: OpPlan) -> torch.Tensor:
        assert op.weight is not None
        return weights.tensor(op.weight, op.op)

    return Switch(modules_of(plan, program), tensors_of(plan, program, weight_of))


def modules_of(plan: ModelPlan, program: SwitchedProgram) -> dict[str, torch.nn.Module]:
    """The modules that stand where ops are switched, by the names of their slots.

    Args:
        plan:
            How each op runs.
        program:
            The program.
    """
    found: dict[str, torch.nn.Module] = {}
    for op in plan.ops.values():
        slots = program.slots[op.op.name]
        if op.mode == "static":
            for name, params in zip(slots.activations, op.activations, strict=True):
                limits = limits_of(params.dtype)
                found[name] = FakeQuantize(params.scale, params.zero_point, *limits)
        elif op.mode == "dynamic" and op.dynamic is not None:
            dtype, scheme = op.dynamic
            for name in slots.activations:
                found[name] = DynamicFakeQuantize(*limits_of(dtype), symmetric=scheme == "sym")
        elif op.mode == "bf16":
            for name in (*slots.activations, *slots.addends):
                found[name] = Cast(torch.bfloat16)
            found[slots.output] = Cast(torch.float32)
        if slots.weight is not None and slots.batch_norm is not None:
            found[slots.batch_norm] = Unchanged()
    return found


def tensors_of(
    plan: ModelPlan, program: SwitchedProgram, weight_of: Callable[[OpPlan], torch.Tensor]
) -> dict[str, torch.Tensor | None]:
    """The weights and biases of switched ops, by the names of their slots.

    Args:
        plan:
            How each op runs.
        program:
            The program.
        weight_of:
            Gives the values that a quantized weight stands for.
    """
    found: dict[str, torch.Tensor | None] = {}
    for op in plan.ops.values():
        slots = program.slots[op.op.name]
        if slots.weight is None:
            continue
        weight = program.weight(op.op) if op.weight is None else weight_of(op)
        bias = program.bias(op.op)
        if op.mode == "bf16":
            weight = weight.bfloat16()
            bias = None if bias is None else bias.bfloat16()
        found[slots.weight] = weight
        if slots.bias is not None:
            found[slots.bias] = bias
    return found
