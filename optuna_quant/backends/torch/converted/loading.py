"""A saved program as a module again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.saving import read_package
from optuna_quant.backends.torch.converted.saving import read_program
from optuna_quant.backends.torch.program.called import CalledProgram
from optuna_quant.backends.torch.program.inputs import specs_of


if TYPE_CHECKING:
    import os

    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.data.inputs import InputSpec


def load(
    path: str | os.PathLike[str], *, lower: bool = True, compile: bool = False
) -> CalledProgram:
    """Load a quantized program that :meth:`TorchModel.save` or ``save_package`` wrote.

    Args:
        path:
            The file. It may contain code of PyTorch's: load only files that you trust.
        lower:
            Whether to use this machine's integer kernels, which takes torchao and a second or
            two. Otherwise the program computes in floats what integers would give. A package is
            loaded as it was compiled.
        compile:
            Whether to compile it at its first call, which takes a C++ compiler and up to minutes.
            Not for a package, which is compiled.

    Returns:
        A module that takes and returns what the module does that was quantized.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ModelFileError:
            If it is something else, or damaged.
        ValueError:
            If the module takes or returns a data class that is not registered, or ``lower`` or
            ``compile`` is given for a package.
    """
    package = read_package(path)
    if package is not None:
        if not lower or compile:
            given = "compile=True" if lower else "lower=False"
            raise ValueError(
                f"{str(path)!r} is a package, which was compiled ahead of time, so {given} does "
                "not apply: load it without, or load what save wrote instead of save_package."
            )
        return called(*package)
    converted = read_program(path)
    inputs = specs_of(converted.program, converted.form)
    if compile:
        return called(converted.compiled(), converted.form, inputs)
    return called(converted.loaded(lower=lower).graph, converted.form, inputs)


def called(
    function: Callable[..., Sequence[Any]], form: CallForm, inputs: Sequence[InputSpec] = ()
) -> CalledProgram:
    """A program, called as the user's module is.

    Args:
        function:
            Takes the inputs in their order and gives the outputs.
        form:
            How the module is called.
        inputs:
            What it expects of its inputs, as far as that is known.
    """

    def compute(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return form.named_outputs(function(*form.flat_inputs(tensors)))

    return CalledProgram(compute, form, inputs)
