"""Why ONNX Runtime does not load the user's model, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnxruntime

from optuna_quant.backends.onnxruntime.hints import quantized_nodes
from optuna_quant.backends.onnxruntime.model.graph import CONTRIB


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.model import SourceModel
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


_Level = onnxruntime.GraphOptimizationLevel
# The levels below the default one, the nearest first; older versions lack that of the layout.
_NAMES = ("ORT_ENABLE_LAYOUT", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_BASIC", "ORT_DISABLE_ALL")
_LEVELS: Mapping[str, onnxruntime.GraphOptimizationLevel] = MappingProxyType(
    {name: getattr(_Level, name) for name in _NAMES if hasattr(_Level, name)}
)


def describe_refusal(source: SourceModel, sessions: SessionMaker, error: Exception) -> str:
    """What to say of a model that the runtime does not load.

    A valid model may be refused by a step of the runtime's own optimization, most often one that
    it has optimized before: then it loads with less of it, and the message says how far and what
    the ways out are.

    Args:
        source:
            The model.
        sessions:
            Makes sessions, with the options with which it was refused.
        error:
            What the runtime says.
    """
    name = f"{source.name[0].lower()}{source.name[1:]}"
    text = " ".join(str(error).split())
    said = f"ONNX Runtime does not load {name}: {text.rstrip('.')}."
    level = _loading_level(source, sessions)
    if level is None:
        return said
    how = "with graph optimization off" if level == "ORT_DISABLE_ALL" else f"with {level}"
    return (
        f"{said} It loads {how}, so a step of the runtime's graph optimization rejects it. "
        f"{_way_out(source)} Otherwise, in Python, pass session_options with "
        f"graph_optimization_level = onnxruntime.GraphOptimizationLevel.{level}: then all "
        "models, FP32 included, run with less optimization, and must be deployed that way."
    )


def _way_out(source: SourceModel) -> str:
    nodes = source.proto.graph.node
    quantized = quantized_nodes(nodes)
    if quantized:
        return (
            f"It is already quantized, with {quantized}: give the FP32 model that it was made "
            "from."
        )
    if any(node.domain == CONTRIB for node in nodes):
        return (
            "It has operators that only ONNX Runtime's own optimization creates, so it was "
            "already optimized: give the model as it was exported, or write it with "
            "quant_pre_process(skip_optimization=True)."
        )
    return (
        "If it comes from quant_pre_process or another optimizer, give the model as it was "
        "exported, or use quant_pre_process(skip_optimization=True)."
    )


def _loading_level(source: SourceModel, sessions: SessionMaker) -> str | None:
    """The highest of the lower levels at which a model loads; None if there is none."""
    usual = _Level.ORT_ENABLE_ALL
    if sessions.options is not None:
        usual = sessions.options.graph_optimization_level
    for name, level in _LEVELS.items():
        if level.value < usual.value:
            try:
                sessions.make(source.proto, source.base_dir, level=level)
            except Exception:  # The first error has been told of.
                continue
            return name
    return None
