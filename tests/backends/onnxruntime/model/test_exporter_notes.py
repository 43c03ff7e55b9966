"""What exporters note for debugging is removed, and nothing else."""

from __future__ import annotations

import onnx_models

from optuna_quant.backends.onnxruntime.model.exporter_notes import without_exporter_notes
from optuna_quant.backends.onnxruntime.model.model import load_model


def test_notes_of_torch_are_removed() -> None:
    m = onnx_models.Maker()
    y = m.node("MatMul", [m.input("x", ["N", 4]), m.weight(4, 3)])
    proto = m.model([y])
    node = proto.graph.node[0]
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File net.py")
    node.metadata_props.add(key="namespace", value="Net/fc")
    node.metadata_props.add(key="mine", value="kept")
    proto.metadata_props.add(key="mine", value="kept")
    without_exporter_notes(proto)
    assert [(note.key, note.value) for note in node.metadata_props] == [("mine", "kept")]
    assert [note.key for note in proto.metadata_props] == ["mine"]


def test_a_model_is_loaded_without_them_and_not_changed() -> None:
    m = onnx_models.Maker()
    y = m.node("MatMul", [m.input("x", ["N", 4]), m.weight(4, 3)])
    proto = m.model([y])
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.fx_node", value="%linear")
    assert not load_model(proto).proto.graph.node[0].metadata_props
    assert len(proto.graph.node[0].metadata_props) == 1
