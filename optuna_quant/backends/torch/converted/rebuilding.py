"""A converted program from its module and what was saved of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from optuna_quant.backends.torch.candidates.plan import ModelPlan
from optuna_quant.backends.torch.candidates.plan import OpPlan
from optuna_quant.backends.torch.candidates.weights import ChannelWeight
from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
from optuna_quant.backends.torch.converted.conversion import exported_form
from optuna_quant.backends.torch.converted.model_files import CURE
from optuna_quant.backends.torch.converted.model_files import ModelFileError
from optuna_quant.backends.torch.converted.model_files import telling_what_is_missing
from optuna_quant.backends.torch.converted.weight_nodes import unpacked
from optuna_quant.backends.torch.converted.writing import write_program
from optuna_quant.backends.torch.graph.switched import SwitchedProgram
from optuna_quant.backends.torch.program.content import structure_digest
from optuna_quant.backends.torch.program.devices import on_device
from optuna_quant.backends.torch.program.inputs import input_specs
from optuna_quant.backends.torch_program.errors import ModuleExportError
from optuna_quant.backends.torch_program.export import export_program
from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    import os

    from torch.export import ExportedProgram

    from optuna_quant.backends.torch.converted.state_files import SavedOp
    from optuna_quant.backends.torch.converted.state_files import SavedState
    from optuna_quant.backends.torch.converted.writing import WrittenProgram
    from optuna_quant.backends.torch.graph.ops import TorchOp
    from optuna_quant.data.inputs import InputSpec


_CPU = torch.device("cpu")
_MOST_NAMED = 3


def rebuilt(
    saved: SavedState,
    path: str | os.PathLike[str],
    module: torch.nn.Module | ExportedProgram | None,
    example_inputs: object = None,
    *,
    dynamic_shapes: Mapping[str, object] | Sequence[object] | None = None,
) -> ConvertedProgram:
    """The program that was saved, computed from a module as the one that it was made from.

    All tensors are those that were saved, so the weights of the module do not matter.

    Args:
        saved:
            What was saved of it.
        path:
            The file, for messages.
        module:
            The module; None if the user gave none.
        example_inputs:
            What its ``forward`` takes.
        dynamic_shapes:
            Which axes may have any size.

    Raises:
        ModelFileError:
            If what was saved does not belong together.
        ModuleExportError:
            If the module cannot be exported.
        TypeError:
            If it is no module.
        ValueError:
            If there is none, if it is another one, or without ``example_inputs``.
    """
    _check_given(saved, path, module, example_inputs)
    assert module is not None
    try:
        exported = export_program(module, example_inputs, dynamic_shapes=dynamic_shapes)
    except ModuleExportError as error:
        ops = _listed([op.written.name for op in saved.ops])
        raise ModuleExportError(
            f"{error} The module of {str(path)!r} has the ops {ops}: give one of the same code."
        ) from error
    elsewhere = any(each.device != _CPU for each in exported.program.state_dict.values())
    program = SwitchedProgram(on_device(exported, _CPU if elsewhere else None), _CPU)
    other = _difference(saved, program, input_specs(exported))
    if other:
        raise ValueError(
            f"T{exported.name[1:]} is not as the one that {str(path)!r} was saved from: {other}. "
            "Give one of the same code, whose weights do not matter, and example_inputs (and "
            "dynamic_shapes, if there were any) in the shapes of then."
        )
    with torch.no_grad():
        with telling_what_is_missing(path):
            plan = _plan(saved, program)
        written = write_program(program, plan)
        _put_tensors(written, saved, path)
        found = exported_form(written, exported)
    return ConvertedProgram(found, written.ops, program.form, saved.configuration)


def _check_given(
    saved: SavedState, path: str | os.PathLike[str], module: object, example_inputs: object
) -> None:
    takes = "; ".join(f"{spec.name}: {spec}" for spec in saved.inputs)
    if module is None:
        raise ValueError(
            f"{str(path)!r} has the integers, scales and floats of a quantized program by the "
            "names of a module's parameters, and not the program itself: give a module of the "
            "same code, with any weights, and example_inputs "
            f"({takes}): load(path, module=Net(), example_inputs=...). What result.save writes is "
            "loaded without a module."
        )
    if not isinstance(module, torch.nn.Module):
        return
    if example_inputs is None:
        raise ValueError(
            f"The module {type(module).__name__} needs example_inputs, with which it is exported "
            f"again as it was for {str(path)!r}: {takes}."
        )
    if any(each.is_meta for each in module.state_dict().values()):
        raise ValueError(
            f"The module {type(module).__name__} has weights on the device 'meta': give one with "
            "weights in memory; their values do not matter."
        )


def _difference(
    saved: SavedState, program: SwitchedProgram, inputs: Sequence[InputSpec]
) -> str | None:
    """How a module differs from the one that was saved, in words; None if it does not."""
    ops = {op.name: op for op in program.ops}
    names = [op.written.name for op in saved.ops]
    missing = [name for name in names if name not in ops]
    added = [name for name in ops if name not in names]
    if missing or added:
        parts = [f"it has no {_listed(missing)}"] if missing else []
        parts += [f"it has {_listed(added)} besides"] if added else []
        return " and ".join(parts)
    for each in saved.ops:
        op, of = ops[each.written.name], each.written
        if op.op_type != of.op_type:
            return f"{of.name!r} is {op.op_type}, and was {of.op_type}"
        if op.shape != of.shape:
            return f"the weight of {of.name!r} has the shape {op.shape}, and had {of.shape}"
    if [spec.name for spec in inputs] != [spec.name for spec in saved.inputs]:
        now, then = (", ".join(spec.name for spec in specs) for specs in (inputs, saved.inputs))
        return f"its inputs are {now or 'none'}, and were {then or 'none'}"
    for spec, other in zip(inputs, saved.inputs, strict=True):
        if spec != other:
            return f"its input {spec.name!r} is {spec}, and was {other}"
    if structure_digest(program.original) == saved.structure:
        return None
    versions = ""
    if saved.torch_version != torch.__version__:
        versions = (
            f" (this is PyTorch {torch.__version__}, and that was {saved.torch_version}, which "
            "may export it otherwise)"
        )
    return (
        "it has the same ops, but computes something else between them, such as with another "
        f"constant, or has a tensor of another shape{versions}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMED]))
    rest = len(names) - _MOST_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown


def _plan(saved: SavedState, program: SwitchedProgram) -> ModelPlan:
    ops = {op.name: op for op in program.ops}
    plans = {
        each.written.name: OpPlan(
            ops[each.written.name],
            each.written.mode,
            each.activations,
            _weight(each, ops[each.written.name], saved.tensors),
            each.dynamic,
        )
        for each in saved.ops
        if each.written.mode != "fp32"
    }
    return ModelPlan(saved.structure, plans)


def _weight(
    saved: SavedOp, op: TorchOp, tensors: Mapping[str, torch.Tensor]
) -> ChannelWeight | GroupedWeight | None:
    """The quantized weight of an op; equal ones are equal again, so that they are written once."""
    written = saved.written
    if "codes" not in written.tensors:
        return None
    found = {name: tensors[path] for name, path in written.tensors.items()}
    scales = found["scales"].numpy()
    if written.bits is None:
        axis = op.form.weight.axis if op.form.weight and op.form.weight.axis is not None else 0
        return ChannelWeight(found["codes"].numpy(), scales, axis)
    assert written.shape is not None and written.group_size is not None
    codes = unpacked(found["codes"], written.bits, written.shape[1])
    points, factors = found.get("zero_points"), found.get("input_scale")
    return GroupedWeight(
        np.ascontiguousarray(codes.numpy()),
        scales,
        None if points is None else points.numpy(),
        written.bits,
        written.group_size,
        None if factors is None else factors.numpy(),
    )


def _put_tensors(written: WrittenProgram, saved: SavedState, path: str | os.PathLike[str]) -> None:
    """Give a program the tensors that were saved."""
    expected = written.graph.state_dict()
    fits = (
        written.ops == tuple(each.written for each in saved.ops)
        and expected.keys() == saved.tensors.keys()
        and all(
            (tensor.dtype, tensor.shape) == (saved.tensors[name].dtype, saved.tensors[name].shape)
            for name, tensor in expected.items()
        )
    )
    if not fits:
        raise ModelFileError(
            f"The tensors in {str(path)!r} are not those of its ops: another program has changed "
            f"it. {CURE}"
        )
    written.graph.load_state_dict(dict(saved.tensors), assign=True)
