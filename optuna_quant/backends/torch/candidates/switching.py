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
    switch = Switch()
    for op in plan.ops.values():
        _add(op, switch, program, weights)
    return switch


def _add(
    plan: OpPlan, switch: Switch, program: SwitchedProgram, weights: QuantizedWeights
) -> None:
    op, slots = plan.op, program.slots[plan.op.name]
    if plan.mode == "static":
        for name, params in zip(slots.activations, plan.activations, strict=True):
            switch.modules[name] = FakeQuantize(
                params.scale, params.zero_point, *limits_of(params.dtype)
            )
    elif plan.mode == "dynamic" and plan.dynamic is not None:
        dtype, scheme = plan.dynamic
        for name in slots.activations:
            switch.modules[name] = DynamicFakeQuantize(
                *limits_of(dtype), symmetric=scheme == "sym"
            )
    elif plan.mode == "bf16":
        for name in slots.activations:
            switch.modules[name] = Cast(torch.bfloat16)
        switch.modules[slots.output] = Cast(torch.float32)
    if slots.weight is None:
        return
    weight = program.weight(op) if plan.weight is None else weights.tensor(plan.weight, op)
    bias = program.bias(op)
    if plan.mode == "bf16":
        weight = weight.bfloat16()
        bias = None if bias is None else bias.bfloat16()
    switch.tensors[slots.weight] = weight
    if slots.bias is not None:
        switch.tensors[slots.bias] = bias
    if slots.batch_norm is not None:
        switch.modules[slots.batch_norm] = Unchanged()
