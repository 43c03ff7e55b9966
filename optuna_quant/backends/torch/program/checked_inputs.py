"""Check what a program is called with, before PyTorch stumbles over it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from optuna_quant.data.inputs import InputSpec


def checked_inputs(tensors: Mapping[str, Any], specs: Sequence[InputSpec]) -> dict[str, Any]:
    """The inputs of a call as the program takes them: integers may be of another width.

    Args:
        tensors:
            The inputs by name.
        specs:
            What the program expects of them.

    Raises:
        TypeError:
            If one is no tensor, or of floats where others are needed.
        ValueError:
            If one has another shape, or integers that the program's type does not hold.
    """
    found = dict(tensors)
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        value = found.get(spec.name)
        if not isinstance(value, torch.Tensor):
            cure = ""
            if isinstance(value, np.ndarray):
                cure = ": torch.from_numpy(...) makes one of an array"
            raise TypeError(
                f"Input {spec.name!r} must be a tensor ({spec}), but got "
                f"{type(value).__name__}{cure}."
            )
        found[spec.name] = _of_dtype(value, spec)
        _check_shape(value, spec, sizes)
    return found


def _of_dtype(value: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    wanted = torch.from_numpy(np.empty(0, spec.dtype)).dtype
    if value.dtype == wanted:
        return value
    if not value.is_floating_point() and not wanted.is_floating_point:
        return _narrowed(value, wanted, spec)
    name, given = str(wanted).removeprefix("torch."), str(value.dtype).removeprefix("torch.")
    raise TypeError(
        f"Input {spec.name!r} must be of {name}, but is of {given}: give it with "
        f".to(torch.{name})."
    )


def _narrowed(value: torch.Tensor, wanted: torch.dtype, spec: InputSpec) -> torch.Tensor:
    found = value.to(wanted)
    # Back in its own type it is the same if each value fits.
    if not torch.equal(found.to(value.dtype), value):
        name = str(wanted).removeprefix("torch.")
        raise ValueError(
            f"Input {spec.name!r} must be of {name}, but has values that do not fit into it."
        )
    return found


def _check_shape(value: torch.Tensor, spec: InputSpec, sizes: dict[str, tuple[int, str]]) -> None:
    """Refuse other sizes; and sizes of one name that differ, which are remembered in ``sizes``."""
    if spec.shape is None:
        return
    shape = tuple(value.shape)
    fits = len(shape) == len(spec.shape) and all(
        isinstance(wanted, str | None) or wanted == size
        for wanted, size in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Input {spec.name!r} must be {spec}, but has the shape {shape}. (The module was "
            "exported so: dynamic_shapes= says which axes may have any size.)"
        )
    for wanted, size in zip(spec.shape, shape, strict=True):
        if not isinstance(wanted, str):
            continue
        known, of = sizes.setdefault(wanted, (size, spec.name))
        if known != size:
            raise ValueError(
                f"Input {spec.name!r} must be {spec}, with the {wanted} of {of!r}, {known}, but "
                f"has the shape {shape}."
            )
