"""A quantized program, called as the module is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from optuna_quant.backends.torch_program.called_module import CalledModule


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.backends.torch_program.call import Structure


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
    """

    def __init__(
        self,
        compute: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]],
        form: CallForm,
    ) -> None:
        super().__init__()
        self._compute = compute
        self._form = form
        self.eval()

    def __deepcopy__(self, memo: dict[int, object]) -> CalledProgram:
        return CalledProgram(self._compute, self._form)  # Programs hold no state.

    def extra_repr(self) -> str:
        """The inputs and the outputs."""
        inputs = [each for each in self._form.inputs if isinstance(each, str)]
        return f"inputs=[{', '.join(inputs)}], outputs=[{', '.join(self._form.output_names)}]"

    def forward(self, *args: Structure, **kwargs: Structure) -> Structure:
        """What the module's ``forward`` takes and returns.

        Raises:
            TypeError:
                If the arguments have another structure than those of the export, or one that
                became a constant has another value.
        """
        tensors = self._form.tensors(args, kwargs)
        leaves = (each for each in tensors.values() if isinstance(each, torch.Tensor))
        device = next((each.device for each in leaves), torch.device("cpu"))
        found = {name: each.to(device) for name, each in self._compute(tensors).items()}
        return self._form.structure(found)
