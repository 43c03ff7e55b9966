"""What a program expects of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_quant.data.inputs import InputSpec


if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.backends.torch_program.export import ModuleProgram


_AXES = {0: "batch", 1: "length"}


def input_specs(exported: ModuleProgram) -> tuple[InputSpec, ...]:
    """The inputs of a program; what is constant in it is left out.

    Args:
        exported:
            The program.

    Raises:
        ValueError:
            If one is of a type that NumPy lacks.
    """
    return specs_of(exported.program, exported.form)


def specs_of(program: ExportedProgram, form: CallForm) -> tuple[InputSpec, ...]:
    """The inputs of a program that was exported in one form; what is constant is left out.

    Args:
        program:
            The program, or one that was made of it.
        form:
            How the module is called.

    Raises:
        ValueError:
            If one is of a type that NumPy lacks.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names: dict[str, str] = {}
    found = []
    for place in form.inputs:
        value = values.get(place) if isinstance(place, str) else None
        if isinstance(place, str) and isinstance(value, torch.Tensor):
            shape = tuple(
                size if isinstance(size, int) else _axis(str(size), axis, names)
                for axis, size in enumerate(value.shape)
            )
            found.append(InputSpec(place, _dtype(value.dtype, place), shape))
    return tuple(found)


def _axis(symbol: str, axis: int, names: dict[str, str]) -> str:
    """A name for people in the place of the exporter's symbol."""
    if symbol not in names:
        usual = _AXES.get(axis, f"axis{axis}")
        taken = sum(each.partition("_")[0] == usual for each in names.values())
        names[symbol] = usual if not taken else f"{usual}_{taken + 1}"
    return names[symbol]


def _dtype(dtype: torch.dtype, name: str) -> np.dtype[np.generic]:
    try:
        return np.dtype(torch.zeros(0, dtype=dtype).numpy().dtype)
    except TypeError:
        given = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"Input {name!r} is of {given}, which NumPy lacks, so there are no arrays to "
            "calibrate with: give the example with .to(torch.float32), and a module that takes "
            f"it so, which may convert it to {given} in its forward."
        ) from None
