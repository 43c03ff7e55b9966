"""The tensors of converted programs in files, without the programs, which come from the module."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
import zipfile

import numpy as np
import torch

from optuna_quant.backends.base.files import atomic_write
from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.torch.converted.model_files import CURE
from optuna_quant.backends.torch.converted.model_files import NO_ARCHIVE
from optuna_quant.backends.torch.converted.model_files import ModelFileError
from optuna_quant.backends.torch.converted.model_files import check_format
from optuna_quant.backends.torch.converted.model_files import check_whole
from optuna_quant.backends.torch.converted.model_files import first_line
from optuna_quant.backends.torch.converted.model_files import op_of_record
from optuna_quant.backends.torch.converted.model_files import refused
from optuna_quant.backends.torch.converted.model_files import telling_what_is_missing
from optuna_quant.data.inputs import InputSpec


if TYPE_CHECKING:
    from collections.abc import Mapping
    import os

    from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
    from optuna_quant.backends.torch.converted.conversion import ConvertedProgram
    from optuna_quant.backends.torch.converted.writing import WrittenOp


STATE_FORMAT = 2
"""The version of the form of these files; another one is not read."""


@dataclass(frozen=True)
class SavedOp:
    """An op of which the tensors are saved.

    Args:
        written:
            What became of it.
        activations:
            Scale and zero point of each activation, in static mode.
        dynamic:
            The integer type and the scheme of the activation, in dynamic mode.
    """

    written: WrittenOp
    activations: tuple[Params, ...] = ()
    dynamic: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class SavedState:
    """All of a converted program that its module does not tell.

    Args:
        tensors:
            Its tensors, by their paths.
        ops:
            Its ops, in their order.
        configuration:
            The configuration, as JSON text.
        structure:
            The hash of how the module computes, whatever its weights are.
        inputs:
            What the module takes.
        torch_version:
            Of the PyTorch that exported the module.
    """

    tensors: Mapping[str, torch.Tensor]
    ops: tuple[SavedOp, ...]
    configuration: str
    structure: str
    inputs: tuple[InputSpec, ...]
    torch_version: str

    @classmethod
    def of(cls, converted: ConvertedProgram, simulated: SimulatedModel) -> SavedState:
        """The state of a converted program.

        Args:
            converted:
                The program.
            simulated:
                The simulation of the same model.
        """
        plans = simulated.plan.ops
        return cls(
            dict(converted.program.state_dict),
            tuple(
                SavedOp(op, plans[op.name].activations, plans[op.name].dynamic)
                if op.name in plans
                else SavedOp(op)
                for op in converted.ops
            ),
            converted.configuration,
            simulated.structure,
            simulated.inputs,
            torch.__version__,
        )


def write_state(saved: SavedState, path: str | os.PathLike[str]) -> None:
    """Write the state of a converted program.

    :func:`torch.load` gives a dictionary with ``"state_dict"``, whose names are the paths of the
    module's parameters, and ``"configuration"``, the JSON text of the configuration.

    Args:
        saved:
            The state.
        path:
            The file, which is replaced as a whole or left as it was.
    """
    module = {
        "structure": saved.structure,
        "inputs": [_input_record(spec) for spec in saved.inputs],
        "torch": saved.torch_version,
    }
    content = io.BytesIO()
    found = {
        "format": STATE_FORMAT,
        "configuration": saved.configuration,
        "ops": json.dumps([_op_record(op) for op in saved.ops]),
        "module": json.dumps(module),
        "state_dict": dict(saved.tensors),
    }
    torch.save(found, content)
    atomic_write(path, content.getvalue())


def is_state(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of :func:`torch.save`, as that of a state is.

    Args:
        path:
            The file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except NO_ARCHIVE:
        return False


def read_state(path: str | os.PathLike[str]) -> SavedState:
    """Read what :func:`write_state` wrote; nothing in the file is run as code.

    Args:
        path:
            The file.

    Raises:
        ModelFileError:
            If it is something else, is damaged, or comes from a version that this one cannot
            read.
    """
    content = Path(path).read_bytes()
    check_whole(io.BytesIO(content), path)
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(f"{_foreign(path)} ({first_line(error)}.)") from error
    if not isinstance(found, dict) or not {"format", "configuration", "state_dict"} <= set(found):
        raise ModelFileError(_foreign(path))
    check_format(found["format"], STATE_FORMAT, path)
    tensors = found["state_dict"]
    with telling_what_is_missing(path):
        if not all(isinstance(each, torch.Tensor) for each in tensors.values()):
            raise TypeError("a tensor")
        try:
            ops, module = json.loads(found["ops"]), json.loads(found["module"])
        except ValueError as error:
            raise ModelFileError(f"{refused(path)}: its record cannot be read. {CURE}") from error
        return SavedState(
            tensors,
            tuple(map(_op, ops)),
            found["configuration"],
            module["structure"],
            tuple(map(_input, module["inputs"])),
            module["torch"],
        )


def _foreign(path: str | os.PathLike[str]) -> str:
    return (
        f"{refused(path)}: it is one of torch.save, such as a state dict of your module. What "
        "result.save or result.model().save_state_dict has written is loaded here."
    )


def _op_record(op: SavedOp) -> dict[str, Any]:
    activations = [[float(p.scale), int(p.zero_point), p.dtype] for p in op.activations]
    return {
        **dataclasses.asdict(op.written),
        "activations": activations,
        "dynamic": op.dynamic,
    }


def _op(value: Mapping[str, Any]) -> SavedOp:
    written = {key: each for key, each in value.items() if key not in ("activations", "dynamic")}
    dynamic = value["dynamic"]
    return SavedOp(
        op_of_record(written),
        tuple(Params(*each) for each in value["activations"]),
        None if dynamic is None else (dynamic[0], dynamic[1]),
    )


def _input_record(spec: InputSpec) -> dict[str, Any]:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": shape}


def _input(value: Mapping[str, Any]) -> InputSpec:
    shape = value["shape"]
    return InputSpec(
        value["name"], np.dtype(value["dtype"]), None if shape is None else tuple(shape)
    )
