"""The runtime that is used where no backend is given: ONNX Runtime, imported when it is used.

This is the one module outside of that backend that knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias
from typing import cast


if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    import onnxruntime
    import torch
    from torch.export import ExportedProgram

    from optuna_quant.backends.base import RunnableModel
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
    from optuna_quant.backends.onnxruntime import TargetProfile
    from optuna_quant.backends.onnxruntime.costs.pair import ModelPair
    from optuna_quant.backends.onnxruntime.model.exported import ExportedModel
    from optuna_quant.backends.onnxruntime.recipes.request import RecipesLike as RequestedRecipes
    from optuna_quant.data.inputs import InputSpec


_OnnxLike: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto | ExportedModel"

ModelLike: TypeAlias = "_OnnxLike | torch.nn.Module | ExportedProgram"
"""What :func:`make_backend` takes for a model."""

RunnableLike: TypeAlias = "RunnableModel | onnxruntime.InferenceSession"
"""What can be evaluated on data: a model that a backend has built, or a session."""

TargetLike: TypeAlias = "str | os.PathLike[str] | TargetProfile"
"""What a model is quantized for."""

RunSettings: TypeAlias = "onnxruntime.SessionOptions"
"""How the runtime runs a model."""

RecipesLike: TypeAlias = "RequestedRecipes"
"""Which recipes a user asks for: ``"auto"``, ``"all"``, names, or values for each name."""

DefaultBackend: TypeAlias = "OnnxRuntimeBackend"
"""What :func:`make_backend` gives."""


def make_backend(
    model: ModelLike | None, *, example_inputs: object = None, **options: Any
) -> DefaultBackend:
    """The backend of a model for which the user has given none.

    Args:
        model:
            The model: a path, its bytes, an ``onnx.ModelProto``, or a PyTorch module, which is
            exported.
        example_inputs:
            What the module's ``forward`` takes.
        **options:
            Those of :class:`~optuna_quant.backends.onnxruntime.OnnxRuntimeBackend`; None for its
            default.

    Raises:
        ImportError:
            If ONNX Runtime is not installed.
        ValueError:
            If there is no model, it does not load or cannot be exported, or an option is not
            valid.
    """
    if model is None:
        raise ValueError(
            "No model is given: pass a path, its bytes, an onnx.ModelProto, or a torch.nn.Module."
        )
    from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
    from optuna_quant.backends.onnxruntime.torch_export import ModuleToExport
    from optuna_quant.backends.torch_program import is_torch_model

    given = {name: value for name, value in options.items() if value is not None}
    if is_torch_model(model):
        module = cast("torch.nn.Module | ExportedProgram", model)
        return OnnxRuntimeBackend(ModuleToExport(module, example_inputs), **given)
    if example_inputs is not None:
        raise ValueError(
            "example_inputs is for a torch.nn.Module, but the model is "
            f"{type(model).__name__}{_how_to_make_a_module(model)}."
        )
    return OnnxRuntimeBackend(cast("_OnnxLike", model), **given)


def expected_inputs(
    model: ModelLike | None, example_inputs: object
) -> tuple[InputSpec, ...] | None:
    """The inputs of a model that has to be exported first, as far as they are known before.

    Args:
        model:
            The model.
        example_inputs:
            What the module's ``forward`` takes.

    Returns:
        The inputs; None if the model need not be exported, or only the export tells them.

    Raises:
        ValueError:
            If ``example_inputs`` are missing or do not fit.
    """
    from optuna_quant.backends.torch_program import is_torch_model

    if not is_torch_model(model):
        return None
    from optuna_quant.backends.torch_program.inputs import expected_inputs

    return expected_inputs(cast("torch.nn.Module | ExportedProgram", model), example_inputs)


def _how_to_make_a_module(model: object) -> str:
    """What to do about what is no module, but was meant as one; empty if that is not known."""
    if isinstance(model, type):
        return f": give an instance, {model.__name__}(...), with its weights loaded"
    if isinstance(model, str | os.PathLike):
        file = os.fspath(model)
        if file.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors")):
            return f": make the module and load {file!r} into it (load_state_dict)"
        return ", an ONNX file is taken without them"
    if isinstance(model, Mapping):
        return ": make the module and load these weights into it (module.load_state_dict)"
    return ""


def session_options(*, threads: int | None) -> RunSettings | None:
    """The option ``session_options`` of the backend, by what the command line can say of it.

    Args:
        threads:
            The threads of a run; None for the runtime's default.

    Returns:
        The options; :obj:`None` for the defaults.
    """
    if threads is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def as_runnable(model: RunnableLike) -> RunnableModel:
    """A model that can be evaluated on data.

    Args:
        model:
            A model that a backend has built, which is given back; or a session of ONNX Runtime,
            which users have as well, or what is called as a module and has one.

    Raises:
        TypeError:
            If it is neither.
    """
    if hasattr(model, "inputs"):
        return cast("RunnableModel", model)
    # Of a quantized module, what it computes with.
    session = model if hasattr(model, "get_inputs") else getattr(model, "session", None)
    if session is None:
        path = isinstance(model, str | os.PathLike)
        what = f"the path {os.fspath(cast('str', model))!r}" if path else type(model).__name__
        raise TypeError(
            f"Data are evaluated with a model of a backend or a session, but got {what}: give "
            "result.model(), or onnxruntime.InferenceSession(PATH) of an ONNX file."
        )
    from optuna_quant.backends.onnxruntime.model.session_model import SessionModel

    return SessionModel(session)


def load_pair(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> ModelPair:
    """Two model files, loaded to be compared.

    For the arguments and errors see
    :class:`~optuna_quant.backends.onnxruntime.costs.pair.ModelPair`.
    """
    from optuna_quant.backends.onnxruntime.costs.pair import ModelPair

    return ModelPair(first, second, threads=threads, providers=providers)


def load_session(path: str | os.PathLike[str], *, threads: int | None = None) -> tuple[Any, int]:
    """A model file as the runtime's own object, and its size in bytes.

    For the arguments and errors see
    :func:`~optuna_quant.backends.onnxruntime.costs.pair.load_session`.
    """
    from optuna_quant.backends.onnxruntime.costs import pair

    return pair.load_session(path, threads=threads), pair.file_bytes(Path(path))
