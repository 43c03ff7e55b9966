"""What a module is exported with: its arguments, and the axes that may have any size."""

from __future__ import annotations

from collections.abc import Mapping
import inspect
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import numpy as np
import torch
from torch.utils import _pytree as pytree

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.torch_program.call import canonical


if TYPE_CHECKING:
    from collections.abc import Sequence


Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of a call: by position, and by name."""


def attempts(
    signature: inspect.Signature,
    arguments: Arguments,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None,
) -> list[tuple[Arguments, Any]]:
    """With what to export a module, best first: arguments, and axes that may have any size."""
    two = _with_a_batch(arguments)
    wide = arguments if two is None else two
    if dynamic_shapes is not None:
        return [(wide, dynamic_shapes)]
    lengths = text_lengths(wide)
    _tell_short_texts(wide)
    attempts: list[tuple[Arguments, Any]] = [(wide, _free_axes(signature, wide, lengths))]
    if lengths:
        attempts.append((wide, _free_axes(signature, wide, frozenset())))
    if two is not None:  # A module that takes one sample only.
        attempts.append((arguments, None))
    return attempts


def arguments_of(example_inputs: object, name: str, signature: inspect.Signature) -> Arguments:
    """The arguments of a call, by position as far as the signature allows it."""
    if example_inputs is None:
        raise ValueError(
            f"T{name[1:]} needs example_inputs: what its forward() takes, as a tensor, a tuple of "
            "arguments, or a dict of arguments by name."
        )
    given: Arguments = (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        given = (), dict(example_inputs)
    elif isinstance(example_inputs, (tuple, list)):
        given = tuple(example_inputs), {}
    args, kwargs = _as_tensors(given)
    try:
        return canonical(signature, args, kwargs)
    except TypeError as error:
        raise ValueError(
            f"example_inputs do not fit {name}: {error}. Its forward takes {signature}."
        ) from error


def _as_tensors(arguments: Any) -> Any:
    def as_tensor(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            # NumPy makes float64, which no weight has; calibration data are cast as well.
            found = leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf
            leaf = torch.from_numpy(np.ascontiguousarray(found))
        # The exporter takes the strides of an example for those of all inputs.
        return leaf.detach().contiguous() if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(as_tensor, arguments)


def _with_a_batch(arguments: Arguments) -> Arguments | None:
    """The arguments with two samples in the place of one; None if they are no batch of one.

    The exporter takes an axis of length 1 for one that always has this length.
    """
    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] != 1 for leaf in leaves):
        return None

    def doubled(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf

    doubled_args, doubled_kwargs = pytree.tree_map(doubled, arguments)
    return doubled_args, doubled_kwargs


def text_lengths(arguments: Arguments) -> frozenset[int]:
    """The lengths of texts, of the tensors that may be their tokens."""
    leaves = (leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
    tokens = (x for x in leaves if is_tokens(x))
    return frozenset(x.shape[1] for x in tokens if x.shape[1] > 1)


def is_tokens(tensor: torch.Tensor) -> bool:
    """Whether a tensor may be the tokens of texts: integers with two axes."""
    return tensor.dtype in (torch.int64, torch.int32) and tensor.ndim == 2


def _tell_short_texts(arguments: Arguments) -> None:
    """Warn of texts of one token, which look like texts that always have one."""
    leaves = (leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
    tokens = [x for x in leaves if is_tokens(x)]
    if tokens and all(x.shape[1] == 1 for x in tokens):
        warn_user(
            "example_inputs are of length 1, which torch.export takes for the length of all "
            "inputs: give a longer example if others have more."
        )


def _free_axes(
    signature: inspect.Signature, arguments: Arguments, lengths: frozenset[int]
) -> dict[str, Any]:
    """The axes that may have any size, by the names of arguments.

    The first axis of each tensor, and the second one if it has the length of the texts.
    """

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return None
        free = {0} if leaf.ndim > 0 and leaf.shape[0] > 1 else set()
        if leaf.ndim > 1 and leaf.shape[1] in lengths:
            free.add(1)
        return {axis: torch.export.Dim.AUTO for axis in free} or None

    def of_each(value: Any) -> Any:
        if value is None or isinstance(value, (torch.Tensor, bool, int, float, str)):
            return of(value)
        if isinstance(value, dict):
            return {name: of_each(each) for name, each in value.items()}
        # Of data classes, as of lists, the exporter takes a list.
        parts = pytree.tree_flatten(value, is_leaf=lambda each: each is not value)[0]
        if len(parts) == 1 and parts[0] is value:
            return of(value)
        found = [of_each(each) for each in parts]
        return tuple(found) if isinstance(value, tuple) else found

    args, kwargs = arguments
    parameters = list(signature.parameters.values())
    shapes: dict[str, Any] = {}
    for place, value in enumerate(args):
        parameter = parameters[min(place, len(parameters) - 1)]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            shapes[parameter.name] = tuple(of_each(each) for each in args[place:])
            break
        shapes[parameter.name] = of_each(value)
    return {**shapes, **{name: of_each(value) for name, value in kwargs.items()}}
