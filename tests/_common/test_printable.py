"""Names from models are shown so that they can do nothing to a terminal."""

from __future__ import annotations

from pathlib import Path
import re

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import onnx
import onnx_models
import pytest

from optuna_quant._common.printable import printable
from optuna_quant.cli.parser import main


OPS = ["--objective", "ops"]


NAMES = [
    "plain",
    "畳み込み ü",
    "\x1b[31mred",
    "met\nA quantized model",
    "a\rb",
    "\x9b1m",
    "\u202etac",
]


@given(st.text())
def test_what_is_shown_is_one_line_of_signs(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


def test_names_of_ops_are_shown_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    m = onnx_models.Maker()
    x = m.input("x", ["N", 6])
    for name in NAMES:
        x = m.node("Tanh", [m.node("Gemm", [x, m.weight(6, 6)], name=name)])
    model = m.model([x])
    onnx.save(model, "net.onnx")
    samples = onnx_models.samples(40, 6)
    (scores,) = onnx_models.run(model, {"x": samples})
    np.savez("calib.npz", x=samples)
    np.savez("data.npz", x=samples, labels=scores)
    shown = ""
    for command in (
        ["space", "net.onnx"],
        # Nothing is good enough, so that every op is tried and the summary lists those in FP32.
        ["tune", "net.onnx", *OPS, "--calibration", "calib.npz", "--data", "data.npz",
         "--metric", "mse", "--criterion", "absolute", "--tolerable-loss", "1e-9",
         "--strategy", "conservative"],
        ["tune", "net.onnx", *OPS, "--calibration", "calib.npz", "--data", "data.npz",
         "--metric", "mse", "--op-name-dict", '{"\\u001b[": {"weight": {"dtype": ["int3"]}}}'],
    ):  # fmt: skip
        main(command)
        captured = capsys.readouterr()
        shown += captured.out + captured.err
    assert all(line.isprintable() for line in re.split("\n", shown))
    for name in NAMES:
        assert printable(name) in shown
