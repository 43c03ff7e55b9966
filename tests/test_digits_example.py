"""What the page of the digits example says of its model holds for the files beside it."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningSpace
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits"
ONE_PERCENT = AccuracyCriterion(criterion="relative", tolerable_loss=0.01)
POINTWISE = [f"block{number}/pointwise" for number in range(1, 7)]
ENOUGH = ("block1/pointwise", "block3/pointwise", "block4/pointwise")


class Measured:
    """Builds models of the example and measures their accuracy on all samples."""

    def __init__(self) -> None:
        # On processors without VNNI products must not saturate, or the figures would be others.
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.intra_op_num_threads = 1
        self.backend = OnnxRuntimeBackend(
            DIGITS / "model.onnx", calibration_data=DIGITS / "calib.npz", session_options=options
        )
        self.space: TuningSpace = self.backend.tuning_space()
        with np.load(DIGITS / "eval.npz") as data:
            self.x, self.y = data["x"], data["y"]
        session = onnxruntime.InferenceSession(DIGITS / "model.onnx", options)
        (logits,) = session.run(["logits"], {"x": self.x})
        self.fp32 = self.share(logits)

    def share(self, logits: np.ndarray) -> float:
        return float((logits.argmax(axis=1) == self.y).mean())

    def accuracy(self, *fallback: str) -> float:
        """The accuracy with these ops in FP32 and all others in INT8."""
        model = self.backend.quantize(self.space.default().with_fallback(*fallback))
        (logits,) = model.run({"x": self.x}, ["logits"])
        return self.share(logits)


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured()


def test_fp32_model_is_a_good_one(measured: Measured) -> None:
    assert measured.fp32 == pytest.approx(0.9911, abs=0.002)


def test_plain_int8_misses_the_criterion(measured: Measured) -> None:
    accuracy = measured.accuracy()
    assert accuracy == pytest.approx(0.8765, abs=0.02)
    assert not ONE_PERCENT.meets(accuracy, measured.fp32)


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_one_or_two_ops_in_fp32_do_not_cure_it(measured: Measured, count: int) -> None:
    for ops in combinations(POINTWISE, count):
        assert not ONE_PERCENT.meets(measured.accuracy(*ops), measured.fp32), ops


def test_three_ops_in_fp32_do(measured: Measured) -> None:
    accuracy = measured.accuracy(*ENOUGH)
    assert ONE_PERCENT.meets(accuracy, measured.fp32)
    # By several samples, so that another processor's rounding does not change it.
    assert (accuracy - ONE_PERCENT.threshold(measured.fp32)) * len(measured.y) > 4


def test_all_other_ops_run_in_integer_kernels(measured: Measured) -> None:
    config = measured.space.default().with_fallback(*ENOUGH)
    executed = measured.backend.executed(config)
    assert {op for op, done in executed.items() if not done.integer} == set(ENOUGH)


def test_nothing_was_rescaled_between_the_layers(measured: Measured) -> None:
    # The wide columns of the 1x1 weights multiply channels that are zero for every image.
    model = onnx.load(DIGITS / "model.onnx")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    inputs = [nodes[op].input[0] for op in ENOUGH]
    for name in inputs:
        model.graph.output.add().name = name
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for op, activation in zip(ENOUGH, session.run(inputs, {"x": measured.x}), strict=True):
        columns = np.abs(weights[nodes[op].input[1]]).max(axis=(0, 2, 3))
        wide = columns > 100 * np.median(columns)
        assert wide.any()
        assert not activation[:, wide].any()


@pytest.mark.parametrize(
    ("file", "most"), [("model.onnx", 1_500_000), ("eval.npz", 100_000), ("calib.npz", 100_000)]
)
def test_files_are_small(file: str, most: int) -> None:
    assert (DIGITS / file).stat().st_size <= most


def test_training_and_model_have_the_same_form() -> None:
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    sys.path.insert(0, str(DIGITS))
    try:
        from train import DigitsNet
        from train import fold_batch_norm
        from train import load_split
    finally:
        sys.path.remove(str(DIGITS))
    model = onnx.load(DIGITS / "model.onnx")
    shapes = sorted(tuple(t.dims) for t in model.graph.initializer if t.data_type == 1)
    network = fold_batch_norm(DigitsNet().eval())
    assert shapes == sorted(tuple(p.shape) for p in network.parameters())
    *_, eval_x, eval_y = load_split()
    with np.load(DIGITS / "eval.npz") as data:
        assert (data["x"] == eval_x).all()
        assert (data["y"] == eval_y).all()
