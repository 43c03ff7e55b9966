from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import helper
from onnx import numpy_helper
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization import quantize_static
import pytest

from optuna_quant.backends.onnxruntime.executed.executed import ExecutedOp
from optuna_quant.backends.onnxruntime.executed.executed import executed_ops
from optuna_quant.backends.onnxruntime.executed.match import Match


CPU = ["CPUExecutionProvider"]
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
EXTENDED = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
BASIC = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
OFF = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def node(op_type: str, inputs: str, output: str, name: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name, **attributes)


class Builder:
    """A model with hand-inserted Q/DQ: every ``q`` is a pair, every ``w`` a quantized weight."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, NDArray[Any]] = {
            "scale": np.array(0.05, np.float32),
            "zero": np.array(0, np.uint8),
            "middle": np.array(128, np.uint8),
            "weight_scale": np.array(0.01, np.float32),
            "weight_zero": np.array(0, np.int8),
        }

    def add(self, op_type: str, inputs: str, name: str, **attributes: Any) -> str:
        self.nodes.append(node(op_type, inputs, f"{name}_out", name, **attributes))
        return f"{name}_out"

    def q(self, tensor: str, zero: str = "zero") -> str:
        integers, floats = f"{tensor}_q_{zero}", f"{tensor}_dq_{zero}"
        parameters = ["scale", zero]
        self.nodes += [
            helper.make_node("QuantizeLinear", [tensor, *parameters], [integers], f"{integers}_Q"),
            helper.make_node(
                "DequantizeLinear", [integers, *parameters], [floats], f"{floats}_DQ"
            ),
        ]
        return floats

    def w(self, name: str, *shape: int) -> str:
        values = np.random.default_rng(0).integers(-127, 128, size=shape)
        self.tensors[name] = values.astype(np.int8)
        inputs = [name, "weight_scale", "weight_zero"]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], f"{name}_DQ")
        )
        return f"{name}_dq"

    def model(self, *outputs: str, shape: Sequence[str | int] = ("n", 8, 6, 6)) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.tensors.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def executed(
    model: onnx.ModelProto | bytes | str | Path,
    *ops: str,
    level: onnxruntime.GraphOptimizationLevel = ALL,
    outputs: dict[str, str] | None = None,
) -> dict[str, ExecutedOp]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return executed_ops(model, ops, outputs or {}, providers=CPU, session_options=options)


def kernels(done: dict[str, ExecutedOp]) -> dict[str, str]:
    return {op: ran.kernel for op, ran in done.items()}


def quantized_cnn() -> onnx.ModelProto:
    b = Builder()
    x = b.q("x")
    conv = b.add("Conv", f"{x} {b.w('w1', 8, 8, 3, 3)}", "conv", pads=[1] * 4)
    relu = b.q(b.add("Relu", conv, "relu"))
    depthwise = b.add(
        "Conv", f"{relu} {b.w('w2', 8, 1, 3, 3)}", "depthwise", group=8, pads=[1] * 4
    )
    total = b.q(b.add("Add", f"{b.q(depthwise, 'middle')} {relu}", "residual"), "middle")
    pool = b.q(b.add("MaxPool", total, "pool", kernel_shape=[2, 2]), "middle")
    mean = b.q(b.add("GlobalAveragePool", pool, "mean"), "middle")
    flat = b.q(b.add("Flatten", mean, "flatten"), "middle")
    hidden = b.q(b.add("Gemm", f"{flat} {b.w('w3', 8, 8)}", "gemm"), "middle")
    return b.model(b.add("MatMul", f"{hidden} {b.w('w4', 8, 5)}", "matmul"))


CNN = ["conv", "relu", "depthwise", "residual", "pool", "mean", "flatten", "gemm", "matmul"]


@pytest.mark.parametrize("level", [EXTENDED, ALL])
def test_quantized_ops_run_on_integers(level: onnxruntime.GraphOptimizationLevel) -> None:
    done = executed(quantized_cnn(), *CNN, level=level)
    assert list(done) == CNN
    assert kernels(done) == {
        "conv": "QLinearConv",
        "relu": "QLinearConv",
        "depthwise": "QLinearConv",
        "residual": "QLinearAdd",
        "pool": "NhwcMaxPool" if level == ALL else "MaxPool",
        "mean": "QLinearGlobalAveragePool",
        "flatten": "Flatten",
        "gemm": "QGemm",
        "matmul": "MatMulIntegerToFloat",
    }
    assert all(ran.integer for ran in done.values())
    assert all(ran.provider == "CPUExecutionProvider" for ran in done.values())
    assert "part of QLinearConv 'conv" in done["relu"].note
    assert all(ran.note == "" for op, ran in done.items() if op != "relu")


@pytest.mark.parametrize("level", [OFF, BASIC])
def test_without_fusions_everything_runs_in_floats(
    level: onnxruntime.GraphOptimizationLevel,
) -> None:
    done = executed(quantized_cnn(), *CNN, level=level)
    assert kernels(done)["conv"] == "Conv"
    assert kernels(done)["matmul"] == "MatMul"
    assert not any(ran.integer for ran in done.values())
    assert "floats on dequantized values" in done["gemm"].note


def test_relu_that_cannot_be_fused_leaves_the_conv_in_floats() -> None:
    b = Builder()
    conv = b.add("Conv", f"{b.q('x')} {b.w('w', 8, 8, 3, 3)}", "conv")
    # A range that reaches below zero does not do the work of the Relu.
    relu = b.q(b.add("Relu", conv, "relu"), "middle")
    done = executed(b.model(b.add("Abs", relu, "abs")), "conv", "relu")
    assert kernels(done) == {"conv": "FusedConv", "relu": "FusedConv"}
    assert not done["conv"].integer
    assert "floats on dequantized values" in done["conv"].note


def float_cnn() -> onnx.ModelProto:
    b = Builder()
    b.tensors = {
        "w1": normal(16, 8, 3, 3),
        "b1": normal(16),
        "w2": normal(16, 1, 3, 3),
        "w3": normal(16, 16, 1, 1),
        "w4": normal(16, 16),
        "w5": normal(16, 4),
        "c2": normal(16),
        "c4": normal(16),
        "c5": normal(4),
        "ones": np.ones(16, np.float32),
    }
    first = b.add("Relu", b.add("Conv", "x w1 b1", "conv", pads=[1] * 4), "relu")
    depthwise = b.add("Conv", f"{first} w2", "depthwise", group=16, pads=[1] * 4)
    norm = b.add("BatchNormalization", f"{depthwise} ones c2 c2 ones", "norm")
    last = b.add("Conv", f"{norm} w3", "pointwise")
    total = b.add("Relu", b.add("Add", f"{last} {first}", "residual"), "relu_2")
    flat = b.add("Flatten", b.add("GlobalAveragePool", total, "mean"), "flatten")
    gemm = b.add("Relu", b.add("Gemm", f"{flat} w4 c4", "gemm"), "relu_3")
    matmul = b.add("Add", f"{b.add('MatMul', f'{gemm} w5', 'matmul')} c5", "bias")
    constant = b.add("Add", "c5 c5", "constant")
    return b.model(b.add("Mul", f"{b.add('Identity', matmul, 'same')} {constant}", "product"))


@pytest.mark.parametrize("level", [OFF, BASIC, EXTENDED, ALL])
def test_float_ops_never_count_as_integer(level: onnxruntime.GraphOptimizationLevel) -> None:
    ops = [n.name for n in float_cnn().graph.node]
    done = executed(float_cnn(), *ops, level=level)
    assert list(done) == ops
    assert not any(ran.integer for ran in done.values())
    assert not any("not known" in ran.note for ran in done.values())
    wanted = {"conv": "Conv", "depthwise": "Conv", "pointwise": "Conv", "gemm": "Gemm"}
    for op, kernel in wanted.items():
        assert done[op].kernel.removeprefix("Fused") == kernel
        assert done[op].note in ("", "part of Conv 'depthwise'")


def test_fused_float_ops_say_where_they_went() -> None:
    done = executed(float_cnn(), *(n.name for n in float_cnn().graph.node), level=EXTENDED)
    assert done["conv"] == ExecutedOp("FusedConv", False, "CPUExecutionProvider", "")
    assert done["relu"].note == "part of FusedConv 'conv'"
    assert done["norm"].note == "part of Conv 'depthwise'"
    assert done["residual"].kernel == "Add"
    assert done["relu_3"].note == "part of FusedGemm 'gemm'"
    assert done["bias"].note == "part of Gemm 'matmul'"
    assert done["matmul"].kernel == "Gemm"
    assert done["constant"] == ExecutedOp("", False, None, "constant-folded")


def test_ops_in_blocked_layout_are_found_and_called_as_in_the_model() -> None:
    model = float_cnn()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = ALL
    done = executed(model, *(n.name for n in model.graph.node))
    if done["conv"].kernel != "Conv":
        assert done["conv"].kernel == "FusedConv"  # a processor without that layout
        return
    assert done["relu"].note == "part of Conv 'conv'"
    assert done["residual"].note == "part of Conv 'pointwise'"
    assert done["relu_2"].note == "part of Conv 'pointwise'"
    assert done["mean"].kernel == "GlobalAveragePool"


@pytest.mark.parametrize("behind", ["Relu", "LeakyRelu"])
@pytest.mark.parametrize("level", [EXTENDED, ALL])
@pytest.mark.parametrize("width", [8, 16])
def test_float_conv_is_not_part_of_the_integer_pool_before_it(
    width: int, level: onnxruntime.GraphOptimizationLevel, behind: str
) -> None:
    b = Builder()
    first = b.add("Conv", f"{b.q('x')} {b.w('w', width, 8, 3, 3)}", "conv")
    pool = b.add("MaxPool", b.q(first), "pool", kernel_shape=[2, 2])
    b.tensors["floats"] = normal(width, width, 1, 1)
    # In the blocked layout nothing has the name of this Conv, nor of its result, and what it reads
    # is put in order first: with 8 channels on some processors, with 16 on all that have it.
    act = b.add(behind, b.add("Conv", f"{pool} floats", "fallback"), "act")
    model = b.model(b.add("Abs", act, "abs"))
    done = executed(model, "conv", "pool", "fallback", "act", level=level)
    assert kernels(done)["conv"] == "QLinearConv"
    assert kernels(done)["pool"] == ("NhwcMaxPool" if level == ALL else "MaxPool")
    for op in ("fallback", "act"):
        assert done[op].kernel in ("Conv", "FusedConv")
        assert not done[op].integer
        assert "floats on dequantized values" in done[op].note


def traces(source: list[onnx.NodeProto], optimized: list[onnx.NodeProto]) -> list[list[str]]:
    """The names of what does the work of each node, if ``optimized`` is made of ``source``."""
    match = Match(*(helper.make_graph(nodes, "graph", [], []) for nodes in (source, optimized)))
    return [[host.name for host in match.hosts(i)] for i in range(len(source))]


@pytest.mark.parametrize("next_type", ["Conv", "MaxPool", "MatMul", "LSTM"])
@pytest.mark.parametrize("op_type", ["Conv", "MatMul", "AveragePool", "GRU"])
def test_op_without_trace_is_not_part_of_the_layer_behind_it(op_type: str, next_type: str) -> None:
    source = [
        node(op_type, "x w", "lost_out", "lost"),
        node("Relu", "lost_out", "relu_out", "relu"),
        node(next_type, "relu_out w", "y", "next"),
    ]
    assert traces(source, [node(next_type, "x w", "y", "next")])[0] == []


@pytest.mark.parametrize("behind", ["Conv", "Softmax", "Add"])
def test_integer_kernel_takes_in_no_op_that_it_cannot_do(behind: str) -> None:
    source = [
        node("MaxPool", "x", "pool_out", "pool"),
        node(behind, "pool_out z", "lost_out", "lost"),
        node("QuantizeLinear", "lost_out scale", "y", "q"),
    ]
    assert traces(source, [node("NhwcMaxPool", "x", "unknown", "pool")]) == [["pool"], [], []]


def test_products_of_an_attention_are_part_of_it() -> None:
    source = [
        node("MatMul", "x w", "query", "query"),
        node("MatMul", "query x", "scores", "scores"),
        node("Softmax", "scores", "shares", "softmax"),
        node("MatMul", "shares x", "y", "product"),
    ]
    fused = [node("MultiHeadAttention", "x w", "y", "attention")]
    assert traces(source, fused) == [["attention"]] * 4


def test_removed_ops_say_so() -> None:
    b = Builder()
    same = b.add("Identity", "x", "same")
    done = executed(b.model(b.add("Softmax", same, "softmax"), shape=("n", 6)), "same", "nowhere")
    assert done["same"].note == "part of Softmax 'softmax'"
    assert "no such op" in done["nowhere"].note


def test_similar_names_are_not_confused() -> None:
    b = Builder()
    x = b.q("x")
    first = b.add("Conv", f"{x} {b.w('w1', 8, 8, 1, 1)}", "conv1")
    tenth = b.add("Conv", f"{b.q(first)} {b.w('w2', 8, 8, 1, 1)}", "conv10")
    b.tensors["w3"] = normal(8, 8, 1, 1)
    floats = b.add("Conv", f"{b.q(tenth)} w3", "conv1_0")
    done = executed(b.model(b.add("Abs", floats, "abs")), "conv1", "conv10", "conv1_0")
    assert [ran.integer for ran in done.values()] == [True, True, False]


def dynamic_names() -> onnx.ModelProto:
    b = Builder()
    b.tensors = {"w": normal(6, 6), "v": normal(6, 6, seed=1), "c": normal(6)}
    first = b.add("MatMul", "x w", "mm")
    return b.model(b.add("Gemm", f"{b.add('Relu', first, 'act')} v c", "mm_2"), shape=("n", 6))


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


class OneBatch(CalibrationDataReader):
    def __init__(self, x: NDArray[np.float32]) -> None:
        self._batches = iter([{"x": x}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("give_outputs", [True, False])
def test_ops_renamed_by_the_dynamic_quantizer_are_found(
    tmp_path: Path, give_outputs: bool
) -> None:
    onnx.save(dynamic_names(), tmp_path / "model.onnx")
    quantize_dynamic(tmp_path / "model.onnx", tmp_path / "quantized.onnx")
    outputs = {n.name: n.output[0] for n in dynamic_names().graph.node} if give_outputs else {}
    done = executed(tmp_path / "quantized.onnx", "mm", "act", "mm_2", outputs=outputs)
    assert kernels(done) == {
        "mm": "DynamicQuantizeMatMul",
        "act": "Relu",
        "mm_2": "DynamicQuantizeMatMul",
    }
    assert [ran.integer for ran in done.values()] == [True, False, True]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("style", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("level", [EXTENDED, ALL])
def test_ops_of_the_static_quantizer_are_found(
    tmp_path: Path, style: QuantFormat, level: onnxruntime.GraphOptimizationLevel
) -> None:
    model = float_cnn()
    onnx.save(model, tmp_path / "model.onnx")
    quantize_static(
        tmp_path / "model.onnx",
        tmp_path / "quantized.onnx",
        OneBatch(normal(4, 8, 6, 6)),
        quant_format=style,
        activation_type=QuantType.QUInt8,
    )
    outputs = {n.name: n.output[0] for n in model.graph.node}
    done = executed(tmp_path / "quantized.onnx", *outputs, outputs=outputs, level=level)
    for op in ("conv", "pointwise"):
        assert done[op].kernel == "QLinearConv"
        assert done[op].integer
    # This quantizer takes the Relu out: beside Q/DQ pairs its output still stands for it.
    qdq = style == QuantFormat.QDQ
    assert done["relu"].kernel == ("QLinearConv" if qdq else "")
    assert ("part of QLinearConv" if qdq else "no such op") in done["relu"].note
    assert done["gemm"].kernel == "QGemm"
    assert done["matmul"].kernel in ("QLinearMatMul", "QGemm")
    assert done["residual"].kernel == "QLinearAdd"


def test_weight_only_matmul_is_integer_at_that_accuracy_level_only() -> None:
    for level in (0, 4):
        b = Builder()
        b.tensors = {
            "w": np.random.default_rng(0).integers(0, 256, (4, 1, 16)).astype(np.uint8),
            "s": np.ones(4, np.float32),
        }
        b.add(
            "MatMulNBits",
            "x w s",
            "mm",
            domain="com.microsoft",
            K=32,
            N=4,
            bits=4,
            block_size=32,
            accuracy_level=level,
        )
        done = executed(b.model("mm_out", shape=("n", 32)), "mm")
        assert done["mm"].kernel == "MatMulNBits"
        assert done["mm"].integer == (level == 4)


# The session.


def test_bytes_path_and_proto_give_the_same(tmp_path: Path) -> None:
    model = quantized_cnn()
    onnx.save(model, tmp_path / "model.onnx")
    expected = executed(model, *CNN)
    assert executed(model.SerializeToString(), *CNN) == expected
    assert executed(tmp_path / "model.onnx", *CNN) == expected
    assert executed(str(tmp_path / "model.onnx"), *CNN) == expected


def test_external_data_are_found(tmp_path: Path) -> None:
    onnx.save(
        quantized_cnn(),
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
    )
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    expected = executed(quantized_cnn(), *CNN)
    assert executed(tmp_path / "model.onnx", *CNN) == expected
    got = executed_ops(model, CNN, {}, providers=CPU, external_data_dir=tmp_path)
    assert got == expected


def test_weights_of_large_models_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = executed(quantized_cnn(), *CNN)
    monkeypatch.setattr("optuna_quant.backends.onnxruntime.executed.optimized._LARGE_BYTES", 0)
    assert executed(quantized_cnn(), *CNN) == expected
    assert executed_ops(quantized_cnn(), CNN, {}, providers=CPU) == expected


def test_session_options_and_model_are_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2
    options.optimized_model_filepath = "mine.onnx"
    model = quantized_cnn()
    before = model.SerializeToString(deterministic=True)
    for _ in range(2):
        executed_ops(model, CNN, {}, providers=CPU, session_options=options)
    assert options.optimized_model_filepath == "mine.onnx"
    assert options.log_severity_level == 2
    assert not Path("mine.onnx").exists()
    assert model.SerializeToString(deterministic=True) == before
    assert capfd.readouterr().err == ""


def test_provider_of_each_op_is_told_if_there_are_several() -> None:
    known = onnxruntime.get_available_providers()
    if len(known) < 2:
        assert known == CPU
        return
    done = executed_ops(quantized_cnn(), CNN, {}, providers=known)
    assert {ran.provider for ran in done.values()} <= {*known, None}
    assert done["depthwise"].kernel == "QLinearConv"


def test_graph_that_cannot_be_shown_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.InferenceSession

    def refuse(model: Any, options: onnxruntime.SessionOptions, **kw: Any) -> Any:
        if options.optimized_model_filepath:
            raise RuntimeError("Unable to serialize model as it contains compiled nodes.")
        return real(model, options, **kw)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    done = executed(quantized_cnn(), *CNN)
    assert list(done) == CNN
    assert all("not known" in ran.note and ran.kernel == "" for ran in done.values())


def test_model_that_does_not_load_is_an_error() -> None:
    b = Builder()
    with pytest.raises(Exception, match="NoSuchOperator"):
        executed(b.model(b.add("NoSuchOperator", "x", "op")), "op")
