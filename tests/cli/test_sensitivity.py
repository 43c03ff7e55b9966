"""The command that scores ops, and searches with its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from optuna_quant.cli.parser import main


COMMON = ["model.onnx", "--calibration", "few.npz", "--threads", "1"]


def test_writes_a_file_that_other_commands_take(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("few.npz", x=np.load("calib.npz")["x"][:16])
    assert main(["sensitivity", *COMMON, "--kind", "op_error"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["op", "op_type", "score", "part", "least", "option"]
    assert lines[1].startswith("block1/pointwise  Conv ")
    assert lines[-1] == "written: model.sensitivities.json"
    assert len(lines) == 1 + 14 + 1
    assert err == ""
    assert main(["sensitivity", *COMMON, "--kind", "op_error", "-f", "json"]) == 0
    out, err = capsys.readouterr()
    assert len({row["op"] for row in json.loads(out)}) == 14
    assert err == "optuna-quant: written: model.sensitivities.json\n"
    path = digits / "model.sensitivities.json"
    stored = json.loads(path.read_text())
    for row in stored["scores"]:
        row["enabled"] = row["op"] not in ("block1/pointwise", "stem")
    path.write_text(json.dumps(stored))
    given = ["--sensitivities", path.name, "-o", "out.onnx"]
    assert main(["quantize", *COMMON, *given]) == 0
    assert "in fallback: stem, block1/pointwise" in capsys.readouterr().out
    before = {each.name: each.read_bytes() for each in digits.iterdir()}
    for arguments, message in (
        (["sensitivity", *COMMON], "was edited: 16 rows of it are disabled"),
        (["sensitivity", *COMMON, "-o", "few.npz"], "is the calibration file itself"),
        (
            ["sensitivity", *COMMON, "--sensitivities", path.name],
            "there is no option --sensitivities (tune, quantize have it)",
        ),
        (["quantize", *COMMON, *given[:2], "-o", path.name], "is the file of --sensitivities its"),
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert len(err.splitlines()) == 1
    assert {each.name: each.read_bytes() for each in digits.iterdir()} == before
