"""A configuration as a module to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.torch.candidates.switching import modules_of
from optuna_quant.backends.torch.candidates.switching import tensors_of
from optuna_quant.backends.torch.graph.slots import DynamicFakeQuantize
from optuna_quant.backends.torch.graph.switched import Switch
from optuna_quant.backends.torch.qat.ranges import LearnedFakeQuantize
from optuna_quant.backends.torch.qat.straight_through import StraightThrough
from optuna_quant.backends.torch.qat.weights import check_trainable
from optuna_quant.backends.torch.qat.weights import fake_quantized


if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.candidates.plan import OpPlan
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch.qat.state import ModuleState
    from optuna_quant.backends.torch_program.call import Structure
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig


_RANGES = "activation_ranges"


@dataclass(frozen=True, eq=False)
class Preparation:
    """What a prepared module computes with, besides its parameters; never changed.

    Args:
        program:
            The program.
        plan:
            How each op runs, before training.
        config:
            The configuration of the plan.
        weights:
            How the weight of each op is quantized, by the op's name.
        modules:
            What stands where ops are switched, by slot.
        learned:
            The slots of activations whose ranges are trained, with the names of those ranges.
        ranges:
            The name of the submodule that has them.
        reduce_range:
            Whether weights that are multiplied as integers use 7 of their 8 bits.
    """

    program: SwitchedProgram
    plan: ModelPlan
    config: QuantConfig
    weights: Mapping[str, TensorConfig]
    modules: Mapping[str, torch.nn.Module]
    learned: Mapping[str, str]
    ranges: str
    reduce_range: bool

    def __deepcopy__(self, memo: dict[int, object]) -> Preparation:
        return self


class PreparedModule(torch.nn.Module):
    """A module that computes as its quantized model will, and whose parameters can be trained.

    It takes and returns what the user's module does. Its parameters and buffers are copies of
    those of the user's module, under the same names; what is frozen there is frozen here, and
    tied weights are tied. At each step weights are rounded to the values that their integers
    will stand for, with batch normalization folded in, and gradients pass straight through.
    Batch normalization keeps its statistics, and trains its scale and shift. Dropout is off, as
    in evaluation mode.

    :meth:`TorchBackend.prepare <optuna_quant.backends.torch.TorchBackend.prepare>` makes it.

    Args:
        program:
            The program.
        plan:
            How each op runs, before training.
        config:
            The configuration of the plan.
        state:
            The user's parameters and buffers.
        learn_ranges:
            Whether activation ranges are trained as well.
        reduce_range:
            Whether weights that are multiplied as integers use 7 of their 8 bits.

    Raises:
        ValueError:
            If a weight is quantized by an algorithm that does more than round.
    """

    how: Preparation

    def __init__(
        self,
        program: SwitchedProgram,
        plan: ModelPlan,
        config: QuantConfig,
        state: ModuleState,
        *,
        learn_ranges: bool = False,
        reduce_range: bool = False,
    ) -> None:
        super().__init__()
        state.register(self, program.values)
        weights = {}
        for name, op in plan.ops.items():
            weight = config.ops[name].weight
            if weight is not None:
                check_trainable(op.op, weight)
                weights[name] = weight
        modules = {
            slot: StraightThrough(each) if isinstance(each, DynamicFakeQuantize) else each
            for slot, each in modules_of(plan, program).items()
        }
        learned: dict[str, str] = {}
        name = _RANGES
        if learn_ranges:
            while hasattr(self, name):
                name += "_"
            learned = self._add_ranges(name, program, plan)
        # Not a submodule: it has no state.
        self.__dict__["how"] = Preparation(
            program, plan, config, weights, modules, learned, name, reduce_range
        )

    def _add_ranges(self, name: str, program: SwitchedProgram, plan: ModelPlan) -> dict[str, str]:
        """Ranges to be trained: one for all ops that read a tensor with the same range."""
        ranges = torch.nn.ModuleDict()
        found: dict[str, str] = {}
        known: dict[tuple[str, Params], str] = {}
        for op in plan.ops.values():
            if op.mode != "static":
                continue
            slots = program.slots[op.op.name]
            for slot, source, params in zip(
                slots.activations, op.op.sources, op.activations, strict=True
            ):
                if (source, params) not in known:
                    known[source, params] = slot
                    ranges[slot] = LearnedFakeQuantize(params).to(program.device)
                found[slot] = known[source, params]
        self.add_module(name, ranges)
        return found

    def values(self) -> dict[str, torch.Tensor]:
        """The parameters and buffers by name; tied ones under each of their names."""
        return {
            **dict(self.named_buffers(remove_duplicate=False)),
            **dict(self.named_parameters(remove_duplicate=False)),
        }

    def ranges(self) -> dict[str, LearnedFakeQuantize]:
        """The trained ranges of activations, by slot; empty if none are trained."""
        if not self.how.learned:
            return {}
        known: Any = getattr(self, self.how.ranges)
        return {slot: known[name] for slot, name in self.how.learned.items()}

    def forward(self, *args: Structure, **kwargs: Structure) -> Structure:
        """What the user's module takes and returns.

        Raises:
            TypeError:
                If the arguments have another structure than those of the export, or one that
                became a constant has another value.
        """
        how = self.how
        program = how.program.with_values(self.values())

        def weight_of(op: OpPlan) -> torch.Tensor:
            weight, config = program.weight(op.op), how.weights[op.op.name]
            return fake_quantized(weight, op.op, config, reduce_range=how.reduce_range)

        tensors = tensors_of(how.plan, program, weight_of)
        graph = program.switched(Switch({**how.modules, **self.ranges()}, tensors))
        outputs = graph(*program.inputs_of_call(program.form.tensors(args, kwargs)))
        return program.form.structure(program.named_outputs(outputs))
