"""Which of a model's outputs a metric is of."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import samples
import pytest

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant import SampleMetric
from optuna_quant import TuningCriterion
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.data.outputs import as_output_names
from optuna_quant.data.outputs import choose_outputs
from optuna_quant.evaluation.labelled import DataEvaluation


X = samples(60, 8)
FP32 = {"dtype": ["fp32"]}


def two_headed() -> onnx.ModelProto:
    """``kept`` is the input itself, ``size`` the shape of a layer; ``a`` and ``b`` are layers."""
    m = Maker()
    x = m.input("x", ["N", 8])
    h = m.node("Relu", [m.node("MatMul", [x, m.weight(8, 16)], name="shared")])
    m.node("MatMul", [h, m.weight(16, 4)], name="head_a", outputs=["a"])
    m.node("MatMul", [x, m.weight(8, 4)], name="head_b", outputs=["b"])
    m.node("Identity", [x], outputs=["kept"])
    m.node("Shape", [h], outputs=["size"])
    float_, int_ = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    return m.model({"kept": float_, "size": int_, "a": float_, "b": float_})


def labels_of(output: str) -> np.ndarray:
    backend = OnnxRuntimeBackend(two_headed(), calibration_data=X)
    fp32 = backend.quantize(backend.tuning_space().fp32())
    (found,) = fp32.run({"x": X}, [output])
    return np.asarray(found).argmax(axis=1)


def tuned(**options: Any) -> Any:
    return optuna_quant.tune(
        two_headed(),
        calibration_data=X,
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.2),
        **{"tuning_criterion": TuningCriterion(objective="ops"), **options},
    )


def test_outputs_that_depend_on_ops() -> None:
    backend = OnnxRuntimeBackend(two_headed(), calibration_data=X)
    assert backend.outputs_behind(["shared"]) == ("a",)  # The size of a layer says nothing of it.
    assert backend.outputs_behind(["head_b"]) == ("b",)
    assert backend.outputs_behind(["head_b", "shared"]) == ("a", "b")
    assert backend.outputs_behind([]) == ()


def test_dependence_goes_into_subgraphs() -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    m.input("flag", [], onnx.TensorProto.BOOL)
    h = m.node("MatMul", [x, m.weight(8, 8)], name="dense", outputs=["h"])
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [h], ["inner"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
    )
    m.node("If", ["flag"], outputs=["y"], then_branch=branch, else_branch=branch)
    m.node("Not", ["flag"], outputs=["z"])
    model = m.model({"y": onnx.TensorProto.FLOAT, "z": onnx.TensorProto.BOOL})
    backend = OnnxRuntimeBackend(model, approach="dynamic")
    assert backend.outputs_behind(["dense"]) == ("y",)


@pytest.mark.parametrize("name", ["a", "b"])
def test_named_output_is_scored(name: str) -> None:
    result = tuned(data={"x": X, "y": labels_of(name)}, output_names=name)
    assert result.baseline == 1.0  # The labels are what this output says.
    assert result.met


def test_output_that_no_op_can_change() -> None:
    for names, shown in (
        (None, "output 'kept', but .* change it"),
        ("size", "output 'size'"),
        (["kept", "size"], "outputs 'kept', 'size', but .* change them"),
    ):
        metric = SampleMetric(name="own", score=lambda o, y: y)
        with pytest.raises(ValueError, match=rf"{shown}.*Quantization can change: a, b; choose"):
            tuned(data={"x": X, "y": labels_of("a")}, output_names=names, metric=metric)
    # What is left in FP32 is no help.
    with pytest.raises(ValueError, match="output 'b', but .*Quantization can change: a;"):
        tuned(
            data={"x": X, "y": labels_of("b")},
            output_names="b",
            op_name_dict={"head_b": {"weight": FP32, "activation": FP32}},
        )


def test_first_output_is_told_once() -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    outputs = [
        m.node("MatMul", [x, m.weight(8, 4)], name=name, outputs=[name]) for name in ("a", "b")
    ]
    logger = logging.getLogger("optuna_quant")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    data = {"x": X, "y": np.zeros(60, int)}
    try:
        for names, count in ((None, 1), ("a", 0), (["b"], 0)):
            records.clear()
            optuna_quant.tune(
                m.model(outputs),
                calibration_data=X,
                data=data,
                holdout={"x": X[:30], "y": np.zeros(30, int)},
                output_names=names,
                accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.5),
                tuning_criterion=TuningCriterion(objective="ops"),
            )
            said = [r.getMessage() for r in records if "outputs (a, b)" in r.getMessage()]
            assert len(said) == count
            assert all("the first one, 'a'" in text and "--output-name" in text for text in said)
    finally:
        logger.removeHandler(handler)


def test_several_outputs_are_a_tuple_in_the_order_of_the_names() -> None:
    backend = OnnxRuntimeBackend(two_headed(), calibration_data=X)
    fp32 = backend.quantize(backend.tuning_space().fp32())
    a, b = fp32.run({"x": X}, ["a", "b"])

    def difference(outputs: Any, labels: np.ndarray) -> np.ndarray:
        first, second = outputs
        return np.asarray(np.abs(first - second).max(axis=1) + labels)

    metric = SampleMetric(name="difference", score=difference)
    evaluation = DataEvaluation(
        {"x": X, "y": np.zeros(60)}, metric, output_names=["b", "a"], batch_size=7
    )
    order = np.random.default_rng(0).permutation(60)
    found = np.concatenate(list(evaluation.scores(fp32, order)))
    assert found == pytest.approx(np.abs(b - a).max(axis=1)[order], abs=1e-5)
    assert evaluation.output_names == ("b", "a")


def test_corpus_metric_of_several_outputs() -> None:
    backend = OnnxRuntimeBackend(two_headed(), calibration_data=X)
    fp32 = backend.quantize(backend.tuning_space().fp32())
    a, b = fp32.run({"x": X}, ["a", "b"])

    def score(outputs: Any, labels: np.ndarray) -> float:
        assert outputs[0] == pytest.approx(b, abs=1e-5)
        assert outputs[1] == pytest.approx(a, abs=1e-5)
        return 0.5

    metric = optuna_quant.CorpusMetric(name="both", score=score)
    data = {"x": X, "y": np.zeros(60)}
    assert DataEvaluation(data, metric, output_names=["b", "a"], batch_size=7)(fp32) == 0.5


def test_named_metrics_are_of_one_output() -> None:
    with pytest.raises(ValueError, match="'accuracy' scores one output, but output_names has 2"):
        DataEvaluation({"x": X, "y": X}, "accuracy", output_names=["a", "b"])


def test_sensitivity_looks_at_the_scored_outputs() -> None:
    backend = OnnxRuntimeBackend(two_headed(), calibration_data=X)
    default = backend.tuning_space().default()
    ops = ["shared", "head_a", "head_b"]
    of_a = backend.output_sensitivity(outputs=["a"])(default, ops)
    assert of_a["head_b"] == 0.0 < min(of_a["shared"], of_a["head_a"])
    of_b = backend.output_sensitivity(outputs=["b"])(default, ops)
    assert of_b["shared"] == of_b["head_a"] == 0.0 < of_b["head_b"]
    keys = {backend.output_sensitivity(outputs=o).key for o in (None, ["a"], ["b"])}
    assert len(keys) == 3  # What a study keeps of one is not taken for another.


@pytest.mark.parametrize("strategy", ["mse_v2", "hawq_v2"])
def test_strategies_are_told_the_scored_outputs(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    method = {"mse_v2": "output_sensitivity", "hawq_v2": "hessian_sensitivity"}[strategy]

    def sensitivity(self: Any, **options: Any) -> Any:
        asked.append(options["outputs"])
        return lambda config, ops: dict.fromkeys(ops, 0.0)

    monkeypatch.setattr(OnnxRuntimeBackend, method, sensitivity)
    tuned(
        data={"x": X, "y": labels_of("b")},
        output_names="b",
        tuning_criterion=TuningCriterion(strategy=strategy, max_trials=2, objective="ops"),
    )
    assert set(asked) == {("b",)}  # Once for each space.


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (3, TypeError, "the name of an output or a list of names, but got 3"),
        ([1], TypeError, "a list of names"),
        ([], ValueError, "at least one output"),
        (["a", "b", "a"], ValueError, "names 'a' twice"),
    ],
)
def test_what_are_no_names(names: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_output_names(names)


def test_choice() -> None:
    assert choose_outputs(None, ["a", "b"]) == ("a",)
    assert choose_outputs(("b", "a"), ["a", "b"]) == ("b", "a")
    with pytest.raises(
        ValueError, match="no output 'Logit'; did you mean 'logits'.*are: logits, boxes"
    ):
        choose_outputs(("Logit",), ["logits", "boxes"])
    with pytest.raises(ValueError, match="no output 'x'; its outputs are: logits, boxes"):
        choose_outputs(("x",), ["logits", "boxes"])


def test_wrong_name_is_found_before_anything_is_run() -> None:
    with pytest.raises(ValueError, match=r"no output 'A'; did you mean 'a'\?"):
        tuned(data={"x": X, "y": labels_of("a")}, output_names="A")
    with pytest.raises(ValueError, match="output_names='a' is for data"):
        tuned(evaluate=lambda session: 1.0, output_names="a")
