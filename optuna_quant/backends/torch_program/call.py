"""How a module is called: with tensors in tuples, dictionaries and data classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import torch
from torch.utils import _pytree as pytree


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    import inspect


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
            For each argument its name, or a :class:`Constant`.
        out_spec:
            The structure of its outputs.
        outputs:
            For each output its name, or a :class:`Constant`.
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

    def tensors(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors of a call by the names of the program's inputs.

        Raises:
            TypeError:
                If the arguments have another structure than those of the export, or one that
                became a constant has another value.
        """
        try:
            given = self.canonical(args, dict(kwargs))
        except TypeError as error:  # As of any function, without a word of which one.
            takes = ", ".join(self.arguments) or "no argument"
            raise TypeError(f"The model takes {takes}, as the module does: {error}.") from None
        flat, spec = pytree.tree_flatten(given)
        if spec != self.in_spec:
            raise TypeError(self._other_structure(args, dict(kwargs), spec))
        found = {}
        for value, place in zip(flat, self.inputs, strict=True):
            if not isinstance(place, Constant):
                found[place] = value
            elif not isinstance(value, torch.Tensor) and value != place.value:
                raise TypeError(
                    f"The model was exported with the argument {place.value!r}, which is a "
                    f"constant in it, but got {value!r}."
                )
        return found

    def flat_inputs(self, tensors: Mapping[str, Any]) -> list[Any]:
        """The arguments of the program in their order, from the inputs by name."""
        return [tensors[each] if isinstance(each, str) else each.value for each in self.inputs]

    def named_outputs(self, outputs: Sequence[Any]) -> dict[str, Any]:
        """What the program gives, by name; what is constant is left out."""
        named = zip(self.outputs, outputs, strict=True)
        return {name: value for name, value in named if isinstance(name, str)}

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs that are computed."""
        return [each for each in self.outputs if isinstance(each, str)]

    def structure(self, outputs: Mapping[str, torch.Tensor]) -> Structure:
        """What the module returns.

        Args:
            outputs:
                The outputs by name.
        """
        flat = [
            each.value if isinstance(each, Constant) else outputs[each] for each in self.outputs
        ]
        return pytree.tree_unflatten(flat, self.out_spec)

    def _other_structure(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], spec: pytree.TreeSpec
    ) -> str:
        names = argument_names(self.signature, args, kwargs)
        if set(names) != set(self.arguments):
            return (
                f"The model was exported with the arguments {', '.join(self.arguments)}, and "
                f"takes all of them in every call, but got {', '.join(names) or 'none'}."
            )
        return (
            "The model was exported for arguments of the structure "
            f"{_shown(self.in_spec)}, but got {_shown(spec)}."
        )


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


def _shown(spec: pytree.TreeSpec) -> str:
    marks = pytree.tree_unflatten(["*"] * spec.num_leaves, spec)
    args, kwargs = marks
    parts = [str(each) for each in args]
    parts += [f"{name}={value}" for name, value in kwargs.items()]
    return f"({', '.join(parts)})".replace("'*'", "*")
