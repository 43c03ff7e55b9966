"""A quantized program, called as the module is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.program.checked_inputs import checked_inputs
from optuna_quant.backends.torch_program.called_module import CalledModule


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.backends.torch_program.call import Structure
    from optuna_quant.data.inputs import InputSpec


class CalledProgram(CalledModule):
    """A quantized program in the place of the module that it was exported from.

    It takes and returns what the module does, so a function that evaluates the module evaluates
    this. Outputs are on the device of the first tensor that is given. It is always in evaluation
    mode, and computes without gradients.

    Args:
        compute:
            Gives the outputs by name, for the inputs by name.
        form:
            How the module is called.
        inputs:
            What it expects of its inputs; of those that are not there it is not known.
    """

    def __init__(
        self,
        compute: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]],
        form: CallForm,
        inputs: Sequence[InputSpec] = (),
    ) -> None:
        super().__init__()
        self._compute = compute
        self._form = form
        self._specs = tuple(inputs)
        # Where a user compiles it, or a module that has it, it runs as it is: compiled with other
        # settings than those of the backend, the kernels' packed weights are an error.
        outside_of_compilers: Any = torch.compiler.disable
        self._run_as_it_is: Callable[..., Structure] = outside_of_compilers(self._run)
        self.eval()

    def __deepcopy__(self, memo: dict[int, object]) -> CalledProgram:
        return CalledProgram(self._compute, self._form, self._specs)  # Programs hold no state.

    def extra_repr(self) -> str:
        """The inputs and the outputs."""
        inputs = [each for each in self._form.inputs if isinstance(each, str)]
        return f"inputs=[{', '.join(inputs)}], outputs=[{', '.join(self._form.output_names)}]"

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """There is none; a module that has this one in it gets what it has without it.

        Raises:
            TypeError:
                If it is asked for by itself: the weights are in the program, as integers.
        """
        # A module gives the dictionary to which each module in it is to add its own.
        destination = args[0] if args else kwargs.get("destination")
        if destination is not None:
            return destination
        raise TypeError(
            "A quantized program has no state_dict: result.model().save_state_dict(path) writes "
            "its integers and scales by the names of your parameters, and result.save(path) what "
            "optuna_quant.backends.torch.load gives back."
        )

    def forward(self, *args: Structure, **kwargs: Structure) -> Structure:
        """What the module's ``forward`` takes and returns.

        Raises:
            TypeError:
                If the arguments have another structure than those of the export, or one that
                became a constant has another value; or if an input is no tensor, or one of
                other floats.
            ValueError:
                If an input has another shape.
        """
        return self._run_as_it_is(args, kwargs)

    def _run(self, args: tuple[Structure, ...], kwargs: Mapping[str, Structure]) -> Structure:
        tensors = checked_inputs(self._form.tensors(args, kwargs), self._specs)
        leaves = (each for each in tensors.values() if isinstance(each, torch.Tensor))
        device = next((each.device for each in leaves), torch.device("cpu"))
        found = {name: each.to(device) for name, each in self._compute(tensors).items()}
        return self._form.structure(found)
