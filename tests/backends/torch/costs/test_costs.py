"""What the PyTorch backend counts, against counts by hand."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
import torch_modules
from torch_modules import randomized
from torch_modules import samples

from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch.costs.latency import form_of
from optuna_quant.backends.torch.graph.switched import SwitchedProgram
from optuna_quant.backends.torch_program.export import export_program
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


class Layers(nn.Module):
    """One layer of each kind whose operations are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(self.conv(x)).flatten(2).transpose(1, 2)
        h, _ = self.lstm(h)
        h = F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None])[:, 0]
        return self.fc(h @ h.transpose(1, 2) @ h)


def layers_backend() -> TorchBackend:
    x = samples(40, 2, 4, 4)
    return TorchBackend(randomized(Layers()), x[:2], calibration_data=x.numpy())


STEPS = 16
COUNTS = {
    "conv": 4 * 2 * 2 * 9,
    "up": 4 * 2 * 2 * 3 * 4,
    "fc": STEPS * 10 * 3,
}
LSTM = 2 * STEPS * 4 * 5 * (6 + 5)
PRODUCTS = 2 * STEPS * STEPS * 10  # Of attention, and as many of what follows it.


def test_multiply_adds_are_those_of_a_count_by_hand() -> None:
    backend = layers_backend()
    space = backend.tuning_space(op_types=["Conv2d", "ConvTranspose2d", "Linear"])
    costs = backend.counted_costs(space)
    floats = costs.table("multiply_adds")
    assert {op: options[FP32.label] for op, options in floats.ops.items()} == COUNTS
    assert floats.fixed == LSTM + 2 * PRODUCTS
    assert floats.cost(space.default()) == floats.fixed
    table = costs.table("bit_operations")
    bf16 = OpConfig("bf16").label
    for op, count in COUNTS.items():
        assert table.ops[op][FP32.label] == 32 * 32 * count
        assert table.option_cost(op, space.default().ops[op].label) == 8 * 8 * count
    assert table.ops["fc"][bf16] == 16 * 16 * COUNTS["fc"]
    assert table.fixed == 32 * 32 * floats.fixed


def test_sizes_are_those_of_packed_weights() -> None:
    backend = torch_backend(approach="static")
    space = backend.tuning_space()
    table = backend.counted_costs(space).table("size")
    weights = {"stem.0": (72, 4), "body": (144, 4), "depthwise": (36, 4), "fc": (12, 3)}
    for op, (size, channels) in weights.items():
        assert table.ops[op][FP32.label] == 4 * size
        assert table.ops[op][OpConfig("bf16").label] == 2 * size
        assert table.option_cost(op, space.default().ops[op].label) == size + 4 * channels
    assert table.cost(space.fp32()) == backend.quantize(space.fp32()).nbytes


GROUPED = [
    f"int{bits}/{scheme}/{group}/{algorithm}"
    for bits in (2, 4, 8)
    for scheme in ("sym", "asym")
    for group in ("per_group=32", "per_channel")
    for algorithm in ("rtn", "hqq_float")
    # It has zero points between few codes.
    if algorithm == "rtn" or (scheme == "asym" and bits < 8)
]


@pytest.mark.parametrize("label", GROUPED)
def test_weights_in_groups_have_the_size_of_what_is_built(label: str) -> None:
    x = samples(8, 40)
    backend = TorchBackend(randomized(nn.Linear(40, 6)), x[:2], approach="weight_only")
    option = OpConfig.from_label(f"weight_only w={label}")
    assert option.weight is not None
    wishes = {
        name: [getattr(option.weight, name)]
        for name in ("bits", "scheme", "algorithm", "granularity")
    }
    space = backend.tuning_space(op_name_dict={".*": {"weight": wishes}})
    config = QuantConfig({"Linear": option})
    table = backend.counted_costs(space).table("size")
    assert table.cost(config) == backend.quantize(config).nbytes


def torch_backend(**options: object) -> TorchBackend:
    x = samples(40, 2, 8, 8)
    net = torch_modules.convnet()
    return TorchBackend(net, x[:2], calibration_data=x.numpy(), **options)  # type: ignore[arg-type]


def test_what_is_timed_is_a_batch_of_the_size_that_is_asked_for() -> None:
    x = samples(3, 40)
    backend = TorchBackend(
        randomized(nn.Linear(40, 6)), x[:2], calibration_data=x.numpy(), latency_batch_size=5
    )
    found = backend.latency_feed()
    assert found is not None
    count, feed = found
    assert count == 5
    assert torch.equal(torch.from_numpy(feed["input"]), x[[0, 1, 2, 0, 1]])
    assert backend.cost_conditions()["inputs"] == "input 5x40"
    counted = backend.counted_costs(backend.tuning_space())
    assert counted.table("multiply_adds").cost(backend.tuning_space().fp32()) == 240


def test_without_data_the_size_alone_is_known() -> None:
    backend = TorchBackend(randomized(nn.Linear(40, 6)), samples(2, 40), approach="weight_only")
    for costs in (
        backend.counted_costs(backend.tuning_space()),
        backend.costs(backend.tuning_space()),
    ):
        assert list(costs.tables) == ["size"]
    given = backend.counted_costs(backend.tuning_space(), data=samples(3, 40).numpy())
    assert given.table("multiply_adds").cost(backend.tuning_space().fp32()) == 240
    assert given.conditions["batch"] == "1"
    assert given.conditions["inputs"] == "input 1x40"


def _forms(net: nn.Module, wish: dict[str, Any]) -> dict[str, set[tuple[str, str]]]:
    """The ops and schemes of each form."""
    backend = TorchBackend(net, samples(2, 64), approach="weight_only")
    space = backend.tuning_space(op_type_dict={"Linear": {"weight": wish}})
    ops = {op.name: op for op in SwitchedProgram(export_program(net, (samples(2, 64),))).ops}
    found: dict[str, set[tuple[str, str]]] = {}
    for tunable in space.tunables:
        for name, option in itertools.product(tunable.ops, tunable.options):
            if option.mode == "weight_only" and option.weight is not None:
                found.setdefault(form_of(option, ops[name]), set()).add(
                    (name, option.weight.scheme)
                )
    return found


def test_options_of_one_kernel_have_one_form() -> None:
    net = nn.Sequential(randomized(nn.Linear(64, 16)))
    # The kernel for 8 bits takes neither zero points nor groups; that for 4 bits takes both.
    assert _forms(net, {"bits": [8, 4], "scheme": ["sym", "asym"]}) == {
        "weight_only 8": {("0", "sym")},
        "weight_only 8 groups in floats": {("0", "sym"), ("0", "asym")},
        "weight_only 4 groups": {("0", "sym"), ("0", "asym")},
    }


def test_what_no_kernel_takes_has_a_form_of_its_own() -> None:
    # Of 80 inputs, groups of 32 would leave half a group; of 24 outputs, 16 at once leave 8.
    layers = nn.Linear(64, 80), nn.Linear(80, 64), nn.Linear(64, 24)
    net = nn.Sequential(*(randomized(each) for each in layers))
    wish = {"bits": [4], "scheme": ["sym"], "group_size": [32]}
    assert _forms(net, wish) == {
        "weight_only 4 groups": {("0", "sym")},
        "weight_only 4 groups in floats": {("1", "sym"), ("2", "sym")},
    }


class Twice(nn.Module):
    """A layer that is used three times, and one that is used once."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(64, 64, bias=False)
        self.head = nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.step(x))
        return self.head(x)


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_a_module_that_is_used_several_times_has_one_parameter(approach: str) -> None:
    net, x = torch_modules.randomized(Twice()), torch_modules.samples(20, 64)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy(), approach=approach)
    space = backend.tuning_space()
    assert [tunable.ops for tunable in space.tunables] == [
        ("step", "step#2", "step#3"),
        ("head",),
    ]
    table = backend.counted_costs(space).table("size")
    for tunable in space.tunables:
        for option in tunable.options:
            config = tunable.set(space.default(), option)
            # GPTQ and AWQ quantize the weight once, for the inputs of all three.
            assert table.cost(config) == pytest.approx(backend.quantize(config).nbytes, abs=600)


def test_a_weight_that_another_op_reads_stays_in_floats_beside_its_quantized_form() -> None:
    net, x = torch_modules.randomized(Twice()), torch_modules.samples(20, 64)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy(), approach="dynamic")
    every = backend.tuning_space(op_name_dict={"step#2": {"mode": ["fp32"]}})
    space = dataclasses.replace(
        every, tunables=tuple(t for t in every.tunables if "step#2" not in t.ops)
    )
    assert [tunable.ops for tunable in space.tunables] == [("step", "step#3"), ("head",)]
    table = backend.counted_costs(space).table("size")
    for config in (space.fp32(), space.default()):
        assert table.cost(config) == pytest.approx(backend.quantize(config).nbytes, abs=600)
