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

    import onnxruntime


Structure: TypeAlias = Any
"""Tensors, alone or in tuples, lists, dictionaries and data classes."""


@dataclass(frozen=True, eq=False)
class CallForm:
    """How a module is called, and how its arguments and outputs become flat lists.

    Args:
        signature:
            Of its ``forward``; None if that is not known (an exported program).
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


def canonical(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments as far as a signature allows it, and the others by name."""
    if signature is None:
        return args, kwargs
    bound = signature.bind(*args, **kwargs)
    return bound.args, bound.kwargs


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
        self._present = {each.name for each in session.get_inputs()}
        self.eval()

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
            raise TypeError(
                "The model was exported for arguments of the structure "
                f"{_shown(form.in_spec)}, but got {_shown(spec)}."
            )
        device = next((x.device for x in flat if isinstance(x, torch.Tensor)), torch.device("cpu"))
        feed = {}
        for value, place in zip(flat, form.inputs, strict=True):
            if isinstance(place, Constant):
                if not isinstance(value, torch.Tensor) and value != place.value:
                    raise TypeError(
                        f"The model was exported with the argument {place.value!r}, which is a "
                        f"constant in it, but got {value!r}."
                    )
            elif place in self._present:
                feed[place] = torch.as_tensor(value).detach().cpu().numpy()
        names = [each for each in form.outputs if isinstance(each, str)]
        found = dict(zip(names, self.session.run(names, feed), strict=True))
        outputs = [
            each.value if isinstance(each, Constant) else torch.as_tensor(found[each]).to(device)
            for each in form.outputs
        ]
        return pytree.tree_unflatten(outputs, form.out_spec)


def _shown(spec: pytree.TreeSpec) -> str:
    marks = pytree.tree_unflatten(["*"] * spec.num_leaves, spec)
    args, kwargs = marks
    parts = [str(each) for each in args]
    parts += [f"{name}={value}" for name, value in kwargs.items()]
    return f"({', '.join(parts)})".replace("'*'", "*")
