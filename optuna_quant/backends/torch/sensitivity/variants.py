"""The ways in which ops are scored: each once, in however many configurations it occurs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant.backends.sensitivity.asked_ops import quantized_ops
from optuna_quant.backends.torch.candidates.plan import ModelPlan
from optuna_quant.backends.torch.candidates.switching import switch_of
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from optuna_quant.backends.torch.candidates.plan import OpPlan
    from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.backends.torch.graph.switched import Switch
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram

    PlanOf = Callable[[QuantConfig], ModelPlan]


@dataclass(frozen=True)
class Variant:
    """One op in one way.

    Args:
        op:
            Its name.
        content:
            All that it computes with.
        weights_alone:
            Whether its activations stay in floats.
    """

    op: str
    content: str
    weights_alone: bool = False


class Variants:
    """Finds the variants of ops, and how each is switched.

    Args:
        program:
            The program.
        plan_of:
            Gives the plan of a configuration.
        weights:
            The quantized weights of the program.
    """

    def __init__(
        self, program: SwitchedProgram, plan_of: PlanOf, weights: QuantizedWeights
    ) -> None:
        self.program = program
        self._plan_of = plan_of
        self._weights = weights
        self._ops = {op.name: op for op in program.ops}

    def of(self, config: QuantConfig, ops: Sequence[str]) -> dict[Variant, OpPlan]:
        """The variants of those of the ops that a configuration quantizes.

        Raises:
            ValueError:
                If the configuration does not have one of the ops.
        """
        asked = {op: config.ops[op] for op in quantized_ops(config, ops)}
        plan = self._plan_of(QuantConfig(asked, config.recipes, config.calibration_size))
        return {Variant(name, op.content): op for name, op in plan.ops.items()}

    def op(self, variant: Variant) -> TorchOp:
        """The op of a variant."""
        return self._ops[variant.op]

    def switch(self, plan: OpPlan) -> Switch:
        """How an op is switched for a variant."""
        return switch_of(ModelPlan("", {plan.op.name: plan}), self.program, self._weights)
