"""What the command and the report of a search say of ops that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import samples
import pytest

import optuna_quant
from optuna_quant.cli.parser import main


def speech() -> onnx.ModelProto:
    """A linear layer before an LSTM whose weights are most of the model; input of (N, 8)."""
    m = Maker()
    h = m.node("MatMul", [m.input("x", ["N", 8]), m.weight(8, 8)], name="layer")
    steps = m.node("Unsqueeze", [h, m.const(np.array([0]))])
    weights = [m.weight(1, 4 * 16, 8), m.weight(1, 4 * 16, 16)]
    m.node("LSTM", [steps, *weights], outputs=["all"], name="lstm", hidden_size=16)
    y = m.node("Squeeze", ["all", m.const(np.array([0, 1]))])
    return m.model([y])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    monkeypatch.chdir(tmp_path)
    onnx.save(speech(), "speech.onnx")
    return speech()


def test_space_says_why_an_op_is_left_out(
    model: onnx.ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["space", "speech.onnx", "--approach", "static", "--why"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["op", "op_type", "weights", "reason", "remedy"]
    assert line.split()[:4] == ["lstm", "LSTM", "6.14", "kB"]
    assert "only dynamic quantization takes it" in line
    assert line.endswith("takes it  --approach auto")
    assert main(["space", "speech.onnx", "--approach", "static", "--why", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["weight_bytes"] == 4 * 4 * 16 * (8 + 16)
    assert row["op"] == "lstm"
    assert main(["space", "speech.onnx", "--approach", "static", "--why", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("op,op_type,weight_bytes,reason,remedy\nlstm,LSTM,")
    assert main(["space", "speech.onnx", "--approach", "auto", "--why"]) == 0
    assert capsys.readouterr().out == "No op that could be quantized is left out.\n"


def test_space_says_why_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    m = Maker()
    x = m.input("x", ["N", 8])
    onnx.save(m.model([m.node("Gemm", [x, m.node("Transpose", [x])])]), tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    assert main(["space", "m.onnx"]) == 2
    assert "Gemm 'Gemm0' is left out: its weight is computed from" in capsys.readouterr().err
    assert main(["space", "m.onnx", "--why"]) == 0
    shown = capsys.readouterr()
    assert "no op that is worth quantizing" in shown.err
    assert "its weight is computed from the input 'x'" in shown.out


def test_space_tells_of_large_weights_that_it_leaves_out(
    model: onnx.ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    size = Path("speech.onnx").stat().st_size
    assert main(["space", "speech.onnx", "--approach", "static"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"6.14 kB of {size / 1000:.3g} kB are weights of other ops, which stay in floats (--why)."
    )
    assert main(["space", "speech.onnx", "--approach", "auto"]) == 0
    assert "stay in floats" not in capsys.readouterr().out


def test_summary_tells_of_large_weights_that_stay_in_floats(model: onnx.ModelProto) -> None:
    def tuned(approach: str) -> str:
        return optuna_quant.tune(
            model,
            calibration_data=samples(16, 8),
            evaluate=lambda session: float(np.mean(session.run(None, {"x": samples(16, 8)})[0])),
            accuracy_criterion=optuna_quant.AccuracyCriterion(
                criterion="absolute", tolerable_loss=10.0
            ),
            approach=approach,
            tuning_criterion=optuna_quant.TuningCriterion(objective="ops"),
        ).summary()

    size = model.ByteSize()
    assert (
        f"weights: 6.14 kB of {size / 1000:.3g} kB stay in floats: LSTM 'lstm' 6.14 kB (only "
        'dynamic quantization takes it: approach="auto" or --approach auto)\n'
    ) in tuned("static")
    assert "weights:" not in tuned("auto")
