"""A configuration's program in the form that is saved and deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.compiling import compiled
from optuna_quant.backends.torch.converted.exporting import export_graph
from optuna_quant.backends.torch.converted.exporting import without_examples
from optuna_quant.backends.torch.converted.lowering import lower_program
from optuna_quant.backends.torch.converted.lowering import packed_program
from optuna_quant.backends.torch.converted.lowering import passes_for
from optuna_quant.backends.torch.converted.lowering import run_as_it_is
from optuna_quant.backends.torch.converted.writing import write_program
from optuna_quant.backends.torch.program.devices import make_tensors_on


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from torch.export import ExportedProgram

    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.converted.lowering import LoweredProgram
    from optuna_quant.backends.torch.converted.writing import WrittenOp
    from optuna_quant.backends.torch.converted.writing import WrittenProgram
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.backends.torch_program.export import ModuleProgram


@dataclass(frozen=True, eq=False)
class ConvertedProgram:
    """A quantized program in PyTorch's reference form, exported.

    Args:
        program:
            The program. It takes the inputs in their order and gives the outputs as a tuple.
        ops:
            What became of the ops, in their order.
        form:
            How the user's module is called.
        configuration:
            The configuration, as JSON text.
    """

    program: ExportedProgram
    ops: tuple[WrittenOp, ...]
    form: CallForm
    configuration: str

    def loaded(self, *, lower: bool = True) -> LoweredProgram:
        """The program as it runs here.

        Args:
            lower:
                Whether to put in integer kernels, where there are some.
        """
        if lower:
            return lower_program(self.program, self.ops)
        return run_as_it_is(self.program, self.ops)

    def compiled(self) -> Callable[..., Sequence[Any]]:
        """The program, compiled at its first call."""
        passes_for(self.ops)
        return compiled(packed_program(self.program, self.ops))


def convert(
    switched: SwitchedProgram, exported: ModuleProgram, plan: ModelPlan, configuration: str
) -> ConvertedProgram:
    """Write and export the program of a plan.

    Args:
        switched:
            The program.
        exported:
            The same as it was exported: it says which axes have any size.
        plan:
            How each op runs.
        configuration:
            The configuration, as JSON text.
    """
    with torch.no_grad():
        written = write_program(switched, plan)
        program = exported_form(written, exported)
    return ConvertedProgram(program, written.ops, switched.form, configuration)


def exported_form(written: WrittenProgram, exported: ModuleProgram) -> ExportedProgram:
    """A written program as an exported one, which computes on the CPU.

    Args:
        written:
            The program.
        exported:
            What it was made from, as it was exported.
    """
    make_tensors_on(written.graph, torch.device("cpu"))
    return without_examples(export_graph(written.graph, exported.program))
