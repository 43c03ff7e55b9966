"""Files of exported modules, called as the module is after a restart."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from optuna_quant._common.extras import install_hint
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    import onnxruntime

    from optuna_quant.backends.onnxruntime.torch_export.called import CalledSession
    from optuna_quant.backends.torch_program.call import CallForm


_KEY = "optuna_quant.call_form"
"""The entry of a model's metadata that says how the module is called."""


def load_module(
    path: str | os.PathLike[str],
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    session_options: onnxruntime.SessionOptions | None = None,
) -> CalledSession:
    """Load a saved answer of a PyTorch module, to be called as the module is.

    Args:
        path:
            The ONNX file, as ``result.save(path)`` wrote it.
        providers:
            The execution providers of ONNX Runtime.
        session_options:
            The options of the session; None for the defaults.

    Returns:
        A module that takes and returns tensors in the same structures. The module itself and its
        code are not needed.

    Raises:
        ImportError:
            If torch is not installed.
        FileNotFoundError:
            If there is no such file.
        ValueError:
            If it is no model that loads, it does not say how its module is called, or it takes or
            returns a class that this process does not know.

    Example:

        .. code-block:: python

            result = optuna_quant.tune(net, example_inputs=(images,), ...)
            result.save("net.int8.onnx")

            # In another process:
            net = load_module("net.int8.onnx")
            scores = net(images)
    """
    try:
        from optuna_quant.backends.onnxruntime.torch_export.called import CalledSession
        from optuna_quant.backends.torch_program.form_json import form_from_json
    except ImportError as error:
        raise ImportError(
            f"A module needs the package {error.name}: {install_hint('torch')}."
        ) from error

    file = os.fspath(path)
    source = load_model(file)
    noted = {each.key: each.value for each in source.proto.metadata_props}.get(_KEY)
    if noted is None:
        raise ValueError(
            f"{file!r} does not say how a PyTorch module is called: it was not exported from one "
            "by optuna_quant, or by an earlier version, or its arguments or outputs are in a "
            "class without a name. Load it with onnxruntime.InferenceSession."
        )
    form = form_from_json(json.loads(noted))
    maker = SessionMaker(tuple(providers), session_options)
    try:
        session = maker.make(source.proto, source.base_dir)
    except Exception as error:
        raise ValueError(
            f"ONNX Runtime does not load {file!r}: {str(error).rstrip('.')}."
        ) from error
    return CalledSession(session, form)


def note_form(proto: onnx.ModelProto, form: CallForm) -> None:
    """Write into a model how its module is called, if that can be said in a file.

    Args:
        proto:
            The model. Its metadata are changed.
        form:
            How the module is called.
    """
    from optuna_quant.backends.torch_program.form_json import form_to_json

    try:
        text = json.dumps(form_to_json(form))
    except ValueError:  # A class without a name: the search itself does not need it.
        return
    entry = proto.metadata_props.add()
    entry.key, entry.value = _KEY, text
