"""The inputs that the model of a module will have, as far as they are known before its export."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.utils import _pytree as pytree

from optuna_quant.backends.torch_program.arguments import arguments_of
from optuna_quant.backends.torch_program.arguments import text_lengths
from optuna_quant.data.inputs import InputSpec


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram


def expected_inputs(
    module: torch.nn.Module | ExportedProgram, example_inputs: object
) -> tuple[InputSpec, ...] | None:
    """The inputs of the model that a module will be exported to, by what it is exported with.

    Args:
        module:
            The module, or an exported program.
        example_inputs:
            What the module's ``forward`` takes.

    Returns:
        The inputs, with axes of any size where the export will ask for that; None where it is the
        export that tells them: an exported program, tensors within tuples, dictionaries or data
        classes, or dtypes that NumPy does not have.

    Raises:
        ValueError:
            If ``example_inputs`` are missing or do not fit.
    """
    if not isinstance(module, torch.nn.Module):
        return None
    signature = inspect.signature(module.forward)
    args, kwargs = arguments_of(example_inputs, f"the module {type(module).__name__}", signature)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in signature.parameters.values()):
        return None
    named = {**dict(zip(signature.parameters, args, strict=False)), **kwargs}
    lengths = text_lengths((args, kwargs))
    found: list[InputSpec | None] = [
        _spec(name, value, lengths) for name, value in named.items() if _holds_tensors(value)
    ]
    specs = [spec for spec in found if spec is not None]
    return tuple(specs) if len(specs) == len(found) else None


def _spec(name: str, value: Any, lengths: Sequence[int] | frozenset[int]) -> InputSpec | None:
    if not isinstance(value, torch.Tensor):
        return None
    try:
        dtype = torch.empty(0, dtype=value.dtype).numpy().dtype
    except TypeError:  # Such as bfloat16.
        return None
    shape: list[int | str | None] = list(value.shape)
    if shape:
        shape[0] = None
    if len(shape) > 1 and shape[1] in lengths:
        shape[1] = None
    return InputSpec(name, dtype, tuple(shape))


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(value))
