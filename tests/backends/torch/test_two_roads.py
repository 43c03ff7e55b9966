"""A study of a module for ONNX Runtime and one of it for PyTorch do not mix."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch
import torch_modules

import optuna_quant
from optuna_quant.backends.torch import TorchBackend


def score(model: torch.nn.Module) -> float:
    x = torch_modules.samples(40, 2, 8, 8)
    return float(1 + model(x).argmax(1).float().mean())


@pytest.mark.parametrize("first", ["onnx", "torch"])
def test_the_other_road_is_refused_and_named(first: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    net, x = torch_modules.convnet(), torch_modules.samples(40, 2, 8, 8)
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def tune(road: str) -> optuna_quant.TuningResult:
        options = {
            "onnx": {"model": net, "example_inputs": x[:2], "calibration_data": x.numpy()},
            "torch": {"backend": TorchBackend(net, x[:2], calibration_data=x.numpy())},
        }[road]
        return optuna_quant.tune(
            **options,
            evaluate=score,
            tolerable_loss=0.5,
            objective="size",
            strategy="basic",
            max_trials=2,
            storage=storage,
            study_name="net",
            show_progress=False,
        )

    tune(first)
    trials = len(optuna.load_study(study_name="net", storage=storage).trials)
    named = {
        "onnx": "another model, not for 'PyTorch' as those of the backend here, so",
        "torch": "another model, for 'PyTorch', and the backend here makes other ones, so",
    }[first]
    with pytest.raises(ValueError, match=f"was started with {named}"):
        tune("torch" if first == "onnx" else "onnx")
    assert len(optuna.load_study(study_name="net", storage=storage).trials) == trials
