"""A session that gives tensors within a model."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import can_share
from optuna_quant.backends.onnxruntime.model.content import config_entry
from optuna_quant.backends.onnxruntime.model.content import external_tensors
from optuna_quant.backends.onnxruntime.model.content import serialized


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


def tapped_session(
    model: onnx.ModelProto | CompactModel,
    tensors: Sequence[str],
    base_dir: str | os.PathLike[str] | None,
    *,
    sessions: SessionMaker,
) -> onnxruntime.InferenceSession:
    """Return a session whose outputs are the given tensors of the model's main graph.

    Graph optimizations are off, so that every tensor exists. The model is not changed, and the
    user's options are as before when this returns, but for the entries of all sessions. The large
    initializers of a compact model are not copied, where that is possible. The lock of
    ``sessions`` must be held.
    """
    values: dict[str, onnxruntime.OrtValue] = {}
    if isinstance(model, CompactModel):
        if can_share(sessions.providers, sessions.options):
            values = {name: sessions.arrays.value(each) for name, each in model.outside.items()}
            model = model.proto
        else:
            model = model.whole()
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    # Without types: the runtime infers them.
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    content = serialized(tapped)
    del tapped

    options = sessions.options_with_entries()
    if sessions.options is None:
        # Threads that spin between runs would take the processor from the counting.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    level, written = options.graph_optimization_level, options.optimized_model_filepath
    previous = folder = config_entry(options, _EXTERNAL_FOLDER)
    if any(external_tensors(model)):
        folder = str(Path(base_dir or ".").resolve())
    try:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = ""
        if folder != previous:
            options.add_session_config_entry(_EXTERNAL_FOLDER, folder)
        if values:
            options.add_external_initializers(list(values), list(values.values()))
        session = onnxruntime.InferenceSession(
            content, options, providers=list(sessions.providers)
        )
        session._optuna_quant_initializers = values  # It reads their memory.
        return session
    finally:
        options.graph_optimization_level, options.optimized_model_filepath = level, written
        if folder != previous and sessions.options is not None:
            options.add_session_config_entry(_EXTERNAL_FOLDER, previous)
