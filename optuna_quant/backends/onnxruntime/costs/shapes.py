"""The shapes of the tensors of a model for one input."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx
from onnx.shape_inference import infer_shapes
import onnxruntime


if TYPE_CHECKING:
    from optuna_quant.backends.calibration.feeds import Feed
    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker


def tensor_shapes(
    graph: Graph, feed: Feed, tensors: Collection[str], sessions: SessionMaker
) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors.

    They are inferred from those of the inputs; where that does not tell, the model is run.

    Args:
        graph:
            The graph.
        feed:
            The input.
        tensors:
            The tensors.
        sessions:
            Makes a session where one is needed.
    """
    found = {name: tuple(tensor.dims) for name, tensor in graph.initializers.items()}
    found |= {name: tuple(array.shape) for name, array in feed.items()}
    found |= _inferred(graph, feed)
    missing = [name for name in dict.fromkeys(tensors) if name and name not in found]
    if missing:
        found |= _run(graph, feed, missing, sessions)
    return {name: found[name] for name in tensors if name in found}


def _inferred(graph: Graph, feed: Feed) -> dict[str, tuple[int, ...]]:
    skeleton = graph.skeleton(graph.nodes)
    for value in skeleton.graph.input:
        if value.name in feed:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in feed[value.name].shape:
                shape.dim.add().dim_value = size
    # What the model says of its own outputs may be of another batch.
    for value in skeleton.graph.output:
        value.type.tensor_type.ClearField("shape")
    del skeleton.graph.value_info[:]
    inferred = infer_shapes(skeleton, data_prop=True).graph
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
        and all(axis.HasField("dim_value") for axis in value.type.tensor_type.shape.dim)
    }


def _run(
    graph: Graph, feed: Feed, tensors: Collection[str], sessions: SessionMaker
) -> Mapping[str, tuple[int, ...]]:
    model = graph.to_model()
    del model.graph.output[:]
    wanted = [name for name in tensors if name in graph.producer]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    if not wanted:
        return {}
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = sessions.make(model, graph.base_dir, level=level)
    arrays = session.run(wanted, feed)
    return {name: tuple(array.shape) for name, array in zip(wanted, arrays, strict=True)}
