"""How a search was started is written down as code; secrets and objects are not."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np

from optuna_quant.tuning.call import python_call
from optuna_quant.tuning.call import shell_command


def test_a_call_is_code_that_says_what_was_left_out() -> None:
    code = python_call(
        {
            "model": Path("models/a b.onnx"),
            "data": {"x": np.zeros((3, 2))},
            "evaluate": len,
            "timeout": None,
            "op_type_dict": {"Conv": {"weight": {"bits": [8, 4]}}},
        }
    )
    assert code.splitlines() == [
        "optuna_quant.tune(",
        "    model='models/a b.onnx',",
        "    data=...,  # dict",
        "    evaluate=...,  # len",
        "    timeout=None,",
        "    op_type_dict={'Conv': {'weight': {'bits': [8, 4]}}},",
        ")",
    ]
    ast.parse(code)


def test_long_values_are_left_out() -> None:
    assert "data=...,  # list" in python_call({"data": list(range(1000))})


def test_secrets_are_hidden() -> None:
    address = "postgresql://user:s3cret@host/db"
    assert "s3cret" not in python_call({"storage": address})
    assert "user:***@host" in python_call({"storage": address})
    assert "s3cret" not in shell_command(["optuna-quant", "tune", "--storage", address])
    assert "s3cret" not in shell_command(["optuna-quant", "tune", f"--storage={address}"])


def test_a_command_can_be_pasted() -> None:
    assert shell_command(["optuna-quant", "tune", "a b.onnx"]) == "optuna-quant tune 'a b.onnx'"
