"""Models in the place of a module, whichever backend made them, bear what evaluations ask."""

from __future__ import annotations

from typing import Any

import pytest


torch = pytest.importorskip("torch")

import torch_modules  # noqa: E402

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from optuna_quant.backends.onnxruntime import export_module  # noqa: E402
from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


@pytest.fixture(scope="module", params=["PyTorch", "ONNX Runtime"])
def called(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A model, and what it takes."""
    x = torch_modules.samples(4, 2, 8, 8)
    module = torch_modules.convnet()
    if request.param == "PyTorch":
        return TorchBackend(module, x[:2], approach="dynamic").simulated(
            QuantConfig({})
        ).native(), x
    backend = OnnxRuntimeBackend(export_module(module, x[:2]), approach="dynamic")
    return backend.quantize(QuantConfig({})).native(), x


def test_it_is_asked_for_its_device_and_its_size(called: tuple[Any, Any]) -> None:
    model, x = called
    (parameter,) = model.parameters()
    assert parameter.device.type == "cpu"
    assert parameter.dtype == torch.float32
    assert not parameter.requires_grad
    assert sum(each.numel() for each in model.parameters()) == 0
    expected = model(x)
    for moved in (model.to("cpu"), model.to(x.device), model.float(), model.eval(), model.cpu()):
        assert moved is model
        assert torch.equal(moved(x), expected)


def test_it_takes_no_other_floats(called: tuple[Any, Any]) -> None:
    model, _ = called
    for cast, name in ((model.half, "float16"), (model.double, "float64")):
        with pytest.raises(TypeError, match=f"cannot be made one of {name}: "):
            cast()
