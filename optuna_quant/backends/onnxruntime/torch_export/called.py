"""A session of an exported module, called as the module is: with tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import torch
from torch.utils import _pytree as pytree


if TYPE_CHECKING:
    from collections.abc import Sequence
    import inspect

    from numpy.typing import NDArray
    import onnxruntime


Structure: TypeAlias = Any
"""Tensors, alone or in tuples, lists, dictionaries and data classes."""


@dataclass(frozen=True, eq=False)
class CallForm:
    """How a module is called, and how its arguments and outputs become flat lists.

    Args:
        signature:
            Of its ``forward``; None if that is not known (an exported program).
        arguments:
            The names of the arguments with which it was exported; empty if they are not known.
        in_spec:
            The structure of its arguments.
        inputs:
            For each argument the name of the ONNX model's input, or a :class:`Constant`.
        out_spec:
            The structure of its outputs.
        outputs:
            For each output the name of the ONNX model's, or a :class:`Constant`.
    """

    signature: inspect.Signature | None
    arguments: Sequence[str]
    in_spec: pytree.TreeSpec
    inputs: Sequence[str | Constant]
    out_spec: pytree.TreeSpec
    outputs: Sequence[str | Constant]

    def canonical(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the module was exported with them, however the caller gives them."""
        return canonical(self.signature, args, kwargs)


@dataclass(frozen=True)
class Constant:
    """An argument or output that is the same in every call.

    Args:
        value:
            What it is.
    """

    value: object


def argument_names(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, ...]:
    """The names of the arguments of a call; empty if there is no signature."""
    return () if signature is None else tuple(signature.bind(*args, **kwargs).arguments)


def canonical(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments as far as a signature allows it, and the others by name."""
    if signature is None:
        return args, kwargs
    bound = signature.bind(*args, **kwargs)
    return bound.args, bound.kwargs


_DTYPES = {
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(bool)": torch.bool,
    "tensor(float)": torch.float32,
}


class CalledSession(torch.nn.Module):
    """A quantized model in the place of the module that it was exported from.

    It takes and returns what the module does, tensors in the same tuples, dictionaries and data
    classes, so a function that evaluates the module evaluates this. It has no parameters, is
    always in evaluation mode, and computes without gradients. Outputs are on the device of the
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
        outputs = [each for each in self._form.outputs if isinstance(each, str)]
        return f"inputs=[{', '.join(self._inputs)}], outputs=[{', '.join(outputs)}]"

    def train(self, mode: bool = True) -> CalledSession:
        """Nothing changes: a quantized model has no training mode."""
        return super().train(False)

    def forward(self, *args: Structure, **kwargs: Structure) -> Structure:
        """What the module's ``forward`` takes and returns.

        Raises:
            TypeError:
                If the arguments have another structure than those of the export, or one that
                became a constant has another value.
        """
        form = self._form
        given = form.canonical(args, kwargs)
        flat, spec = pytree.tree_flatten(given)
        if spec != form.in_spec:
            raise TypeError(self._other_structure(args, kwargs, spec))
        device = next((x.device for x in flat if isinstance(x, torch.Tensor)), torch.device("cpu"))
        feed = {}
        for value, place in zip(flat, form.inputs, strict=True):
            if isinstance(place, Constant):
                if not isinstance(value, torch.Tensor) and value != place.value:
                    raise TypeError(
                        f"The model was exported with the argument {place.value!r}, which is a "
                        f"constant in it, but got {value!r}."
                    )
            elif place in self._inputs:
                feed[place] = _as_array(value, self._inputs[place])
        names = [each for each in form.outputs if isinstance(each, str)]
        found = dict(zip(names, self.session.run(names, feed), strict=True))
        outputs = [
            each.value if isinstance(each, Constant) else torch.as_tensor(found[each]).to(device)
            for each in form.outputs
        ]
        return pytree.tree_unflatten(outputs, form.out_spec)

    def _other_structure(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], spec: pytree.TreeSpec
    ) -> str:
        form = self._form
        names = argument_names(form.signature, args, kwargs)
        if set(names) != set(form.arguments):
            return (
                f"The model was exported with the arguments {', '.join(form.arguments)}, and "
                f"takes all of them in every call, but got {', '.join(names) or 'none'}."
            )
        return (
            "The model was exported for arguments of the structure "
            f"{_shown(form.in_spec)}, but got {_shown(spec)}."
        )


def _as_array(value: Any, dtype: torch.dtype | None) -> NDArray[Any]:
    """A tensor as the session takes it; integers and truth values may be of another width."""
    tensor = torch.as_tensor(value).detach().cpu()
    if dtype is not None and not tensor.is_floating_point() and not dtype.is_floating_point:
        tensor = tensor.to(dtype)
    array: NDArray[Any] = tensor.numpy()
    return array


def _shown(spec: pytree.TreeSpec) -> str:
    marks = pytree.tree_unflatten(["*"] * spec.num_leaves, spec)
    args, kwargs = marks
    parts = [str(each) for each in args]
    parts += [f"{name}={value}" for name, value in kwargs.items()]
    return f"({', '.join(parts)})".replace("'*'", "*")
