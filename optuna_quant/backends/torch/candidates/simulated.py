"""A candidate, simulated: the program as one configuration says, in floats."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.program.called import CalledProgram
from optuna_quant.backends.torch.program.content import structure_digest


if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.torch.candidates.plan import ModelPlan
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.data.inputs import InputSpec


class SimulatedModel:
    """A program as one configuration says, in floats.

    It computes what the quantized program gives, up to rounding: quantized tensors are rounded to
    the values that their integers stand for.

    Args:
        program:
            The program.
        plan:
            How each op runs.
        graph:
            The switched program.
        inputs:
            The inputs.
        nbytes:
            Bytes of the converted program's tensors.
    """

    def __init__(
        self,
        program: SwitchedProgram,
        plan: ModelPlan,
        graph: GraphModule,
        *,
        inputs: Sequence[InputSpec],
        nbytes: int,
    ) -> None:
        self._program = program
        self.graph = graph
        self.plan = plan
        self.inputs = tuple(inputs)
        self.nbytes = nbytes

    @cached_property
    def fingerprint(self) -> str:
        """A content hash of what it computes."""
        return self.plan.fingerprint

    @property
    def structure(self) -> str:
        """A hash of how the program computes, whatever its weights and its configuration are."""
        return structure_digest(self._program.original)

    @property
    def form(self) -> CallForm:
        """How the user's module is called."""
        return self._program.form

    @property
    def writes(self) -> bool:
        """Whether the program may write into its inputs."""
        return self._program.writes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._program.device

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return tuple(self._program.form.output_names)

    @property
    def depends_on_batch(self) -> bool:
        """Whether what it gives for a sample depends on the other samples of the batch."""
        return any(op.mode == "dynamic" for op in self.plan.ops.values())

    @property
    def threads(self) -> int:
        """The threads of a run."""
        return torch.get_num_threads()

    def run(self, feed: Feed, outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """Compute outputs.

        Args:
            feed:
                An array for each input, by the input's name.
            outputs:
                The names of the outputs to compute; None for all.

        Raises:
            ValueError:
                If an input is missing or there is no such output.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        check_names(names, self.outputs, "output")
        check_names([spec.name for spec in self.inputs], feed, "input")
        tensors = self._program.tensors_of({spec.name: feed[spec.name] for spec in self.inputs})
        found = self.compute(tensors)
        return [array_of(found[name]) for name in names]

    def compute(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, for the inputs by name."""
        with torch.no_grad():
            outputs = self.graph(*self._program.inputs_of_call(tensors))
        return self._program.named_outputs(outputs)

    @cached_property
    def _called(self) -> CalledProgram:
        return CalledProgram(self.compute, self._program.form, self.inputs)

    def native(self) -> CalledProgram:
        """The model as a module, which takes and returns what the user's module does."""
        return self._called


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """An output as an array; of float32 if it is of bfloat16, which NumPy lacks.

    Args:
        tensor:
            The output.
    """
    known = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return known.detach().cpu().numpy()


def check_names(wanted: Sequence[str], known: Collection[str], what: str) -> None:
    """Check that all names are known.

    Raises:
        ValueError:
            If one is not.
    """
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"There is no {what} {name!r}: there are {', '.join(map(repr, known))}."
            )
