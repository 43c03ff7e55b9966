"""A PyTorch module as an ONNX model, with the names of its submodules."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import inspect
import logging
from typing import TYPE_CHECKING
from typing import Any
import warnings

from optuna_quant.backends.onnxruntime.torch_export.errors import ModuleExportError
from optuna_quant.backends.onnxruntime.torch_export.errors import export_error
from optuna_quant.backends.onnxruntime.torch_export.op_names import name_by_module


if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    import onnxruntime
    import torch
    from torch.export import ExportedProgram

    from optuna_quant.backends.onnxruntime.torch_export.called import CalledSession
    from optuna_quant.backends.onnxruntime.torch_export.called import CallForm
    from optuna_quant.backends.onnxruntime.torch_export.called import Constant


_LARGEST_BYTES = 1 << 30
"""A model of more is passed as a file: a message of the format holds less than 2 GB."""


@dataclass(frozen=True, eq=False)
class ExportedModule:
    """A PyTorch module as an ONNX model.

    Args:
        proto:
            The ONNX model. Its ops are named by module: ``layer1.0.conv1``.
        modules:
            The path of the module that each op comes from, by the op's name.
        form:
            How the module is called.
    """

    proto: onnx.ModelProto
    modules: Mapping[str, str]
    form: CallForm

    def present(self, session: onnxruntime.InferenceSession) -> CalledSession:
        """A session of this model, or of one quantized from it, to be called as the module is."""
        from optuna_quant.backends.onnxruntime.torch_export.called import CalledSession

        return CalledSession(session, self.form)


def export_module(
    module: torch.nn.Module | ExportedProgram,
    example_inputs: object = None,
    *,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None = None,
) -> ExportedModule:
    """Export a PyTorch module for :func:`optuna_quant.tune`.

    That does it itself for a module and ``example_inputs``; call this to say ``dynamic_shapes``,
    or to export once for several searches. The module is exported in evaluation mode and not
    changed.

    Args:
        module:
            The module, with weights of 32 bits; or an exported program of it.
        example_inputs:
            What its ``forward`` takes: a tensor, a tuple of arguments, or a dict of arguments by
            name. Their values do not matter, their shapes and dtypes do. An exported program needs
            none.
        dynamic_shapes:
            Which axes may have any size, as for :func:`torch.export.export`. Default: the first
            axis of each tensor, which is taken to be the batch, where the module allows it.

    Raises:
        ImportError:
            If torch or onnxscript is not installed.
        ModuleExportError:
            If the module cannot be exported; it names the line and the reason.
        TypeError:
            If ``module`` is neither of the two.
        ValueError:
            If ``example_inputs`` are missing or do not fit, or the model is larger than 1 GB.

    Example:

        .. code-block:: python

            from torch.export import Dim

            exported = export_module(
                net, (tokens, mask), dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},) * 2
            )
            result = optuna_quant.tune(exported, calibration_data=loader, evaluate=evaluate)
    """
    try:
        import onnxscript  # noqa: F401 - the exporter needs it and says so at length
        import torch
    except ImportError as error:
        raise ImportError(
            f"Exporting a PyTorch module needs the package {error.name}: "
            'pip install "optuna_quant[torch]".'
        ) from error
    signature = None
    if isinstance(module, torch.export.ExportedProgram):
        program = module
        name = "The exported program"
    elif isinstance(module, torch.nn.Module):
        name = f"The module {type(module).__name__}"
        signature = inspect.signature(module.forward)
        program = _program(module, name, signature, example_inputs, dynamic_shapes)
    else:
        raise TypeError(
            "module must be a torch.nn.Module or a torch.export.ExportedProgram, but got "
            f"{type(module).__name__}."
        )
    _check_size(program, name)
    return _converted(program, name, signature)


def _program(
    module: torch.nn.Module,
    name: str,
    signature: inspect.Signature,
    example_inputs: object,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None,
) -> ExportedProgram:
    import torch

    from optuna_quant.backends.onnxruntime.torch_export.called import canonical

    given = _arguments(example_inputs, name)
    try:
        args, kwargs = canonical(signature, *given)
    except TypeError as error:
        raise ValueError(
            f"example_inputs do not fit {name}: {error}. Its forward takes {signature}."
        ) from error

    def exported(args: Any, kwargs: Any, shapes: Any) -> ExportedProgram:
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)

    with _in_evaluation_mode(module), torch.no_grad(), _without_idle_warnings():
        try:
            if dynamic_shapes is not None:
                return exported(args, kwargs, dynamic_shapes)
            two = _with_a_batch((args, kwargs))
            if two is None:
                return exported(args, kwargs, _first_axes(signature, args, kwargs))
            try:
                program = exported(two[0], two[1], _first_axes(signature, two[0], two[1]))
                if _has_dynamic_axis(program):
                    return program
            except Exception:  # It takes one sample only; then that is what is exported.
                pass
            return exported(args, kwargs, None)
        except Exception as error:
            raise export_error(name, error) from error


def _arguments(example_inputs: object, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if example_inputs is None:
        raise ValueError(
            f"{name} needs example_inputs: what its forward() takes, as a tensor, a tuple of "
            "arguments, or a dict of arguments by name."
        )
    if isinstance(example_inputs, Mapping):
        return (), _as_tensors(dict(example_inputs))
    if isinstance(example_inputs, (tuple, list)):
        return _as_tensors(tuple(example_inputs)), {}
    return _as_tensors((example_inputs,)), {}


def _as_tensors(arguments: Any) -> Any:
    import numpy as np
    import torch
    from torch.utils import _pytree as pytree

    def as_tensor(leaf: Any) -> Any:
        return torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf

    return pytree.tree_map(as_tensor, arguments)


def _with_a_batch(arguments: Any) -> Any:
    """The arguments with two samples in the place of one; None if they are no batch of one.

    The exporter takes an axis of length 1 for one that always has this length.
    """
    import torch
    from torch.utils import _pytree as pytree

    leaves = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    if not leaves or any(leaf.ndim == 0 or leaf.shape[0] != 1 for leaf in leaves):
        return None

    def doubled(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(doubled, arguments)


def _first_axes(signature: inspect.Signature, args: Any, kwargs: Any) -> Any:
    """The first axis of each tensor as one that may have any size, by the names of arguments."""
    import torch
    from torch.utils import _pytree as pytree

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.ndim == 0 or leaf.shape[0] < 2:
            return None
        return {0: torch.export.Dim.AUTO}

    def of_each(arguments: Any) -> Any:
        return pytree.tree_map(of, arguments)

    parameters = list(signature.parameters.values())
    shapes: dict[str, Any] = {}
    for place, value in enumerate(args):
        parameter = parameters[min(place, len(parameters) - 1)]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            shapes[parameter.name] = tuple(of_each(each) for each in args[place:])
            break
        shapes[parameter.name] = of_each(value)
    return {**shapes, **{name: of_each(value) for name, value in kwargs.items()}}


def _has_dynamic_axis(program: ExportedProgram) -> bool:
    return bool(program.range_constraints)


@contextmanager
def _in_evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """A module in evaluation mode; afterwards each submodule has the mode that it had."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


@contextmanager
def _without_idle_warnings() -> Iterator[None]:
    """Without the exporter's notes on packages that it can do without, and on its own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch|onnx")
            yield
    finally:
        logger.setLevel(level)


def _check_size(program: ExportedProgram, name: str) -> None:
    size = sum(each.numel() * each.element_size() for each in program.state_dict.values())
    if size > _LARGEST_BYTES:
        raise ValueError(
            f"{name} has {size / 1e9:.1f} GB of weights. Export it to a file, which keeps them "
            "outside of the model (torch.onnx.export(..., 'model.onnx', external_data=True)), and "
            "pass its path."
        )


def _converted(
    program: ExportedProgram, name: str, signature: inspect.Signature | None
) -> ExportedModule:
    import torch

    from optuna_quant.backends.onnxruntime.torch_export.called import CallForm

    inputs, outputs = _inputs(program), _outputs(program)
    names = [each for each in outputs if isinstance(each, str)]
    try:
        with torch.no_grad(), _without_idle_warnings():
            exported = torch.onnx.export(
                program, output_names=names, dynamo=True, verbose=False, external_data=False
            )
    except Exception as error:
        raise export_error(name, error) from error
    if exported is None:  # For type checkers: with dynamo=True there is a program.
        raise ModuleExportError(f"{name} cannot be exported to ONNX.")
    proto = exported.model_proto
    modules = name_by_module(proto, _paths(program))
    _without_notes(proto)
    form = CallForm(
        signature, program.call_spec.in_spec, inputs, program.call_spec.out_spec, outputs
    )
    return ExportedModule(proto, modules, form)


def _inputs(program: ExportedProgram) -> list[str | Constant]:
    from torch.export.graph_signature import InputKind

    from optuna_quant.backends.onnxruntime.torch_export.called import Constant

    specs = program.graph_signature.input_specs
    args = [spec.arg for spec in specs if spec.kind is InputKind.USER_INPUT]
    return [Constant(arg.value) if hasattr(arg, "value") else arg.name for arg in args]


def _outputs(program: ExportedProgram) -> list[str | Constant]:
    """The outputs, named after their places in what the module returns."""
    from torch.export.graph_signature import OutputKind
    from torch.utils import _pytree as pytree

    from optuna_quant.backends.onnxruntime.torch_export.called import Constant

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


def _paths(program: ExportedProgram) -> set[str]:
    """The paths of all modules that have a part in the program."""
    paths: set[str] = set()
    for node in program.graph.nodes:
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            paths.add(path.partition("@")[0])
    for parameter in program.state_dict:
        paths.add(parameter.rpartition(".")[0])
    return paths - {""}


def _without_notes(proto: onnx.ModelProto) -> None:
    """Remove what the exporter notes for debugging: it has paths and lines of the user's code."""
    graph = proto.graph
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for holder in (proto, graph, *values, *graph.node):
        del holder.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
