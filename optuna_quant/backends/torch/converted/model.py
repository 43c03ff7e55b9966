"""The converted program of a configuration, as the rest of the library runs it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch

from optuna_quant.backends.torch.candidates.simulated import check_names
from optuna_quant.backends.torch.converted.saving import save_package
from optuna_quant.backends.torch.converted.saving import save_program
from optuna_quant.backends.torch.converted.saving import save_state_dict
from optuna_quant.backends.torch.program.called import CalledProgram


if TYPE_CHECKING:
    from collections.abc import Mapping
    import os

    from numpy.typing import NDArray

    from optuna_quant.backends.base.model import Feed
    from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
    from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
    from optuna_quant.backends.torch.converted.lowering import LoweredProgram


class ConvertedModel:
    """A converted program: a :class:`~optuna_quant.backends.base.Model` that runs as deployed.

    Args:
        simulated:
            The model of the same configuration that simulates it.
        converted:
            The converted program.
        program:
            The same as it runs here.
        function:
            Runs it.
    """

    def __init__(
        self,
        simulated: SimulatedModel,
        converted: ConvertedProgram,
        program: LoweredProgram,
        function: Callable[..., Sequence[Any]],
    ) -> None:
        self._simulated = simulated
        self._converted = converted
        self._function = function
        self.program = program
        self.inputs = simulated.inputs
        self.outputs = simulated.outputs
        self.nbytes = simulated.nbytes
        self.depends_on_batch = simulated.depends_on_batch

    @property
    def fingerprint(self) -> str:
        """A content hash of the configuration's model."""
        return self._simulated.fingerprint

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
        arrays = {spec.name: np.ascontiguousarray(feed[spec.name]) for spec in self.inputs}
        found = self.compute({name: torch.from_numpy(each) for name, each in arrays.items()})
        return [found[name].numpy() for name in names]

    def compute(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, for the inputs by name."""
        form = self._simulated.form
        with torch.no_grad():
            outputs = self._function(*form.flat_inputs(tensors))
        return form.named_outputs(outputs)

    def native(self) -> CalledProgram:
        """The model as a module, which takes and returns what the user's module does."""
        return CalledProgram(self.compute, self._simulated.form)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the converted program to a file, which is replaced as a whole or left as it was.

        :func:`optuna_quant.backends.torch.load` reads it.
        """
        save_program(self._converted, path)

    def save_package(self, path: str | os.PathLike[str]) -> None:
        """Compile the program ahead of time, for this kind of processor.

        :func:`optuna_quant.backends.torch.load` reads the package. It runs without Python as well.

        Args:
            path:
                The file, which ends with ``".pt2"``; it is replaced as a whole.

        Raises:
            RuntimeError:
                If there is no C++ compiler.
            ValueError:
                If the path does not end with ``".pt2"``.
        """
        save_package(self._converted, path)

    def save_state_dict(self, path: str | os.PathLike[str]) -> None:
        """Write the integers, scales and floats of the program, with its configuration.

        :func:`torch.load` gives a dictionary with ``"state_dict"``, whose names are the paths of
        the module's parameters, and ``"configuration"``, the JSON text of the configuration.

        Args:
            path:
                The file, which is replaced as a whole.
        """
        save_state_dict(self._converted, path)


def converted_model(
    simulated: SimulatedModel, converted: ConvertedProgram, *, lower: bool, compile: bool
) -> ConvertedModel:
    """A converted program as a model.

    Args:
        simulated:
            The model of the same configuration that simulates it.
        converted:
            The program.
        lower:
            Whether to put in this machine's kernels.
        compile:
            Whether to compile it at its first run.
    """
    if compile:
        as_it_is = converted.loaded(lower=False)
        return ConvertedModel(simulated, converted, as_it_is, converted.compiled())
    program = converted.loaded(lower=lower)
    return ConvertedModel(simulated, converted, program, program.graph)
