"""A PyTorch module as an exported program, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
import inspect
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger
import torch
from torch.export.graph_signature import InputKind
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from optuna_quant._common.steps import doing
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.torch_program.arguments import Arguments
from optuna_quant.backends.torch_program.arguments import arguments_of
from optuna_quant.backends.torch_program.arguments import attempts
from optuna_quant.backends.torch_program.arguments import is_tokens
from optuna_quant.backends.torch_program.call import CallForm
from optuna_quant.backends.torch_program.call import Constant
from optuna_quant.backends.torch_program.call import argument_names
from optuna_quant.backends.torch_program.errors import export_error
from optuna_quant.backends.torch_program.errors import reason_of
from optuna_quant.backends.torch_program.mixed_types import check_types
from optuna_quant.backends.torch_program.quiet import in_evaluation_mode
from optuna_quant.backends.torch_program.quiet import without_idle_output


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    from torch.export import ExportedProgram


_logger = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class ModuleProgram:
    """A module as an exported program.

    Args:
        program:
            The program.
        name:
            What the module is called in messages, as in "the module Net".
        form:
            How the module is called, and how the program's inputs and outputs are called.
        lifted:
            The names of the parameters that the program has as constants, too, by the names of
            the constants.
    """

    program: ExportedProgram
    name: str
    form: CallForm
    lifted: Mapping[str, str] = field(default_factory=dict)

    def module_paths(self) -> set[str]:
        """The paths of all modules that have a part in the program."""
        paths: set[str] = set()
        for node in self.program.graph.nodes:
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                paths.add(path.partition("@")[0])
        for parameter in self.program.state_dict:
            paths.add(parameter.rpartition(".")[0])
        return paths - {""}


def export_program(
    module: torch.nn.Module | ExportedProgram,
    example_inputs: object = None,
    *,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None = None,
    to: str = "",
) -> ModuleProgram:
    """Export a PyTorch module in evaluation mode; it is not changed.

    Args:
        module:
            The module, with weights of 32 bits; or an exported program of it.
        example_inputs:
            What its ``forward`` takes: a tensor, a tuple of arguments, or a dict of arguments by
            name. An exported program needs none.
        dynamic_shapes:
            Which axes may have any size, as for :func:`torch.export.export`. Default: the first
            axis of each tensor, and the second one of texts; where the module allows it.
        to:
            What it is exported to, for messages: ``"ONNX"``, or nothing.

    Raises:
        ModuleExportError:
            If the module cannot be exported; it names the line and the reason.
        TypeError:
            If ``module`` is neither of the two.
        ValueError:
            If ``example_inputs`` are missing, do not fit, or are floats of another type than the
            weights, which must be of 32 bits; or if the module is compiled.
    """
    signature: inspect.Signature | None = None
    names: tuple[str, ...] = ()
    if isinstance(module, torch.export.ExportedProgram):
        program = module
        name = "the exported program"
        _check_weights(module.state_dict, name)
    elif hasattr(module, "_orig_mod"):
        raise ValueError(
            "The module is compiled (torch.compile), so it cannot be exported: give the module "
            "that was compiled."
        )
    elif isinstance(module, torch.nn.Module):
        name = f"the module {type(module).__name__}"
        _check_weights(module.state_dict(), name)
        signature = inspect.signature(module.forward)
        arguments = arguments_of(example_inputs, name, signature)
        names = argument_names(signature, *arguments)
        program = _program(module, name, signature, arguments, dynamic_shapes, to)
        check_types(program, name)
    else:
        raise TypeError(
            "module must be a torch.nn.Module or a torch.export.ExportedProgram, but got "
            f"{type(module).__name__}."
        )
    form = CallForm(
        signature,
        names,
        program.call_spec.in_spec,
        _inputs(program),
        program.call_spec.out_spec,
        _outputs(program),
    )
    return ModuleProgram(program, name, form, _lifted_parameters(program))


def _lifted_parameters(program: ExportedProgram) -> dict[str, str]:
    """The names of the parameters that a program has as constants, too, by the constants' names.

    Keras takes its variables out of their parameters, which gives tensors of the same memory.

    Args:
        program:
            The program.
    """
    known: dict[object, str] = {}
    for name, tensor in program.state_dict.items():
        # Of several names the shortest one is that of the whole model.
        same = known.setdefault(_memory(tensor), name)
        known[_memory(tensor)] = min(same, name, key=len)
    found = {}
    for name, constant in program.constants.items():
        if isinstance(constant, torch.Tensor) and constant.numel():
            path = known.get(_memory(constant))
            if path is not None:
                found[name] = path
    return found


def _memory(tensor: torch.Tensor) -> object:
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype


def _program(
    module: torch.nn.Module,
    name: str,
    signature: inspect.Signature,
    given: Arguments,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None,
    to: str,
) -> ExportedProgram:
    *earlier, last = attempts(signature, given, dynamic_shapes)
    found: ExportedProgram | None = None
    why = ""
    step = doing(f"Exporting {name} with torch.export")
    with step, in_evaluation_mode(module), torch.no_grad(), without_idle_output():
        for (args, kwargs), shapes in earlier:
            try:
                program = torch.export.export(
                    module, args, kwargs, dynamic_shapes=shapes, strict=False
                )
            except Exception as error:  # The last attempt says why, if it fails as well.
                why = why or reason_of(error)
                continue
            if program.range_constraints:
                found = program
                break
        if found is None:
            (args, kwargs), shapes = last
            try:
                found = torch.export.export(
                    module, args, kwargs, dynamic_shapes=shapes, strict=False
                )
            except Exception as error:
                raise export_error(name, error, to=to) from error
    if dynamic_shapes is None:
        _tell_fixed_batch(found, name, why)
        _tell_fixed_length(found, name)
    return found


def _input_tensors(program: ExportedProgram) -> list[torch.Tensor]:
    inputs = set(program.graph_signature.user_inputs)
    values = [n.meta.get("val") for n in program.graph.nodes if n.name in inputs]
    return [each for each in values if isinstance(each, torch.Tensor)]


def _is_fixed(size: int | torch.SymInt) -> bool:
    # What was free at first and turned out to have one value is no int.
    return str(size).isdigit()


def _tell_fixed_length(program: ExportedProgram, name: str) -> None:
    """Tell if a program takes texts of one length alone, as with an LSTM."""
    for each in _input_tensors(program):
        if is_tokens(each) and _is_fixed(each.shape[1]):
            _logger.info(
                f"T{name[1:]} is exported for integers of shape (batch, {each.shape[1]}) alone: "
                "if these are texts of several lengths, pad all to one and give example_inputs "
                "of it. (torch.export finds that the second axis cannot have any size.)"
            )
            return


def _tell_fixed_batch(program: ExportedProgram, name: str, why: str) -> None:
    """Warn if a program takes batches of one size alone."""
    sizes = [each.shape[0] for each in _input_tensors(program) if each.ndim]
    if not sizes or not all(map(_is_fixed, sizes)):
        return
    if not why:
        why = "what its forward computes depends on that size"
    warn_user(
        f"T{name[1:]} is exported for batches of {sizes[0]} alone, and quantized models take no "
        f"others: torch.export finds that the first axis cannot have any size ({why}). If others "
        "are needed, write its forward without a fixed one (reshape(x.shape[0], ...)), or give "
        "example_inputs in the size that is used."
    )


def _check_weights(weights: Mapping[str, torch.Tensor], name: str) -> None:
    for parameter, each in weights.items():
        if each.is_floating_point() and each.dtype != torch.float32:
            raise ValueError(
                f"{parameter!r} of {name} is {each.dtype}, but a module is quantized from weights "
                "of 32 bits: give module.float(), or a copy of it."
            )


def _inputs(program: ExportedProgram) -> list[str | Constant]:
    specs = program.graph_signature.input_specs
    args = [spec.arg for spec in specs if spec.kind is InputKind.USER_INPUT]
    return [Constant(arg.value) if hasattr(arg, "value") else arg.name for arg in args]


def _outputs(program: ExportedProgram) -> list[str | Constant]:
    """The outputs, named after their places in what the module returns."""
    specs = program.graph_signature.output_specs
    args = [spec.arg for spec in specs if spec.kind is OutputKind.USER_OUTPUT]
    marks = pytree.tree_unflatten(list(range(len(args))), program.call_spec.out_spec)
    places = {number: path for path, number in pytree.tree_flatten_with_path(marks)[0]}
    taken = set(_names_of_inputs(program))
    found: list[str | Constant] = []
    for number, arg in enumerate(args):
        if hasattr(arg, "value"):
            found.append(Constant(arg.value))
            continue
        name = _name_of_place(places[number])
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(name)
    return found


def _names_of_inputs(program: ExportedProgram) -> Iterator[str]:
    return (spec.arg.name for spec in program.graph_signature.input_specs)


def _name_of_place(path: Sequence[Any]) -> str:
    parts = [_part(key) for key in path]
    if not parts:
        return "output"
    return "_".join(parts) if not parts[0].isdigit() else f"output_{'_'.join(parts)}"


def _part(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
