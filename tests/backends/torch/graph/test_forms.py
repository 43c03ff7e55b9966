"""The forms in which programs have ops: which are found, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


torch = pytest.importorskip("torch")

from converted_modules import CASES  # noqa: E402
from converted_modules import ready  # noqa: E402
from torch import nn  # noqa: E402
import torch_modules  # noqa: E402

from optuna_quant.backends.torch import TorchBackend  # noqa: E402
from optuna_quant.backends.torch import load  # noqa: E402
from optuna_quant.backends.torch.converted.weight_nodes import packed  # noqa: E402
from optuna_quant.backends.weight_algorithms.quantize import quantize_grouped  # noqa: E402
from optuna_quant.space.config import OpConfig  # noqa: E402
from optuna_quant.space.config import QuantConfig  # noqa: E402


BF16 = OpConfig("bf16")


@pytest.mark.parametrize("name", ["products", "rearranged", "bags"])
@pytest.mark.parametrize("approach", ["static", "weight_only"])
def test_nothing_switched_is_the_module_bit_for_bit(name: str, approach: str) -> None:
    it = ready(name, approach)
    # Torch multiplies in another order where a weight may be trained.
    wanted = it.module.requires_grad_(False)(it.samples)
    assert torch.equal(it.backend.simulated(QuantConfig({})).native()(it.samples), wanted)


def test_a_product_with_a_parameter_is_a_linear_layer() -> None:
    backend = ready("products", "static").backend
    found = {op.name: op.op_type for op in backend.capability().ops}
    linear = [name for name, kind in found.items() if kind == "Linear"]
    assert linear == ["Linear", "Linear#2", "last", "Linear#3"]
    kinds = [kind for kind in found.values() if kind != "Linear"]
    assert kinds == ["Add", "Add", "MatMul", "MatMul", "MatMul", "MatMul"]
    assert all(BF16 in op.options for op in backend.capability().ops if op.op_type == "MatMul")
    assert backend.ops_left_out(backend.tuning_space(op_types="all")) == ()
    # The transpose of the parameter is read once as the weight, and once as it is.
    size = backend.simulated(QuantConfig({})).nbytes
    assert size == 4 * (16 * 32 + 32 + 32 * 16 + 16)


def test_layers_of_keras_have_their_names() -> None:
    it = ready("rearranged", "static")
    found = {op.name: op.op_type for op in it.backend.capability().ops}
    assert found == {"first": "Conv2d", "second": "Conv2d", "head": "Linear"}
    fp32, int8 = (it.backend.simulated(it.config(each)).nbytes for each in ("fp32", "static"))
    weights = 3 * 3 * 3 * 16 + 3 * 3 * 16 * 8 + 8 * 10
    assert fp32 == 4 * (weights + 16 + 8 + 10)
    assert int8 == fp32 - 3 * weights + 4 * (16 + 8 + 10)


def test_a_weight_that_is_rearranged_is_trained() -> None:
    torch.manual_seed(0)
    net, x = CASES["rearranged"].make(), CASES["rearranged"].samples(8)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy(), approach="qat")
    config = backend.tuning_space().default()
    module = backend.prepare(config)
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    assert set(before) == {f"variables.{name}" for name in net.variables}
    wanted = backend.untrained_simulation(config).native()(x)
    torch.testing.assert_close(module(x).detach(), wanted)
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    module(x).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], each) for name, each in module.named_parameters())
    found = backend.finished(config, module)
    with torch.no_grad():
        torch.testing.assert_close(found.simulated.native()(x), module(x))


def test_a_file_of_rearranged_weights_gives_the_same(tmp_path: Any) -> None:
    it = ready("rearranged", "static")
    model = it.backend.converted(it.config("static"), lower=False)
    model.save(tmp_path / "net.pt2")
    found = load(tmp_path / "net.pt2", lower=False)(it.samples)
    assert torch.equal(found, model.native()(it.samples))


class InPlace(nn.Module):
    """A sum in place of which nothing else is seen, one that is read through a view, and types."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        plain = self.fc(x)
        plain += x
        seen = self.fc(x)
        view = seen.view(-1)
        seen += x
        typed = self.fc(x)
        typed += x.double()  # A new tensor would be of 64 bits.
        return plain, view * 2, typed


def test_sums_in_place() -> None:
    net = torch_modules.randomized(InPlace()).requires_grad_(False)
    x = torch_modules.samples(8, 4)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    kinds = [op.op_type for op in backend.capability().ops]
    assert kinds == ["Linear", "Add", "Linear", "Linear"]
    space = backend.tuning_space(op_types="all")
    left_out = backend.ops_left_out(space)
    assert [each.op_type for each in left_out] == ["add", "add"]
    assert {each.reason for each in left_out} == {
        "it works in place, and a new tensor would be another one"
    }
    for found, wanted in zip(backend.simulated(space.fp32()).native()(x), net(x), strict=True):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


def test_bags_of_a_quantized_table_in_numbers() -> None:
    it = ready("bags", "weight_only")
    ops = {op.name: op for op in it.backend.capability().ops}
    assert {name: op.op_type for name, op in ops.items() if not op.default} == {
        "mean": "EmbeddingBag",
        "sum": "EmbeddingBag",
        "most": "EmbeddingBag",
    }
    option = OpConfig.from_label("weight_only w=int4/asym/per_group=32/rtn")
    found = it.backend.simulated(QuantConfig(dict.fromkeys(("mean", "sum", "most"), option)))
    with torch.no_grad():
        for name in ("mean", "sum", "most"):
            table = it.module.get_submodule(name).weight
            rounded = quantize_grouped(
                table.numpy(), bits=4, group_size=32, scheme="asym", algorithm="rtn"
            )
            table.copy_(torch.from_numpy(rounded.effective()))
        wanted = it.module.requires_grad_(False)(it.samples)
    assert torch.equal(found.native()(it.samples), wanted)


@pytest.mark.parametrize("approach", ["dynamic", "weight_only", "static"])
def test_linear_layers_may_be_in_bf16_in_any_approach(approach: str) -> None:
    it = ready("chain", approach)
    space = it.backend.tuning_space()
    assert all(BF16 in tunable.options for tunable in space.tunables)
    config = QuantConfig({"b": BF16})
    found = it.backend.simulated(config).native()(it.samples)
    net = it.module
    with torch.no_grad():
        x = net.a(it.samples).relu().bfloat16()
        x = nn.functional.linear(x, net.b.weight.bfloat16()).float()
        assert torch.equal(found, net.c(nn.functional.gelu(x)))
    written = it.backend.converted(config, lower=False).native()(it.samples)
    torch.testing.assert_close(written, found)


def test_three_bits_are_chosen_by_name() -> None:
    it = ready("chain", "weight_only")
    usual = {
        option.weight.bits
        for op in it.backend.capability().ops
        for option in op.options
        if option.weight is not None
    }
    assert 3 not in usual
    space = it.backend.tuning_space(op_type_dict={"Linear": {"weight": {"bits": [3]}}})
    default = space.default()
    assert {option.label for option in default.ops.values()} == {
        "weight_only w=int3/asym/per_group=32/rtn"
    }
    sizes = [it.backend.simulated(config).nbytes for config in (space.fp32(), default)]
    inputs = 64 * 64 * 2 + 64 * 10
    groups = inputs // 32
    points = (64 + 64 + 10) * 1  # Two of 3 bits in a byte.
    assert sizes[0] - sizes[1] == 4 * inputs - (inputs * 3 // 8 + 4 * groups + points)


@pytest.mark.parametrize("inputs", [5, 32, 40])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_take_their_bits(bits: int, inputs: int) -> None:
    values = np.random.default_rng(0).normal(size=(3, inputs)).astype(np.float32)
    weight = quantize_grouped(values, bits=bits, group_size=None, scheme="asym", algorithm="rtn")
    rows = packed(weight)
    assert rows.dtype == np.uint8
    whole = -(-inputs // 8) * 8
    assert inputs * bits / 8 <= rows.shape[1] <= whole * bits / 8
