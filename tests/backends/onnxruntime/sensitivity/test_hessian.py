"""Hessian traces are those of the exact Hessian, and scores are traces times perturbations."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import logging
from typing import Any

from forked_scripts import written_by
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import helper
import pytest
import torch
from torch.nn import functional as F
from zygote import Zygote

from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.sensitivity.hessian import HessianSensitivity
from optuna_quant.backends.onnxruntime.sensitivity.op_weights import channel_axis
from optuna_quant.backends.onnxruntime.sensitivity.op_weights import find_weights
from optuna_quant.backends.onnxruntime.torch_graph.graph import TorchGraph
from optuna_quant.backends.onnxruntime.torch_graph.supported import UnsupportedOperatorError
from optuna_quant.backends.sensitivity.curvature import output_change
from optuna_quant.backends.sensitivity.hutchinson import block_traces
from optuna_quant.backends.sensitivity.perturbation import squared_perturbation
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are far too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


Array = NDArray[Any]
Tensors = dict[str, torch.Tensor]

PER_TENSOR = TensorConfig("int8", "sym", "per_tensor", "minmax")
PER_CHANNEL = TensorConfig("int8", "sym", "per_channel", "minmax")
UNSIGNED = TensorConfig("uint8", "asym", "per_tensor", "minmax")
INT8 = OpConfig("static", UNSIGNED, PER_CHANNEL)

WEIGHTS = {"conv1": "w", "conv10": "w2", "fc": "w3"}


def rand(*shape: int, seed: int = 0) -> Array:
    generator = np.random.default_rng([seed, *shape])
    return generator.normal(size=shape).astype(np.float32)


def small_model(fixed: int | None = None) -> onnx.ModelProto:
    """Two convolutions, a product of activations and a linear layer; smooth throughout."""
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "w"], ["a"], "conv1", pads=[1, 1]),
        n("Tanh", ["a"], ["b"], "tanh"),
        n("Conv", ["b", "w2"], ["c"], "conv10"),
        n("Transpose", ["c"], ["d"], "turn", perm=[0, 2, 1]),
        n("MatMul", ["c", "d"], ["e"], "product"),
        n("Flatten", ["e"], ["f"], "flat"),
        n("Gemm", ["f", "w3"], ["logits"], "fc", transB=1),
    ]
    constants = {"w": rand(2, 1, 3), "w2": 0.5 * rand(2, 2, 2), "w3": 0.3 * rand(3, 4)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [fixed or "n", 1, 5])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [fixed or "n", 3])],
        [onnx.numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SAMPLES = 12
X = rand(SAMPLES, 1, 5, seed=1)
Y = np.arange(SAMPLES, dtype=np.int32) % 3


def cross_entropy(outputs: Tensors, batch: Tensors) -> torch.Tensor:
    return F.cross_entropy(outputs["logits"], batch["labels"])


def exact_traces(
    loss: Callable[[Tensors, Tensors], torch.Tensor], **more: torch.Tensor
) -> dict[str, float]:
    graph = TorchGraph(small_model(), weights=WEIGHTS, dtype="float64")
    batch = {"x": torch.from_numpy(X), "labels": torch.from_numpy(Y).long(), **more}
    leaves = dict(graph.leaves)
    traces = {}
    for op, leaf in leaves.items():

        def function(flat: torch.Tensor, op: str = op) -> torch.Tensor:
            graph.leaves = {**leaves, op: flat.reshape(leaves[op].shape)}
            return loss(graph(batch), batch)

        hessian = torch.autograd.functional.hessian(function, leaf.detach().reshape(-1))
        traces[op] = float(torch.trace(hessian))
    return traces


def make(**options: Any) -> HessianSensitivity:
    settings: dict[str, Any] = {"labels": Y, "weights": WEIGHTS, **options}
    loss = settings.pop("loss", cross_entropy)
    data = settings.pop("data", {"x": X})
    return HessianSensitivity(settings.pop("model", small_model()), loss, data, **settings)


def config(**ops: OpConfig) -> QuantConfig:
    every = ["conv1", "conv10", "product", "fc"]
    return QuantConfig({op: ops.get(op, INT8) for op in every})


def regression(outputs: Tensors, batch: Tensors) -> torch.Tensor:
    return ((outputs["logits"] - batch["x"][:, 0, :3]) ** 2).mean()


# Traces.


@pytest.mark.parametrize("loss", [cross_entropy, regression, output_change])
def test_traces_are_those_of_the_exact_hessian(loss: Any) -> None:
    sensitivity = make(loss=loss, probes=300, tolerance=0.0, batch_size=SAMPLES, dtype="float64")
    report = sensitivity.report
    assert list(report.ops) == list(WEIGHTS)
    for op, exact in exact_traces(loss).items():
        found = report.ops[op]
        assert found.trace == pytest.approx(exact, abs=4.5 * found.standard_error)
        assert found.standard_error < 0.2 * abs(exact)
        assert found.average == pytest.approx(found.trace / found.size)


def test_batches_are_weighted_by_their_samples() -> None:
    # The last batch, of two samples, is most of the loss.
    steep = np.repeat(np.float32([1.0, 50.0]), [10, 2])

    def loss(outputs: Tensors, batch: Tensors) -> torch.Tensor:
        each = F.cross_entropy(outputs["logits"], batch["labels"], reduction="none")
        return (batch["steep"] * each).mean()

    data, weights = {"x": X, "steep": steep}, {"conv10": "w2", "fc": "w3"}
    options: dict[str, Any] = {"probes": 60, "tolerance": 0.0, "batch_size": 5}
    found = make(loss=loss, data=data, weights=weights, **options).report
    exact = exact_traces(loss, steep=torch.from_numpy(steep))
    for op in weights:
        # With the same weight for each batch it would be twice as large.
        assert found.ops[op].trace == pytest.approx(exact[op], rel=0.5)


def quadratic(
    steepness: list[float], coupling: float
) -> tuple[Callable[[], torch.Tensor], Tensors, NDArray[np.float64]]:
    """A quadratic form in blocks of 6, of given steepness and coupled; its blocks' traces."""
    generator = np.random.default_rng(0)
    size = 6 * len(steepness)
    mix = generator.normal(size=(size, size)) * coupling + np.eye(size)
    scale = np.repeat(np.sqrt(steepness), 6)
    hessian = torch.from_numpy(scale[:, None] * (mix @ mix.T) * scale)
    leaves = {f"block{i}": torch.zeros(2, 3).double() for i in range(len(steepness))}
    for leaf in leaves.values():
        leaf.requires_grad_()

    def loss() -> torch.Tensor:
        flat = torch.cat([leaf.reshape(-1) for leaf in leaves.values()])
        return 0.5 * flat @ hessian @ flat

    return loss, leaves, np.diag(hessian.numpy()).reshape(-1, 6).sum(1)


def test_estimates_are_unbiased_and_their_errors_honest() -> None:
    loss, leaves, exact = quadratic([1.0, 3.0, 10.0], coupling=0.3)
    runs = [
        block_traces([(1.0, loss)], leaves, probes=16, tolerance=0.0, seed=seed)
        for seed in range(50)
    ]
    traces = np.array([run.trace for run in runs])
    spread = traces.std(axis=0, ddof=1)
    assert np.all(np.abs(traces.mean(axis=0) - exact) < 4.0 * spread / np.sqrt(len(runs)))
    stated = np.sqrt(np.mean([run.standard_error**2 for run in runs], axis=0))
    np.testing.assert_allclose(stated, spread, rtol=0.25)


def test_steep_blocks_do_not_drown_flat_ones() -> None:
    loss, leaves, exact = quadratic([1e-4, 1.0, 1e4], coupling=0.2)
    found = block_traces([(1.0, loss)], leaves, probes=32, tolerance=0.0, seed=0)
    np.testing.assert_allclose(found.trace, exact, rtol=0.5)
    assert np.all(found.standard_error < 0.2 * exact)


def test_diagonal_hessian_is_exact_at_once() -> None:
    leaf = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64, requires_grad=True)
    found = block_traces(
        [(0.5, lambda: (leaf**3).sum()), (0.5, lambda: (leaf**2).sum())],
        {"a": leaf},
        probes=32,
        tolerance=1e-6,
        seed=0,
    )
    assert found.trace == pytest.approx([0.5 * 6 * 0 + 0.5 * 2 * 3])
    assert found.probes == 8


def test_flat_loss_has_trace_zero() -> None:
    sensitivity = make(loss=lambda outputs, batch: outputs["logits"].mean(), weights={"fc": "w3"})
    trace = sensitivity.report.ops["fc"]
    assert (trace.trace, trace.standard_error, trace.converged) == (0.0, 0.0, True)
    assert sensitivity(config(), ["fc"]) == {"fc": 0.0}


def test_probes_stop_when_certain_enough() -> None:
    loose, strict = make(tolerance=1e6), make(tolerance=1e-9)
    assert loose.report.probes == 8
    assert loose.report.converged
    assert strict.report.probes == 32
    assert not strict.report.converged
    assert make(probes=11, tolerance=0.0).report.probes == 11


def test_convergence_is_of_the_worst_op() -> None:
    report = make(tolerance=0.3, probes=400).report
    assert report.converged
    for trace in report.ops.values():
        assert trace.standard_error <= 0.3 * abs(trace.trace)


def test_report() -> None:
    report = make(seed=3, max_samples=10).report
    assert (report.seed, report.samples, report.tolerance) == (3, 10, 0.2)
    frame = report.dataframe()
    assert list(frame.index) == list(WEIGHTS)
    assert frame.loc["conv10", "weight"] == "w2"
    assert list(frame["size"]) == [6, 8, 12]
    np.testing.assert_allclose(frame["average"] * frame["size"], frame["trace"])


def test_seed_decides() -> None:
    first, same, other = (make(seed=seed)(config(), list(WEIGHTS)) for seed in (0, 0, 1))
    assert first == same
    assert first != other


def test_traces_are_computed_once() -> None:
    calls = []

    def loss(outputs: Tensors, batch: Tensors) -> torch.Tensor:
        calls.append(1)
        return cross_entropy(outputs, batch)

    sensitivity = make(loss=loss)
    assert len(calls) == 1  # tried at once, on one batch
    sensitivity(config(), ["conv1"])
    count = len(calls)
    sensitivity(config(fc=FP32), list(WEIGHTS))
    assert len(calls) == count > 1


# Scores.


def numpy_perturbation(weight: Array, axis: int | None) -> float:
    """Of int8, symmetric, in plain numpy."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True).astype(np.float64) / 127
    rounded = np.round(weight / scale) * scale
    return float(((rounded - weight) ** 2).sum())


def test_score_is_average_trace_times_perturbation() -> None:
    sensitivity = make()
    coarse = OpConfig("static", UNSIGNED, PER_TENSOR)
    chosen = config(conv10=coarse)
    scores = sensitivity(chosen, ["conv10", "fc", "conv1"])
    assert list(scores) == ["conv10", "fc", "conv1"]
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in small_model().graph.initializer}
    for op, weight, axis in (("conv1", "w", 0), ("conv10", "w2", None), ("fc", "w3", 0)):
        average = sensitivity.report.ops[op].average
        expected = average * numpy_perturbation(tensors[weight], axis)
        assert scores[op] == pytest.approx(expected, rel=1e-4)


def test_score_says_what_the_weight_costs() -> None:
    """Half of it is the rise of the loss, where curvature and errors are unrelated."""
    sensitivity = make(loss=output_change, probes=64, max_samples=12, batch_size=12)
    four_bits = TensorConfig("int4", "sym", "per_tensor", "minmax")
    weights = OpConfig("weight_only", None, four_bits)
    scores = sensitivity(config(fc=weights), ["fc"])
    graph = TorchGraph(small_model(), weights={"fc": "w3"})
    with torch.no_grad():
        exact = graph({"x": torch.from_numpy(X)})["logits"]
        w = graph.leaves["fc"]
        scale = w.abs().max() / 7
        w.copy_(torch.round(w / scale) * scale)
        rise = 0.5 * ((graph({"x": torch.from_numpy(X)})["logits"] - exact) ** 2).sum()
    assert scores["fc"] / 2 == pytest.approx(float(rise / (exact**2).sum()), rel=1.0)


def test_ops_in_fallback_and_without_weight_score_zero(caplog: pytest.LogCaptureFixture) -> None:
    sensitivity = make()
    activations = OpConfig("static", UNSIGNED)
    logger = logging.getLogger("optuna_quant.backends.sensitivity.curvature")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        scores = sensitivity(config(conv1=FP32, product=activations), ["product", "conv1", "fc"])
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.NOTSET)
    assert scores["product"] == scores["conv1"] == 0.0
    assert scores["fc"] > 0.0
    assert "1 ops have no weight and score zero: product." in caplog.text
    assert "Hessian traces of 3 weights with" in caplog.text


def test_names_are_matched_exactly() -> None:
    whole = make(probes=160, tolerance=0.0)
    only = make(probes=160, tolerance=0.0, weights={"conv10": "w2"})
    trace = only.report.ops["conv10"]
    other = whole.report.ops["conv10"]
    error = trace.standard_error + other.standard_error
    assert trace.trace == pytest.approx(other.trace, abs=4 * error)
    assert only(config(), ["conv1", "conv10"])["conv1"] == 0.0
    assert whole.report.ops["conv1"].trace != pytest.approx(other.trace, abs=4 * error)


# Perturbations.


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_perturbation_as_in_numpy(axis: int | None) -> None:
    weight = rand(4, 3, 5) * np.array([0.01, 1.0, 30.0], np.float32)[:, None]
    tensor = PER_TENSOR if axis is None else PER_CHANNEL
    found = squared_perturbation(weight, tensor, axis)
    assert found == pytest.approx(numpy_perturbation(weight, axis), rel=1e-3)


def test_perturbation_asymmetric() -> None:
    weight = np.abs(rand(6, 7)) + 1.0
    scale = weight.max() / 255  # the range begins at zero
    expected = ((np.round(weight / scale) * scale - weight) ** 2).sum()
    assert squared_perturbation(weight, UNSIGNED, 0) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("size", [4, 5])
def test_perturbation_in_groups(size: int) -> None:
    weight = rand(10, 3)
    grouped = TensorConfig("int4", "sym", "per_group", "minmax", group_size=size)
    expected = 0.0
    for column in weight.T:
        for start in range(0, 10, size):
            part = column[start : start + size].astype(np.float64)
            scale = np.abs(part).max() / 7
            expected += ((np.round(part / scale) * scale - part) ** 2).sum()
    assert squared_perturbation(weight, grouped, 1) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("algorithm", ["rtn", "gptq", "k_quant"])
@pytest.mark.parametrize(("axis", "dtype"), [(None, "int2"), (0, "int4"), (1, "int2")])
def test_perturbation_of_weights_alone(algorithm: str, axis: int | None, dtype: str) -> None:
    weight = rand(24, 40)
    option = TensorConfig(dtype, "asym", "per_group", algorithm, group_size=16)
    rows = weight.T if axis == 1 else weight
    same = "rtn" if algorithm == "gptq" else algorithm
    kept = quantize_grouped(
        rows, bits=option.bits, group_size=16, scheme="asym", algorithm=same
    ).dequantized()
    expected = np.square(kept - rows).sum()
    assert squared_perturbation(weight, option, axis) == pytest.approx(expected, rel=1e-4)


def test_perturbation_falls_with_bits_and_channels() -> None:
    weight = rand(8, 16) * np.geomspace(0.01, 1.0, 8, dtype=np.float32)[:, None]
    kinds = [("int4", "per_tensor"), ("int4", "per_channel"), ("int8", "per_channel")]
    configs = [TensorConfig(dtype, "sym", granularity, "minmax") for dtype, granularity in kinds]
    found = [squared_perturbation(weight, c, 0) for c in configs]
    assert found[0] > found[1] > found[2] > 0.0
    searched = TensorConfig("int4", "sym", "per_tensor", "mse")
    assert squared_perturbation(weight, searched, 0) <= found[0]


@pytest.mark.parametrize(
    ("op_type", "attributes", "inputs", "rank", "axis"),
    [
        ("Conv", {}, ["x", "w"], 4, 0),
        ("ConvTranspose", {}, ["x", "w"], 4, 1),
        ("ConvTranspose", {"group": 2}, ["x", "w"], 4, None),
        ("Gemm", {}, ["x", "w"], 2, 1),
        ("Gemm", {"transB": 1}, ["x", "w"], 2, 0),
        ("Gemm", {}, ["w", "x"], 2, 0),
        ("Gemm", {"transA": 1}, ["w", "x"], 2, 1),
        ("MatMul", {}, ["x", "w"], 2, 1),
        ("MatMul", {}, ["x", "w"], 3, 2),
        ("MatMul", {}, ["w", "x"], 3, 1),
        ("MatMul", {}, ["x", "w"], 1, None),
        ("Gather", {}, ["w", "x"], 2, None),
    ],
)
def test_channel_axis(
    op_type: str, attributes: dict[str, int], inputs: list[str], rank: int, axis: int | None
) -> None:
    assert channel_axis(helper.make_node(op_type, inputs, ["y"], **attributes), "w", rank) == axis


def test_find_weights() -> None:
    model = small_model()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    template = onnx.ModelProto()
    template.CopyFrom(model)
    del template.graph.node[:]
    del template.graph.initializer[:]
    assert find_weights(Graph(template, tuple(model.graph.node), tensors, 17)) == WEIGHTS


# Data.


def test_forms_of_data_agree() -> None:
    whole = make(max_samples=10, batch_size=4)
    batches = [{"x": X[:7], "labels": Y[:7]}, {"x": X[7:], "labels": Y[7:].astype(np.int64)}]
    listed = make(data=batches, labels=None, max_samples=10, batch_size=4)
    aside = make(data=({"x": X[i : i + 4]} for i in range(0, 12, 4)), max_samples=10)
    ops = list(WEIGHTS)
    assert whole(config(), ops) == aside(config(), ops)
    assert listed.report.samples == whole.report.samples == 10
    # Cut into 4, 3 and 3 samples instead of 4, 4 and 2, so with other probes.
    for op in ops:
        ours, theirs = whole.report.ops[op], listed.report.ops[op]
        error = ours.standard_error + theirs.standard_error
        assert ours.trace == pytest.approx(theirs.trace, abs=5 * error)


def test_only_what_is_needed_is_read() -> None:
    def batches() -> Any:
        yield {"x": X}
        raise AssertionError("read on")

    assert make(data=batches(), max_samples=8).report.samples == 8


def test_fixed_batch_size() -> None:
    report = make(model=small_model(fixed=5), max_samples=8).report
    assert report.samples == 10  # of 12: two whole batches


def test_loss_sees_batch_and_outputs() -> None:
    seen = {}

    def loss(outputs: Tensors, batch: Tensors) -> torch.Tensor:
        seen.update(
            {"outputs": list(outputs), **{k: (v.dtype, v.shape) for k, v in batch.items()}}
        )
        return (outputs["logits"] ** 2).mean()

    make(loss=loss, data={"x": X, "extra": np.ones((12, 2))}, batch_size=8)
    assert seen == {
        "outputs": ["logits"],
        "x": (torch.float32, (8, 1, 5)),
        "extra": (torch.float32, (8, 2)),
        "labels": (torch.int64, (8,)),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": {"y": X}}, "Input 'x' is missing in the data: there are arrays for ['y']."),
        ({"data": {"x": X, "z": X[:3]}}, "arrays of different lengths"),
        (
            {"data": [{"x": X[:, 0]}]},
            "batch 0 of the data has float32 of shape (12, 5), but the model expects",
        ),
        (
            {"data": {"x": X.astype(int)}},
            "has int64 of shape (12, 1, 5), but the model expects fl",
        ),
        ({"data": [{"z": X}]}, "Input 'x' is missing in batch 0 of the data"),
        ({"data": []}, "The data for the loss are empty"),
        ({"labels": Y[:7]}, "There are 7 labels, but at least 12 samples."),
        ({"data": {"x": X, "labels": Y}}, "The data hold 'labels' already"),
        ({"probes": 1}, "probes must be an integer of at least 2, but got 1."),
        ({"max_samples": 0}, "max_samples must be an integer of at least 1"),
        ({"batch_size": 2.0}, "batch_size must be an integer of at least 1, but got 2.0."),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"tolerance": -0.1}, "tolerance must be a number of at least 0, but got -0.1."),
        ({"tolerance": float("nan")}, "tolerance must be a number of at least 0"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64'"),
        ({"weights": {"conv": "w"}}, "no node has the name 'conv'"),
        ({"weights": {"fc": "w"}}, "op 'fc' (Gemm) does not read initializer 'w'"),
        ({"parameters": {}}, "module= and parameters= must be given together."),
        (
            {"loss": lambda outputs, batch: outputs["logits"]},
            "must give one value, but gave a tensor of shape (12, 3): take the mean",
        ),
        (
            {"loss": lambda outputs, batch: outputs["logits"].detach().mean()},
            "does not depend on the weights: compute it in torch from the outputs, logits",
        ),
        (
            {"loss": lambda outputs, batch: outputs["logits"].mean() * float("nan")},
            "The loss is nan on batch 0 of the data.",
        ),
    ],
)
def test_bad_input_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        make(**options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": X}, "of type ndarray|batch 0 of the data is of type"),
        ({"data": 3}, "The data for the loss are of type int"),
        ({"data": [X]}, "batch 0 of the data is of type ndarray; pass a dict"),
        ({"data": {"x": X, "s": np.array(["a"] * 12)}}, "'s' in batch 0 of the data must hold"),
        ({"loss": "mse"}, "loss must be a function of outputs and batch, but got 'mse'."),
        ({"loss": lambda outputs, batch: 1.0}, "must give a tensor with one value, but gave a fl"),
    ],
)
def test_wrong_types_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(**options)


def test_op_that_is_not_in_the_configuration() -> None:
    with pytest.raises(ValueError, match="There is no op 'conv' in the configuration"):
        make()(config(), ["conv"])


def test_weight_type_that_is_not_known() -> None:
    odd = OpConfig("weight_only", None, TensorConfig("int2", "sym", "per_tensor", "minmax"))
    with pytest.raises(
        ValueError, match="The weight of op 'fc' as int2/.*Unknown quantized dtype"
    ):
        make()(config(fc=odd), ["fc"])


def test_hessian_that_is_not_finite() -> None:
    def loss(outputs: Tensors, batch: Tensors) -> torch.Tensor:
        return (outputs["logits"] - outputs["logits"].detach()).abs().clamp(min=0).pow(1.5).mean()

    with pytest.raises(ValueError, match="not finite in the weight of 'conv1' \\(3 of 3 weights"):
        _ = make(loss=loss).report


# Modules.


class Small(torch.nn.Module):
    """The module of :func:`small_model`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv1d(1, 2, 3, padding=1, bias=False)
        self.second = torch.nn.Conv1d(2, 2, 2, bias=False)
        self.head = torch.nn.Linear(4, 3, bias=False)
        self.drop = torch.nn.Dropout(0.5)
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in small_model().graph.initializer}
        with torch.no_grad():
            for layer, name in zip((self.first, self.second, self.head), tensors, strict=True):
                layer.weight.copy_(torch.from_numpy(tensors[name].copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c = self.drop(self.second(torch.tanh(self.first(x))))
        return self.head((c @ c.transpose(1, 2)).flatten(1))


PARAMETERS = {"conv1": "first.weight", "conv10": "second.weight", "fc": "head.weight"}


def test_module_instead_of_graph() -> None:
    module = Small()
    assert module.training
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    model = small_model()
    model.graph.node.append(helper.make_node("Det", ["e"], ["unread"], "determinant"))
    with pytest.raises(UnsupportedOperatorError, match="Det"):
        make(model=model)
    found = make(model=model, module=module, parameters=PARAMETERS)(config(), list(WEIGHTS))
    expected = make()(config(), list(WEIGHTS))
    assert found == pytest.approx(expected, rel=1e-3)
    # The module is as it was.
    assert all(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(state[n], t) for n, t in module.state_dict().items())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameters: it is empty; the ops with one are 'conv1', 'conv10', 'fc'."),
        ({"conv": "first.weight"}, "there is no op 'conv' with a weight; the ops with one are"),
        ({**PARAMETERS, "fc": "tail.weight"}, "no parameter 'tail.weight' (op 'fc')"),
        (
            {**PARAMETERS, "fc": "first.weight"},
            "'first.weight' has 6 values, but the weight of op 'fc', 'w3', has 12.",
        ),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        make(module=Small(), parameters=parameters)
    assert message in str(raised.value)


def test_module_with_some_parameters() -> None:
    sensitivity = make(module=Small(), parameters={"conv10": "second.weight"})
    chosen = config(conv1=FP32)
    assert list(sensitivity.report.ops) == ["conv10"]
    assert sensitivity(chosen, ["conv10", "conv1"])["conv1"] == 0.0
    with pytest.raises(ValueError, match="must name the module's parameter of op 'fc'"):
        sensitivity(chosen, ["conv10", "fc"])


def test_module_with_fused_attention_and_named_outputs() -> None:
    """Fused attention cannot be differentiated twice; the plain one is used."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.tied = self.layer.linear1

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": self.layer(x)}

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "up"),
        helper.make_node("MatMul", ["x", "w"], ["b"], "again"),
        helper.make_node("Sub", ["a", "b"], ["y"], "sub"),
    ]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, 8])],
        [onnx.numpy_helper.from_array(rand(4, 8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    report = HessianSensitivity(
        model,
        lambda outputs, batch: (outputs["y"] ** 4).mean(),
        {"x": rand(4, 3, 4)},
        weights={"up": "w", "again": "w"},
        module=Block(),
        parameters={"up": "layer.linear1.weight", "again": "tied.weight"},
    ).report
    assert report.ops["up"] == report.ops["again"]  # one parameter
    assert report.ops["up"].trace != 0.0


def test_module_of_wrong_output() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv1d(1, 2, 3, bias=False)

        def forward(self, x: torch.Tensor) -> object:
            return 1.0

    with pytest.raises(TypeError, match="The module gave a value of type float"):
        make(module=Odd(), parameters={"conv1": "first.weight"}, weights={"conv1": "w"})


def test_torch_is_named_where_it_is_missing(zygote: Zygote) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import optuna_quant.backends.onnxruntime\n"
        "try:\n"
        "    import optuna_quant.backends.onnxruntime.sensitivity.hessian\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    assert written_by(zygote, code).strip() == (
        'Hessian sensitivity needs the package torch: pip install "optuna_quant[torch]" '
        '(in a clone of it: pip install ".[torch]").'
    )
