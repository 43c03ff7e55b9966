"""Arrays of NumPy, which has no bfloat16, and tensors as a program takes them."""

from __future__ import annotations

from typing import Any
import warnings

import numpy as np
import pytest


torch = pytest.importorskip("torch")
nn = torch.nn

import torch_modules  # noqa: E402

from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


class GivesHalf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(x.float()).bfloat16()


def test_outputs_of_bfloat16_are_arrays_of_float32() -> None:
    x = torch_modules.samples(4, 3)
    module = GivesHalf()
    backend = TorchBackend(module, x, approach="dynamic")
    for model in (backend.simulated(QuantConfig({})), backend.quantize(QuantConfig({}))):
        (found,) = model.run({"x": x.numpy()})
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, module(x).detach().float().numpy())
        assert model.native()(x).dtype == torch.bfloat16


def test_an_input_of_bfloat16_is_refused_with_the_cure() -> None:
    x = torch_modules.samples(4, 3).bfloat16()
    with pytest.raises(ValueError, match=r"'x' is of bfloat16.*\.to\(torch\.float32\)"):
        TorchBackend(GivesHalf(), x, approach="dynamic")


def test_arrays_that_may_not_be_written_bring_no_warning() -> None:
    x = torch_modules.samples(4, 3)
    backend = TorchBackend(nn.Linear(3, 3), x, approach="dynamic")
    array = x.numpy().copy()
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (backend.simulated(QuantConfig({})), backend.quantize(QuantConfig({}))):
            model.run({"input": array})


def test_integers_that_do_not_fit_are_refused() -> None:
    table = nn.Embedding(5, 3)
    model = (
        TorchBackend(table, torch.arange(4, dtype=torch.int32), approach="dynamic")
        .simulated(QuantConfig({}))
        .native()
    )
    given = torch.tensor([1, 2, 3, 4])
    assert torch.equal(model(given), table(given))
    with pytest.raises(ValueError, match=r"'input' must be of int32, but has values that do not"):
        model(torch.tensor([1, 2, 3, 2**32 + 1]))


def test_a_module_around_a_program_has_a_state_dict() -> None:
    x = torch_modules.samples(4, 3)
    model = (
        TorchBackend(nn.Linear(3, 3), x, approach="dynamic").simulated(QuantConfig({})).native()
    )
    around = nn.Sequential(model, nn.Linear(3, 2))
    assert set(around.state_dict()) == {"1.weight", "1.bias"}
    around.load_state_dict(around.state_dict())
    with pytest.raises(TypeError, match="has no state_dict"):
        model.state_dict()
