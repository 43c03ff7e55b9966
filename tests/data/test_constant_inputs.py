"""Inputs that are given once: a sampling rate, a flag, a state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import run
from onnx_models import samples
import pytest

import optuna_quant
from optuna_quant import AccuracyCriterion
from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.cli import exit_codes
from optuna_quant.cli import parser
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.data.constant_inputs import parse_inputs
from optuna_quant.data.inputs import InputSpec
from optuna_quant.evaluation.labelled import DataEvaluation


INT64 = onnx.TensorProto.INT64
X = samples(40, 5, 8)
STATE = samples(2, 6, seed=4)


def recurrent(*, batch: int | str = "N", state: Any = None) -> onnx.ModelProto:
    """A sum over time that begins with a state of (2, batch, 6) and is divided by a scalar."""
    m = Maker(seed=3)
    x = m.input("x", [batch, "time", 8])
    m.input("state", [2, batch, 6] if state is None else state)
    m.input("sr", [], INT64)
    h = m.node("MatMul", [x, m.weight(8, 6)], name="dense")
    h = m.node("ReduceSum", [h, m.const(np.array([1]))], keepdims=0)
    s = m.node("ReduceSum", ["state", m.const(np.array([0]))], keepdims=0)
    h = m.node("Add", [h, s])
    h = m.node("Div", [h, m.node("Cast", ["sr"], to=onnx.TensorProto.FLOAT)])
    m.node("MatMul", [h, m.weight(6, 3)], name="head", outputs=["y"])
    return m.model(["y"])


def expected() -> np.ndarray:
    """What the model gives, from a run of each sample."""
    one = STATE[:, None]
    feeds = [{"x": x[None], "state": one, "sr": np.array(16000)} for x in X]
    return np.concatenate([run(recurrent(), feed)[0] for feed in feeds])


GIVEN = {"state": STATE, "sr": 16000}
TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=1.0)


@pytest.mark.parametrize("batch", ["N", 1, 8])
@pytest.mark.parametrize("threads", [1, 2])
def test_samples_get_the_constants_in_any_batch(batch: int | str, threads: int) -> None:
    data = {"x": X, "y": expected().argmax(axis=1)}
    state = STATE if isinstance(batch, str) else np.repeat(STATE[:, None], batch, axis=1)
    backend = OnnxRuntimeBackend(
        recurrent(batch=batch), calibration_data=X, inputs={"state": state, "sr": 16000}
    )
    fp32 = backend.quantize(backend.tuning_space().fp32())
    evaluation = DataEvaluation(
        data, inputs={"state": state, "sr": 16000}, batch_size=7, threads=threads
    )
    assert evaluation(fp32) == 1.0
    wrong = DataEvaluation(data, inputs={"state": -20 * state, "sr": 16000}, batch_size=7)
    assert wrong(fp32) < 0.9  # It is the state that makes the difference.


@pytest.mark.parametrize(
    ("strategy", "objective"),
    [("basic", "fallback_ops"), ("mse", "ops"), ("mse_v2", "fallback_ops"), ("hawq_v2", "ops")],
)
def test_a_whole_search(strategy: str, objective: str) -> None:
    data = {"x": X, "y": expected().argmax(axis=1)}
    result = optuna_quant.tune(
        recurrent(),
        calibration_data={"x": X[:16]},
        data={name: array[:30] for name, array in data.items()},
        holdout={name: array[30:] for name, array in data.items()},
        inputs=GIVEN,
        accuracy_criterion=TOLERANT,
        calibration_sizes=[10, 16],
        tuning_criterion=optuna_quant.TuningCriterion(
            strategy=strategy, max_trials=4, objective=objective
        ),
    )
    assert result.baseline == 1.0
    assert result.met
    assert result.holdout is not None
    assert result.holdout.baseline == 1.0


def test_calibration_sees_the_constants() -> None:
    backend = OnnxRuntimeBackend(recurrent(), calibration_data={"x": X}, inputs=GIVEN)
    other = OnnxRuntimeBackend(
        recurrent(), calibration_data={"x": X}, inputs={**GIVEN, "sr": 8000}
    )
    space = backend.tuning_space()
    same = OnnxRuntimeBackend(recurrent(), calibration_data=[{"x": X}], inputs=GIVEN)
    default = space.default()
    assert backend.fingerprint(default) == same.fingerprint(default)
    # The activations of the last layer are twice as large.
    assert backend.fingerprint(default) != other.fingerprint(default)
    assert backend.signature()["calibration data"] != other.signature()["calibration data"]


def test_a_hash_does_not_depend_on_how_the_data_are_cut() -> None:
    specs = input_specs(recurrent())
    constants = ConstantInputs(GIVEN).bind(specs)
    whole = CalibrationData({"x": X}, specs, constants=constants, batch_size=40)
    sizes = [10, 25]
    assert whole.fingerprints([25])[25] == whole.fingerprints(sizes)[25]
    feeds = [piece.feed for piece in whole.pieces(sizes)]
    assert [feed["state"].shape for feed in feeds] == [(2, 10, 6), (2, 15, 6)]
    assert [feed["sr"].shape for feed in feeds] == [(), ()]


def test_a_constant_in_the_data_is_not_looked_at() -> None:
    data = {"x": X, "sr": np.zeros(40), "y": expected().argmax(axis=1)}
    backend = OnnxRuntimeBackend(recurrent(), calibration_data=data, inputs=GIVEN)
    fp32 = backend.quantize(backend.tuning_space().fp32())
    assert DataEvaluation(data, inputs=GIVEN)(fp32) == 1.0


def test_missing_inputs_are_told_with_the_cure() -> None:
    message = r"Input 'state' is missing.*inputs=\{'state': \.\.\.\} \(--input state=VALUE\)"
    for data in ({"x": X}, [{"x": X}]):
        with pytest.raises(ValueError, match=message):
            OnnxRuntimeBackend(recurrent(), calibration_data=data)
    backend = OnnxRuntimeBackend(recurrent(), calibration_data={"x": X}, inputs=GIVEN)
    fp32 = backend.quantize(backend.tuning_space().fp32())
    for labelled in ({"x": X, "y": X}, [({"x": X[0]}, 1)]):
        with pytest.raises(ValueError, match=message):
            DataEvaluation(labelled).check(fp32)


def test_a_state_of_one_sample_tells_of_the_batch_size() -> None:
    """Where the axis of the samples has no name, the state is for one sample."""
    model = recurrent(state=[2, "state_batch", 6])
    m = model.graph.node
    add = next(node for node in m if node.op_type == "Add")
    add.op_type = "Concat"
    add.attribute.append(onnx.helper.make_attribute("axis", 1))
    state = np.zeros((2, 1, 6), np.float32)
    del m[-1]
    model.graph.output[0].name = next(n.output[0] for n in m if n.op_type == "Div")
    backend = OnnxRuntimeBackend(
        model, calibration_data=[{"x": x[None]} for x in X], inputs={"state": state, "sr": 1}
    )
    fp32 = backend.quantize(backend.tuning_space().fp32())
    data = {"x": X, "y": np.zeros(40, int)}
    evaluation = DataEvaluation(data, inputs={"state": state, "sr": 1}, batch_size=4)
    with pytest.raises(RuntimeError, match=r"fails on 4 samples at once.*state.*try batch_size=1"):
        evaluation(fp32)
    assert DataEvaluation(data, inputs={"state": state, "sr": 1}, batch_size=1)(fp32) >= 0


# Values.


X_SPEC = InputSpec("x", np.dtype(np.float32), ("N", 3))


def bound(shape: Any, value: Any, dtype: Any = np.float32, samples: int = 3) -> np.ndarray:
    spec = InputSpec("c", np.dtype(dtype), shape)
    return ConstantInputs({"c": value}).bind([X_SPEC, spec]).feed(samples)["c"]


@pytest.mark.parametrize(
    ("shape", "value", "expected_value"),
    [
        ((), 2, np.float32(2)),
        ((1,), 2, [2]),
        (None, 2, np.float32(2)),
        (None, [[1, 2]], [[1, 2]]),
        ((2, 2), 1, [[1, 1], [1, 1]]),
        (("N", 2), 1, [[1, 1]] * 3),
        (("N", 2), [4, 5], [[4, 5]] * 3),
        (("N", 2), [[4, 5]], [[4, 5]] * 3),
        ((2, "N"), [4, 5], [[4] * 3, [5] * 3]),
        ((2, "N"), [[4], [5]], [[4] * 3, [5] * 3]),
        (("M", 2), [[4, 5]], [[4, 5]]),
        ((None, 2), [[4, 5], [6, 7]], [[4, 5], [6, 7]]),
    ],
)
def test_shapes_with_an_axis_that_has_a_name(shape: Any, value: Any, expected_value: Any) -> None:
    found = bound(shape, value)
    assert found.dtype == np.float32
    assert found.shape == np.shape(expected_value)
    assert found.tolist() == np.asarray(expected_value).tolist()


def test_the_only_axis_without_a_size_is_that_of_the_samples() -> None:
    x = InputSpec("x", np.dtype(np.float32), (None, 3))
    for shape, value, feed in (
        ((2, None), 0, [[0, 0], [0, 0]]),
        ((2, None), [[1], [2]], [[1, 1], [2, 2]]),
        ((2, None), [1, 2], [[1, 1], [2, 2]]),
        ((None, None), [[1, 2]], [[1, 2]]),  # Which of them it is cannot be told.
    ):
        constants = ConstantInputs({"c": value})
        bound_values = constants.bind([x, InputSpec("c", np.dtype(np.float32), shape)])
        assert bound_values.feed(2)["c"].tolist() == feed
    with pytest.raises(ValueError, match="axis 0 has no size"):
        ConstantInputs({"c": 0}).bind([x, InputSpec("c", np.dtype(np.float32), (None, None))])


@pytest.mark.parametrize(
    ("dtype", "value", "expected_value"),
    [
        (np.int64, 16000.0, 16000),
        (np.float16, 1, 1.0),
        (np.float32, 0.1, float(np.float32(0.1))),
        (np.float32, float("-inf"), float("-inf")),
        (bool, 1, True),
        (np.uint8, True, 1),
        (object, "de", "de"),
    ],
)
def test_types(dtype: Any, value: Any, expected_value: Any) -> None:
    found = bound((), value, dtype)
    assert found.dtype == dtype
    assert found.item() == expected_value


@pytest.mark.parametrize(
    ("shape", "value", "dtype", "message"),
    [
        (
            (2,),
            [1, 2, 3],
            np.float32,
            r"'c' has the shape \(3,\), but .* expects float32 of shape",
        ),
        ((), [1], np.float32, r"'c' has the shape \(1,\)"),
        (("M", 2), 0, np.float32, "axis 0 has no size.*give an array"),
        (("N", 2), [[1, 2], [3, 4]], np.float32, "axis 0, along which .* must have the size 1"),
        ((), 1.5, np.int64, "int64 in the model, so 1.5 does not fit"),
        ((), 300, np.uint8, "uint8 in the model, so 300 does not fit"),
        ((), 1e60, np.float32, "so 1e\\+60 does not fit"),
        ((), 2, bool, "so 2 does not fit"),
        ((), "zeros", np.float32, "must be float32, but got 'zeros'. A number fills"),
        ((), 3, object, "'c' must be of strings, but got int64"),
    ],
)
def test_values_that_do_not_fit(shape: Any, value: Any, dtype: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound(shape, value, dtype)


def test_names_are_checked() -> None:
    sr = InputSpec("sr", np.dtype(np.int64), ())
    with pytest.raises(
        ValueError, match="no input 'srr'; did you mean 'sr'.*its inputs are: x, sr"
    ):
        ConstantInputs({"srr": 1}).bind([X_SPEC, sr])
    with pytest.raises(ValueError, match=r"all of the model's inputs \(x, sr\) are constant"):
        ConstantInputs({"sr": 1, "x": 0}).bind([X_SPEC, sr])
    with pytest.raises(TypeError, match="inputs must be a dict"):
        ConstantInputs([("sr", 1)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'sr' is not an array"):
        ConstantInputs({"sr": [[1], [1, 2]]})


def test_what_is_given_is_copied() -> None:
    state = np.zeros(3, np.float32)
    constants = ConstantInputs({"c": state})
    state += 1
    bound_values = constants.bind([X_SPEC, InputSpec("c", np.dtype(np.float32), (3,))])
    assert bound_values.feed(1)["c"].tolist() == [0, 0, 0]


def test_an_input_with_a_default_value() -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    m.input("gain", [1])
    gain = m.const(np.ones(1, np.float32), name="gain")
    h = m.node("Mul", [m.node("MatMul", [x, m.weight(8, 4)], name="dense"), gain])
    m.node("Sub", [h, m.node("ReduceMax", [x], keepdims=1)], outputs=["y"])
    model = m.model(["y"])
    data = {"x": X[:, 0], "y": np.zeros(40)}
    gains = [
        optuna_quant.SampleMetric(name="sum", score=lambda output, labels: output.sum(axis=1))
    ]
    backend = OnnxRuntimeBackend(model, calibration_data=X[:, 0], inputs={"gain": 3})
    fp32 = backend.quantize(backend.tuning_space().fp32())
    for gain_value in (1.0, 3.0):
        (y,) = run(model, {"x": X[:, 0], "gain": np.array([gain_value], np.float32)})
        inputs = None if gain_value == 1.0 else {"gain": gain_value}
        found = DataEvaluation(data, gains[0], inputs=inputs)(fp32)
        assert found == pytest.approx(y.sum(axis=1).mean(), rel=1e-4)


# On the command line.


def test_values_of_the_command_line(tmp_path: Path) -> None:
    np.save(tmp_path / "state.npy", STATE)
    found = parse_inputs(
        ["sr=16000", "flag=true", "list=[1, 2.5]", "lang=de", "quoted=\"7\"", "a=b=c",
         f"state=@{tmp_path / 'state.npy'}"]
    )  # fmt: skip
    assert found.pop("state").tolist() == STATE.tolist()
    assert found == {
        "sr": 16000, "flag": True, "list": [1, 2.5], "lang": "de", "quoted": "7", "a": "b=c"
    }  # fmt: skip
    assert parse_inputs(None) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sr"], "--input must be NAME=VALUE"),
        (["=3"], "--input must be NAME=VALUE"),
        (["sr=1", "sr=2"], "gives 'sr' twice"),
        (["sr=@no.npy"], "--input sr: there is no file 'no.npy'"),
        (['sr={"a": 1}'], "--input sr: VALUE must be"),
    ],
)
def test_values_that_are_none(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_inputs(texts)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(recurrent(), model)
    np.savez(tmp_path / "calib.npz", x=X)
    np.savez(tmp_path / "eval.npz", x=X, labels=expected().argmax(axis=1))
    np.save(tmp_path / "state.npy", STATE)
    command = ["tune", str(model), "--calibration", str(tmp_path / "calib.npz"),
               "--data", str(tmp_path / "eval.npz"), "--output", str(tmp_path / "out.onnx"),
               "--criterion", "absolute", "--tolerable-loss", "1", "--quiet",
               "--objective", "ops"]  # fmt: skip
    assert parser.main(command) == parser.BAD_INPUT
    assert "--input state=VALUE" in capsys.readouterr().err
    command += ["--input", "sr=16000", "--input", f"state=@{tmp_path / 'state.npy'}"]
    assert parser.main(command) == exit_codes.MET
    assert "FP32 1" in capsys.readouterr().out


def test_output_is_not_written_over_an_input(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(recurrent(), model)
    np.savez(tmp_path / "data.npz", x=X, labels=X)
    np.save(tmp_path / "state.npy", STATE)
    data, state = str(tmp_path / "data.npz"), str(tmp_path / "state.npy")
    command = ["tune", str(model), "--calibration", data, "--data", data, "--output", state,
               "--input", "sr=16000", "--input", f"state=@{state}"]  # fmt: skip
    assert parser.main(command) == parser.BAD_INPUT
    assert np.load(state).shape == STATE.shape


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_space_needs_no_data_and_runs_nothing(
    approach: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = Maker()
    x = m.input("x", ["N", "channels", 8])
    m.inputs.append(
        onnx.helper.make_tensor_sequence_value_info("parts", onnx.TensorProto.FLOAT, None)
    )
    m.input("text", ["N"], onnx.TensorProto.STRING)
    m.input("scale", [1], onnx.TensorProto.BFLOAT16)
    index = m.const(np.array(1000))
    part = m.node("SequenceAt", ["parts", index])  # Fails when it is run.
    h = m.node("Add", [m.node("MatMul", [x, m.weight(8, 8)], name="dense"), part])
    m.node("Mul", [h, m.node("Cast", ["scale"], to=onnx.TensorProto.FLOAT)], outputs=["y"])
    m.node("Identity", ["text"], outputs=["same"])
    path = tmp_path / "model.onnx"
    onnx.save(m.model({"y": onnx.TensorProto.FLOAT, "same": onnx.TensorProto.STRING}), path)
    assert parser.main(["space", str(path), "--approach", approach]) == exit_codes.MET
    assert "dense" in capsys.readouterr().out


def test_a_backend_to_inspect_has_no_statistics() -> None:
    backend = OnnxRuntimeBackend(recurrent(), inspect_only=True)
    space = backend.tuning_space()
    assert {op for tunable in space.tunables for op in tunable.ops} == {"dense", "head"}
    with pytest.raises(ValueError, match="needs calibration_data"):
        backend.quantize(space.default())
