"""A session of an exported module, called as the module is: with tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any
from typing import NoReturn

import torch

from optuna_quant.backends.torch_program.called_module import CalledModule


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import onnxruntime

    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.backends.torch_program.call import Structure


_DTYPES = {
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(bool)": torch.bool,
    "tensor(float)": torch.float32,
}

_SAVE = (
    'write it with result.save("model.onnx"), and load that with '
    'optuna_quant.backends.onnxruntime.load_module("model.onnx")'
)


class CalledSession(CalledModule):
    """A quantized model in the place of the module that it was exported from.

    It takes and returns what the module does, tensors in the same tuples, dictionaries and data
    classes, so a function that evaluates the module evaluates this. It is always in
    evaluation mode, and computes without gradients. Outputs are on the device of the
    first tensor that is given.

    Args:
        session:
            The session that computes.
        form:
            How the module is called.

    Attributes:
        session:
            The session.
    """

    def __init__(self, session: onnxruntime.InferenceSession, form: CallForm) -> None:
        super().__init__()
        self.session = session
        self._form = form
        self._inputs = {each.name: _DTYPES.get(each.type) for each in session.get_inputs()}
        self.eval()

    def __deepcopy__(self, memo: dict[int, object]) -> CalledSession:
        return CalledSession(self.session, self._form)  # Sessions hold no state.

    def extra_repr(self) -> str:
        """The inputs and the outputs."""
        return (
            f"inputs=[{', '.join(self._inputs)}], outputs=[{', '.join(self._form.output_names)}]"
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name.startswith("_") or not hasattr(self.__dict__.get("session"), name):
                raise
            raise AttributeError(
                f"This model is called as the module is, model(...), and has no {name}(): call "
                f"it, or use the session of ONNX Runtime, model.session.{name}(...)."
            ) from error

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"A quantized model cannot be pickled: {_SAVE}.")

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """There is none.

        Raises:
            TypeError:
                Always: the weights are in the session.
        """
        raise TypeError(f"A quantized model has no state_dict: {_SAVE}.")

    def forward(self, *args: Structure, **kwargs: Structure) -> Structure:
        """What the module's ``forward`` takes and returns.

        Raises:
            TypeError:
                If the arguments have another structure than those of the export, or one that
                became a constant has another value.
        """
        tensors = self._form.tensors(args, kwargs)
        leaves = (x for x in tensors.values() if isinstance(x, torch.Tensor))
        device = next((x.device for x in leaves), torch.device("cpu"))
        feed = {
            name: _as_array(value, self._inputs[name])
            for name, value in tensors.items()
            if name in self._inputs
        }
        names = self._form.output_names
        found = zip(names, self.session.run(names, feed), strict=True)
        return self._form.structure({n: torch.as_tensor(x).to(device) for n, x in found})


def _as_array(value: Any, dtype: torch.dtype | None) -> NDArray[Any]:
    """A tensor as the session takes it; integers and truth values may be of another width."""
    tensor = torch.as_tensor(value).detach().cpu()
    if dtype is not None and not tensor.is_floating_point() and not dtype.is_floating_point:
        tensor = tensor.to(dtype)
    array: NDArray[Any] = tensor.numpy()
    return array
