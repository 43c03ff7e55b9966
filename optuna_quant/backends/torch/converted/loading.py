"""A saved program as a module again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from optuna_quant.backends.torch.converted.rebuilding import rebuilt
from optuna_quant.backends.torch.converted.saving import read_package
from optuna_quant.backends.torch.converted.saving import read_program
from optuna_quant.backends.torch.converted.state_files import is_state
from optuna_quant.backends.torch.converted.state_files import read_state
from optuna_quant.backends.torch.program.called import CalledProgram
from optuna_quant.backends.torch.program.inputs import specs_of


if TYPE_CHECKING:
    import os

    from torch.export import ExportedProgram

    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.data.inputs import InputSpec


def load(
    path: str | os.PathLike[str],
    *,
    module: torch.nn.Module | ExportedProgram | None = None,
    example_inputs: object = None,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None = None,
    lower: bool = True,
    compile: bool = False,
) -> CalledProgram:
    """Load a quantized program that a :class:`TorchModel` wrote.

    What ``save`` and ``save_package`` wrote is loaded as it is. What ``save_state_dict`` wrote is
    made a program again, the same as ``save`` writes, of a module of the same code.

    Args:
        path:
            The file. One of ``save`` or ``save_package`` may contain code of PyTorch's: load only
            files that you trust. One of ``save_state_dict`` contains none.
        module:
            For a file of ``save_state_dict``: the module that was quantized, or a new one of the
            same code, whose weights do not matter. It is exported as for
            :class:`~optuna_quant.backends.torch.TorchBackend`, and not changed.
        example_inputs:
            Beside ``module``: what its ``forward`` takes, in the shapes with which it was
            quantized; see :class:`~optuna_quant.backends.torch.TorchBackend`.
        dynamic_shapes:
            Beside ``module``: which axes may have any size, if the backend was given that.
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
        ModuleExportError:
            If ``module`` cannot be exported.
        TypeError:
            If ``module`` is none.
        ValueError:
            If the module takes or returns a data class that is not registered, ``lower`` or
            ``compile`` is given for a package, ``module`` for anything but a file of
            ``save_state_dict``, or if there it is missing or another one.
    """
    package = read_package(path)
    if package is None and is_state(path):
        converted = rebuilt(
            read_state(path), path, module, example_inputs, dynamic_shapes=dynamic_shapes
        )
    else:
        if any(each is not None for each in (module, example_inputs, dynamic_shapes)):
            raise ValueError(
                f"{str(path)!r} is a program by itself, so module, example_inputs and "
                "dynamic_shapes do not apply: load it without. They are for what save_state_dict "
                "writes."
            )
        if package is not None:
            _check_package_options(path, lower=lower, compile=compile)
            return called(*package)
        converted = read_program(path)
    inputs = specs_of(converted.program, converted.form)
    if compile:
        return called(converted.compiled(), converted.form, inputs)
    return called(converted.loaded(lower=lower).graph, converted.form, inputs)


def _check_package_options(path: str | os.PathLike[str], *, lower: bool, compile: bool) -> None:
    if not lower or compile:
        given = "compile=True" if lower else "lower=False"
        raise ValueError(
            f"{str(path)!r} is a package, which was compiled ahead of time, so {given} does "
            "not apply: load it without, or load what save wrote instead of save_package."
        )


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
