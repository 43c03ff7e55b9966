"""Find nodes that compute as in training, so that outputs depend on the batch or on chance."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import numpy_helper

from optuna_quant._common.printable import listed


_MOST_NAMES = 3
_STANDARD = ("", "ai.onnx")
_TRAINING_MODE_OPSET = 14
"""The first opset whose BatchNormalization says in an attribute that it is of training."""


def check_inference_mode(
    proto: onnx.ModelProto, name: str, *, base_dir: Path | None = None
) -> None:
    """Refuse a model that was exported as it is trained.

    A BatchNormalization of training normalizes by the batch that it sees, and a Dropout of
    training drops values at random, so such a model gives for a sample what depends on the other
    samples, or on chance. Whether an input of the model turns training on is up to its callers.

    Args:
        proto:
            The model, whose nodes have names.
        name:
            What to call it, as the start of a sentence.
        base_dir:
            The folder of its external data; :obj:`None` if it has none.

    Raises:
        ValueError:
            If there is such a node; it names them.
    """
    found = [f"{node.op_type} {node.name!r}" for node in _in_training_mode(proto, base_dir)]
    if not found:
        return
    raise ValueError(
        f"{name} was exported in training mode, so what it gives for a sample depends on the "
        f"batch or on chance: {listed(found, _MOST_NAMES)}. Export it again in inference mode: in "
        "PyTorch call model.eval() before torch.onnx.export, and leave out training=."
    )


def _in_training_mode(proto: onnx.ModelProto, folder: Path | None) -> Iterator[onnx.NodeProto]:
    yield from _in_graph(proto.graph, _opset(proto.opset_import), {}, folder)
    for function in proto.functions:
        opset = _opset(function.opset_import)
        yield from _in_nodes(function.node, opset, _constants(function.node), folder)


def _opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((int(entry.version) for entry in imports if entry.domain in _STANDARD), 0)


def _in_graph(
    graph: onnx.GraphProto,
    opset: int,
    outer: Mapping[str, onnx.TensorProto],
    folder: Path | None,
) -> Iterator[onnx.NodeProto]:
    # What callers may replace is up to them.
    given = {value.name for value in graph.input}
    own = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
    known = {**outer, **own, **_constants(graph.node)}
    yield from _in_nodes(graph.node, opset, known, folder)


def _constants(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    return {
        node.output[0]: attribute.t
        for node in nodes
        if node.op_type == "Constant" and node.domain in _STANDARD
        for attribute in node.attribute
        if attribute.name == "value"
    }


def _in_nodes(
    nodes: Iterable[onnx.NodeProto],
    opset: int,
    known: Mapping[str, onnx.TensorProto],
    folder: Path | None,
) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        if node.domain in _STANDARD and _trains(node, opset, known, folder):
            yield node
        for attribute in node.attribute:
            subgraphs = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            for graph in subgraphs:
                yield from _in_graph(graph, opset, known, folder)


def _trains(
    node: onnx.NodeProto,
    opset: int,
    known: Mapping[str, onnx.TensorProto],
    folder: Path | None,
) -> bool:
    if node.op_type == "BatchNormalization":
        if opset < _TRAINING_MODE_OPSET:
            return any(node.output[1:])
        return any(each.name == "training_mode" and each.i for each in node.attribute)
    if node.op_type == "Dropout":
        return _is_set(node, 2, known, folder) and not _is_zero(node, 1, known, folder)
    return False


def _is_set(
    node: onnx.NodeProto, at: int, known: Mapping[str, onnx.TensorProto], folder: Path | None
) -> bool:
    tensor = known.get(node.input[at]) if len(node.input) > at else None
    return tensor is not None and bool(numpy_helper.to_array(tensor, _base(folder)).any())


def _is_zero(
    node: onnx.NodeProto, at: int, known: Mapping[str, onnx.TensorProto], folder: Path | None
) -> bool:
    """Whether an input is known to be 0; the default ratio of a Dropout is not."""
    tensor = known.get(node.input[at]) if len(node.input) > at else None
    return tensor is not None and not numpy_helper.to_array(tensor, _base(folder)).any()


def _base(folder: Path | None) -> str:
    return "" if folder is None else str(folder)
