"""A PyTorch module as an ONNX model, with the names of its submodules."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from contextlib import redirect_stderr
from contextlib import suppress
from dataclasses import dataclass
import inspect
import io
import logging
import sys
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias
import warnings

from optuna_quant.backends.onnxruntime.model.exporter_notes import without_exporter_notes
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


_Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

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
            axis of each tensor, which is taken to be the batch; and if a tensor of integers has
            two axes, which are taken to be texts and tokens, the second axis of all tensors of
            that length. Where the module allows it.

    Raises:
        ImportError:
            If torch or onnxscript is not installed.
        ModuleExportError:
            If the module cannot be exported; it names the line and the reason.
        TypeError:
            If ``module`` is neither of the two.
        ValueError:
            If ``example_inputs`` are missing or do not fit, the weights are not of 32 bits, or
            there is more than 1 GB of them.

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
    from optuna_quant.backends.onnxruntime.torch_export.called import argument_names

    signature: inspect.Signature | None = None
    names: tuple[str, ...] = ()
    if isinstance(module, torch.export.ExportedProgram):
        program = module
        name = "the exported program"
        _check_weights(module.state_dict, name)
    elif isinstance(module, torch.nn.Module):
        name = f"the module {type(module).__name__}"
        _check_weights(module.state_dict(), name)
        signature = inspect.signature(module.forward)
        arguments = _arguments(example_inputs, name, signature)
        names = argument_names(signature, *arguments)
        program = _program(module, name, signature, arguments, dynamic_shapes)
    else:
        raise TypeError(
            "module must be a torch.nn.Module or a torch.export.ExportedProgram, but got "
            f"{type(module).__name__}."
        )
    return _converted(program, name, signature, names)


def _program(
    module: torch.nn.Module,
    name: str,
    signature: inspect.Signature,
    given: _Arguments,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None,
) -> ExportedProgram:
    import torch

    *earlier, last = _attempts(signature, given, dynamic_shapes)
    with _in_evaluation_mode(module), torch.no_grad(), _without_idle_output():
        for (args, kwargs), shapes in earlier:
            with suppress(Exception):  # The last attempt says why, if it fails as well.
                program = torch.export.export(
                    module, args, kwargs, dynamic_shapes=shapes, strict=False
                )
                if _has_dynamic_axis(program):
                    return program
        (args, kwargs), shapes = last
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise export_error(name, error) from error


def _attempts(
    signature: inspect.Signature,
    arguments: _Arguments,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None,
) -> list[tuple[_Arguments, Any]]:
    """With what to export a module, best first: arguments, and axes that may have any size."""
    two = _with_a_batch(arguments)
    wide = arguments if two is None else two
    if dynamic_shapes is not None:
        return [(wide, dynamic_shapes)]
    lengths = _text_lengths(wide)
    attempts: list[tuple[_Arguments, Any]] = [(wide, _free_axes(signature, wide, lengths))]
    if lengths:
        attempts.append((wide, _free_axes(signature, wide, frozenset())))
    if two is not None:  # A module that takes one sample only.
        attempts.append((arguments, None))
    return attempts


def _arguments(example_inputs: object, name: str, signature: inspect.Signature) -> _Arguments:
    """The arguments of a call, by position as far as the signature allows it."""
    from optuna_quant.backends.onnxruntime.torch_export.called import canonical

    if example_inputs is None:
        raise ValueError(
            f"T{name[1:]} needs example_inputs: what its forward() takes, as a tensor, a tuple of "
            "arguments, or a dict of arguments by name."
        )
    given: _Arguments = (example_inputs,), {}
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
    import numpy as np
    import torch
    from torch.utils import _pytree as pytree

    def as_tensor(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            leaf = torch.from_numpy(np.ascontiguousarray(leaf))
        # The exporter takes the strides of an example for those of all inputs.
        return leaf.detach().contiguous() if isinstance(leaf, torch.Tensor) else leaf

    return pytree.tree_map(as_tensor, arguments)


def _with_a_batch(arguments: _Arguments) -> _Arguments | None:
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

    doubled_args, doubled_kwargs = pytree.tree_map(doubled, arguments)
    return doubled_args, doubled_kwargs


def _text_lengths(arguments: _Arguments) -> frozenset[int]:
    """The lengths of texts: of tensors of integers with two axes, samples and tokens."""
    import torch
    from torch.utils import _pytree as pytree

    leaves = (leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor))
    tokens = (x for x in leaves if x.dtype in (torch.int64, torch.int32) and x.ndim == 2)
    return frozenset(x.shape[1] for x in tokens if x.shape[1] > 1)


def _free_axes(
    signature: inspect.Signature, arguments: _Arguments, lengths: frozenset[int]
) -> dict[str, Any]:
    """The axes that may have any size, by the names of arguments.

    The first axis of each tensor, and the second one if it has the length of the texts.
    """
    import torch
    from torch.utils import _pytree as pytree

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return None
        free = {0} if leaf.ndim > 0 and leaf.shape[0] > 1 else set()
        if leaf.ndim > 1 and leaf.shape[1] in lengths:
            free.add(1)
        return {axis: torch.export.Dim.AUTO for axis in free} or None

    def of_each(value: Any) -> Any:
        return pytree.tree_map(of, value)

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
def _without_idle_output() -> Iterator[None]:
    """Without what the exporter says of packages that it can do without, and of its own code.

    If it fails, without the graph that it prints as well: the error says what is wrong.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch.export")]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(printed):
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch|onnx")
            yield
        sys.stderr.write(printed.getvalue())
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_weights(weights: Mapping[str, torch.Tensor], name: str) -> None:
    import torch

    for parameter, each in weights.items():
        if each.is_floating_point() and each.dtype != torch.float32:
            raise ValueError(
                f"{parameter!r} of {name} is {each.dtype}, but a module is quantized from weights "
                "of 32 bits: give module.float(), or a copy of it."
            )
    size = sum(each.numel() * each.element_size() for each in weights.values())
    if size > _LARGEST_BYTES:
        raise ValueError(
            f"T{name[1:]} has {size / 1e9:.1f} GB of weights. Export it to a file, which keeps "
            "them outside of the model (torch.onnx.export(..., 'model.onnx', "
            "external_data=True)), and pass its path."
        )


def _converted(
    program: ExportedProgram,
    name: str,
    signature: inspect.Signature | None,
    arguments: Sequence[str],
) -> ExportedModule:
    import torch

    from optuna_quant.backends.onnxruntime.torch_export.called import CallForm

    inputs, outputs = _inputs(program), _outputs(program)
    shown = [each for each in outputs if isinstance(each, str)]
    try:
        with torch.no_grad(), _without_idle_output():
            exported = torch.onnx.export(
                program, output_names=shown, dynamo=True, verbose=False, external_data=False
            )
    except Exception as error:
        raise export_error(name, error) from error
    if exported is None:  # For type checkers: with dynamo=True there is a program.
        raise ModuleExportError(f"T{name[1:]} cannot be exported to ONNX.")
    proto = exported.model_proto
    modules = name_by_module(proto, _paths(program))
    without_exporter_notes(proto)
    _name_axes(proto)
    form = CallForm(
        signature,
        arguments,
        program.call_spec.in_spec,
        inputs,
        program.call_spec.out_spec,
        outputs,
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


def _name_axes(proto: onnx.ModelProto) -> None:
    """Give axes of any size names for people in the place of the exporter's symbols."""
    graph = proto.graph
    names: dict[str, str] = {}
    for value in graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param and dim.dim_param not in names:
                usual = {0: "batch", 1: "length"}.get(axis, f"axis{axis}")
                taken = sum(each.partition("_")[0] == usual for each in names.values())
                names[dim.dim_param] = usual if not taken else f"{usual}_{taken + 1}"
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
