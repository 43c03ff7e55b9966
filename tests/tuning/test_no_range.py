"""An op that calibration gives no range: the reason is that, and not what it would save."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import TensorProto
from onnx import helper
import onnxruntime
import pytest
import torch

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.costs import CostTable


def two_branches() -> onnx.ModelProto:
    """Two layers, and beside them one on the logarithm of zero."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array((rng.normal(size=(16, 16)) / 4).astype(np.float32), name)
        for name in ("w0", "w1", "w2")
    ]
    zero = onnx.numpy_helper.from_array(np.zeros(16, np.float32), "zero")
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w1"], ["y"], name="second"),
        helper.make_node("Mul", ["r", "zero"], ["z"], name="mul"),
        helper.make_node("Log", ["z"], ["l"], name="log"),
        helper.make_node("MatMul", ["l", "w2"], ["b"], name="infinite"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 16]) for n in "xyb"]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [*weights, zero])
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_an_op_without_a_range_is_not_said_to_be_no_smaller() -> None:
    model = two_branches()
    x = np.random.default_rng(1).normal(size=(400, 16)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})
    labels = (y.argmax(1) + (np.arange(400) % 30 == 0)) % 16
    result = optuna_quant.tune(
        model,
        calibration_data={"x": x[:100]},
        data={"x": x, "labels": labels},
        objective="size",
        strategy="surrogate",
        tolerable_loss=0.0001,
        max_trials=10,
    )
    assert result.config is not None
    assert not result.config["infinite"].is_quantized
    reason = result.explain("infinite")
    assert "no smaller" not in reason
    assert reason.startswith("in FP32: Tensor 'l' holds")
    assert "so it has no quantization range" in reason
    assert result.explanation is not None
    assert "in fallback: infinite: it has no quantization range" in str(result.explanation)
    notes = result.report().set_index("op")["note"]
    assert notes["infinite"] == reason
    # A mask of -inf is the model's, and no fault of the data.
    assert not result.warnings


def rooted(*outputs: str) -> onnx.ModelProto:
    """A layer, and two behind a root, which is NaN for what is negative."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array((rng.normal(size=(16, 16)) / 4).astype(np.float32), name)
        for name in ("w0", "w1", "w2")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["y"], name="plain"),
        helper.make_node("Sqrt", ["x"], ["root"], name="root"),
        helper.make_node("MatMul", ["root", "w1"], ["a"], name="one"),
        helper.make_node("MatMul", ["a", "w2"], ["z"], name="two"),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 16]) for n in ("x", *outputs)
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def positive(samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).random((samples, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def spoiled() -> tuple[optuna_quant.TuningResult, str]:
    """A search in which one sample takes two of three ops their ranges, and what it showed."""
    model, x = rooted("y", "z"), positive(200)
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})
    calibration = x[:100].copy()
    calibration[37, 3] = -1.0
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        result = optuna_quant.tune(
            model,
            calibration_data={"x": calibration},
            data={"x": x, "labels": y.argmax(1)},
            objective="size",
            measure_gain=False,
        )
    return result, shown.getvalue()


def test_a_result_names_the_calibration_sample_that_takes_ops_their_ranges(
    spoiled: tuple[optuna_quant.TuningResult, str], tmp_path: Path
) -> None:
    result, _ = spoiled
    (warning,) = result.warnings
    assert warning == (
        "2 of 3 ops have no quantization range and stay in floats, because calibration sample 37 "
        "gives NaN or infinite values there: one, two. Leave such samples out, or prepare them as "
        "for inference."
    )
    assert f"warning: {warning}" in str(result)
    assert "Seen in calibration sample 37." in result.explain("one")
    result.save_report(tmp_path / "report.html")
    assert "because calibration sample 37 gives NaN" in (tmp_path / "report.html").read_text()


def test_progress_does_not_call_ops_quantized_that_have_no_range(
    spoiled: tuple[optuna_quant.TuningResult, str],
) -> None:
    _, shown = spoiled
    assert "1 of 3 ops in INT8" in shown
    assert "all 3 ops" not in shown


def test_without_gain_the_data_are_blamed_and_no_other_objective_is_advised() -> None:
    model, x = rooted("y", "z"), positive(200)
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})
    calibration = x[:100].copy()
    calibration[37, 3] = -1.0
    backend = OnnxRuntimeBackend(model, calibration_data={"x": calibration}, approach="static")
    space = backend.tuning_space()
    backend.quantize(space.default())  # As where costs are measured.
    ops = {
        op: {option.label: 2.0 if option.is_quantized else 1.0 for option in tunable.options}
        for tunable in space.tunables
        for op in tunable.ops
    }
    result = optuna_quant.tune(
        backend=backend,
        data={"x": x, "labels": y.argmax(1)},
        objective="latency",
        costs=CostTable("latency", "s", ops),
    )
    assert result.kind == "fp32"
    first, *_, last = str(result).splitlines()
    assert first.startswith("NO GAIN: 2 of 3 ops have no quantization range because of the")
    assert "calibration data: mend these first" in last
    assert "objective='size'" not in last
    assert "it has no quantization range" in result.explain("one")


def test_a_calibration_sample_of_which_the_output_is_nan_is_refused() -> None:
    calibration = positive(100)
    calibration[37, 3] = -1.0
    backend = OnnxRuntimeBackend(rooted("z", "y"), calibration_data={"x": calibration})
    with pytest.raises(ValueError, match="output is NaN for calibration sample 37, and"):
        backend.calibrate()


class Rooted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.plain = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        root = self.one(x.sqrt())
        return self.plain(x) + torch.where(root.isnan(), 0.0, root)


def test_pytorch_names_the_sample_as_well() -> None:
    calibration = positive(100)
    calibration[37, 3] = -1.0
    example = torch.from_numpy(positive(2))
    backend = TorchBackend(Rooted(), example, calibration_data={"x": calibration})
    with pytest.warns(UserWarning, match="Seen in calibration sample 37"):
        backend.quantize(backend.tuning_space().default())
    assert backend.missing_ranges()["one"].samples == "calibration sample 37"
    module = torch.nn.Sequential(Rooted().one, torch.nn.Linear(16, 4))
    calibration[37, 3] = np.inf
    backend = TorchBackend(module, example, calibration_data={"input": calibration})
    with pytest.raises(ValueError, match="output is NaN for calibration sample 37, and"):
        backend.calibrate()
