"""Models that were exported as they are trained are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnx_models import Maker
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.model import load_model


def normalized(opset: int, outputs: int = 1, **attributes: int) -> onnx.ModelProto:
    """A Conv and a BatchNormalization."""
    make = Maker(opset)
    x = make.conv(make.input("x", ["N", 3, 8, 8]), 3, 4)
    ones = [make.const(np.ones(4, np.float32)) for _ in range(4)]
    names = [f"y{i}" for i in range(outputs)]
    make.node("BatchNormalization", [x, *ones], outputs=names, name="bn1", **attributes)
    return make.model(["y0"])


def dropped(training: object, *, ratio: float = 0.5, ratio_given: bool = True) -> onnx.ModelProto:
    """A Gemm and a Dropout whose training mode is an initializer, or an input of the model."""
    make = Maker()
    x = make.node("Gemm", [make.input("x", ["N", 8]), make.weight(8, 4)])
    given = make.const(np.float32(ratio)) if ratio_given else ""
    if training == "input":
        mode = make.input("training", [], onnx.TensorProto.BOOL)
    elif training is None:
        mode = ""
    else:
        mode = make.const(np.bool_(training))
    make.node("Dropout", [x, given, mode], outputs=["y"], name="drop")
    return make.model(["y"])


@pytest.mark.parametrize(
    "model",
    [
        normalized(17, outputs=3, training_mode=1),
        normalized(14, training_mode=1),
        normalized(11, outputs=5),
        normalized(13, outputs=2),
    ],
)
def test_batch_normalization_in_training_mode_is_refused(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "trained.onnx"
    onnx.save(model, path)
    with pytest.raises(ValueError, match="training mode") as raised:
        OnnxRuntimeBackend(path)
    told = str(raised.value)
    assert told.startswith(f"Model {str(path)!r} was exported in training mode")
    assert "BatchNormalization 'bn1'" in told
    assert "model.eval() before torch.onnx.export" in told


@pytest.mark.parametrize("ratio_given", [True, False])
def test_dropout_in_training_mode_is_refused(ratio_given: bool) -> None:
    with pytest.raises(ValueError, match="on chance: Dropout 'drop'"):
        load_model(dropped(True, ratio_given=ratio_given))


@pytest.mark.parametrize(
    "model",
    [
        normalized(17),
        normalized(17, training_mode=0),
        normalized(11),
        dropped(False),
        dropped(None),
        dropped(True, ratio=0.0),
        # The caller decides.
        dropped("input"),
    ],
)
def test_inference_mode_is_accepted(model: onnx.ModelProto) -> None:
    assert load_model(model).proto.graph.node


def test_training_mode_that_callers_may_replace_is_theirs() -> None:
    model = dropped(True)
    name = model.graph.node[-1].input[2]
    model.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []))
    assert load_model(model).proto.graph.node


def test_training_mode_in_a_constant_node_and_a_subgraph_is_found() -> None:
    inner = Maker()
    inner.node("Constant", [], outputs=["on"], value=helper.make_tensor("", 9, [], [True]))
    inner.node("Dropout", ["x", "", "on"], outputs=["z"], name="inner")
    branch = inner.model(["z"]).graph
    make = Maker()
    make.input("x", ["N", 8])
    condition = make.input("c", [], onnx.TensorProto.BOOL)
    make.node("If", [condition], outputs=["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(ValueError, match=r"Dropout 'inner', Dropout 'inner'"):
        load_model(make.model(["y"]))


def test_training_mode_in_external_data_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        dropped(True), path, save_as_external_data=True, location="data.bin", size_threshold=0
    )
    for most in (0, 1 << 20):
        with pytest.raises(ValueError, match="training mode"):
            load_model(path, in_memory_bytes=most)
