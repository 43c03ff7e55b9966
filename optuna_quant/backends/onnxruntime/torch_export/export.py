"""A PyTorch module as an ONNX model, with the names of its submodules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant._common.extras import install_hint
from optuna_quant._common.steps import doing
from optuna_quant.backends.onnxruntime.model.exporter_notes import without_exporter_notes
from optuna_quant.backends.onnxruntime.torch_export.loading import note_form
from optuna_quant.backends.onnxruntime.torch_export.op_names import name_by_module
from optuna_quant.backends.torch_program.errors import ModuleExportError
from optuna_quant.backends.torch_program.errors import export_error


if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    import onnxruntime
    import torch
    from torch.export import ExportedProgram

    from optuna_quant.backends.onnxruntime.torch_export.called import CalledSession
    from optuna_quant.backends.torch_program.call import CallForm
    from optuna_quant.backends.torch_program.export import ModuleProgram
    from optuna_quant.data.inputs import InputSpec


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


@dataclass(frozen=True, eq=False)
class ModuleToExport:
    """A PyTorch module that is exported as soon as all else has been checked.

    Args:
        module:
            The module, or an exported program of it.
        example_inputs:
            What its ``forward`` takes.
    """

    module: torch.nn.Module | ExportedProgram
    example_inputs: object = None

    def expected_inputs(self) -> tuple[InputSpec, ...] | None:
        """The inputs of the exported model; None if only the export tells them.

        For the errors see :func:`export_module`.
        """
        from optuna_quant.backends.torch_program.inputs import expected_inputs

        return expected_inputs(self.module, self.example_inputs)

    def export(self) -> ExportedModule:
        """The exported model, see :func:`export_module`."""
        return export_module(self.module, self.example_inputs)


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
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Exporting a PyTorch module needs the package {error.name}: {install_hint('torch')}."
        ) from error
    from optuna_quant.backends.torch_program.export import export_program

    _check_size(module)
    exported = export_program(module, example_inputs, dynamic_shapes=dynamic_shapes, to="ONNX")
    return _converted(exported)


def _check_size(module: torch.nn.Module | ExportedProgram) -> None:
    weights = getattr(module, "state_dict", {})
    weights = weights() if callable(weights) else weights
    size = sum(each.numel() * each.element_size() for each in weights.values())
    if size > _LARGEST_BYTES:
        raise ValueError(
            f"The module has {size / 1e9:.1f} GB of weights. Export it to a file, which keeps "
            "them outside of the model (torch.onnx.export(..., 'model.onnx', "
            "external_data=True)), and pass its path."
        )


def _converted(exported: ModuleProgram) -> ExportedModule:
    import torch

    from optuna_quant.backends.torch_program.quiet import without_idle_output

    try:
        step = doing(f"Converting {exported.name} to ONNX")
        with step, torch.no_grad(), without_idle_output():
            converted = torch.onnx.export(
                exported.program,
                output_names=exported.form.output_names,
                dynamo=True,
                verbose=False,
                external_data=False,
            )
    except Exception as error:
        raise export_error(exported.name, error, to="ONNX") from error
    if converted is None:  # For type checkers: with dynamo=True there is a program.
        raise ModuleExportError(f"T{exported.name[1:]} cannot be exported to ONNX.")
    proto = converted.model_proto
    modules = name_by_module(proto, exported.module_paths())
    without_exporter_notes(proto)
    _name_axes(proto)
    note_form(proto, exported.form)
    return ExportedModule(proto, modules, exported.form)


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
