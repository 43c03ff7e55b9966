"""What the PyTorch backend tells of a program: its graph, blocks, and what is left out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
import torch_modules
from torch_modules import randomized
from torch_modules import samples

from optuna_quant.backends.base import HasBlocks
from optuna_quant.backends.base import HasGraph
from optuna_quant.backends.base import NamesSizes
from optuna_quant.backends.base import TellsLeftOut
from optuna_quant.backends.base import TracesOutputs
from optuna_quant.backends.base import WeighsFloats
from optuna_quant.backends.base import shown_sizes_of
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.space.config import QuantConfig


def backend_of(net: nn.Module, x: torch.Tensor, **options: object) -> TorchBackend:
    return TorchBackend(net, x[:2], calibration_data=x.numpy(), **options)  # type: ignore[arg-type]


def conv_backend(**options: object) -> TorchBackend:
    return backend_of(torch_modules.convnet(), samples(20, 2, 8, 8), **options)


def test_it_offers_all_that_is_told_of_a_model() -> None:
    backend = conv_backend()
    offered = (HasBlocks, HasGraph, NamesSizes, TellsLeftOut, TracesOutputs, WeighsFloats)
    for protocol in offered:
        assert isinstance(backend, protocol)


def test_sizes_are_called_those_of_weights() -> None:
    assert shown_sizes_of(conv_backend()) == " of weights"
    assert shown_sizes_of(object()) == ""  # They are those of files.


def test_nodes_are_ops_and_what_lies_between_them() -> None:
    nodes = conv_backend().graph_nodes()
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    by_name = {node.name: node for node in nodes}
    assert by_name["stem.0"].inputs == ()
    assert by_name["stem.0"].op_type == "Conv2d"
    assert set(by_name["Add"].inputs) == {"batch_norm_1", "relu"}
    assert by_name["batch_norm_1"].inputs == ("body",)
    assert by_name["fc"].inputs == ("mean",)
    assert by_name["relu_"].op_type == "relu"
    seen: set[str] = set()
    for node in nodes:
        assert seen.issuperset(node.inputs)
        seen.add(node.name)


class Named(nn.Module):
    """A submodule is called as a node of the exported program is."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.relu(x))


def test_no_two_nodes_have_one_name() -> None:
    nodes = backend_of(Named().eval(), samples(8, 4)).graph_nodes()
    assert [(node.name, node.inputs) for node in nodes] == [("relu", ()), ("relu_", ("relu",))]


class Branches(nn.Module):
    """Two outputs, of which one knows nothing of the other but its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        left = self.left(self.body(x))
        return {"left": left, "right": self.right(x).reshape(left.shape[0], 2, 2), "same": x}


def test_outputs_behind_ops_are_found() -> None:
    backend = backend_of(Branches().eval(), samples(8, 4))
    assert backend.outputs_behind(["left"]) == ("left",)
    assert backend.outputs_behind(["body"]) == ("left",)
    assert backend.outputs_behind(["right"]) == ("right",)
    assert backend.outputs_behind(["right", "left"]) == ("left", "right")
    assert backend.outputs_behind([]) == ()


def test_layers_of_a_transformer_are_blocks() -> None:
    backend = backend_of(torch_modules.transformer(), samples(8, 5, 8))
    ops = [[op for op in block.ops if op.startswith("layers")] for block in backend.blocks()]
    assert ops == [
        [f"layers.{i}.{name}" for name in ("qkv", "out", "feed.1", "feed.3")] for i in range(3)
    ]
    assert len({block.family for block in backend.blocks()}) == 1


class Residuals(nn.Module):
    """Two stages of residual units, the second one wider."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.units = nn.Sequential(Unit(4), Unit(4), Unit(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.units(torch.relu(self.stem(x)))


class Unit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.two(self.act(self.norm(self.one(x)))) + x)


def test_residual_units_are_blocks() -> None:
    backend = backend_of(randomized(Residuals()), samples(8, 2, 6, 6))
    assert [block.ops for block in backend.blocks()] == [
        (f"units.{i}.one", f"units.{i}.two") for i in range(3)
    ]


# What is left out.


class Mixed(nn.Module):
    """Ops of all kinds that a tuning space may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.fc = nn.Linear(4, 3)
        self.factor = nn.Parameter(torch.randn(4, 4))
        self.mix = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.conv(x)).transpose(1, 2)
        h, _ = self.gru(h)
        h = self.mix @ h
        h = F.linear(h, self.factor * 2)
        places = torch.arange(3) + torch.arange(3)
        return self.fc(h) + places


def left_out(backend: TorchBackend, **wishes: object) -> dict[str, tuple[str, str]]:
    space = backend.tuning_space(**wishes)  # type: ignore[arg-type]
    return {each.op: (each.reason, each.remedy) for each in backend.ops_left_out(space)}


def test_each_op_that_is_left_out_has_a_reason() -> None:
    backend = backend_of(randomized(Mixed()), samples(8, 4, 5))
    found = left_out(backend, op_types=["Linear"])
    assert found == {
        "conv": ("its op type was not asked for", ""),
        "gru": ("this backend does not quantize gru", ""),
        "matmul": ("one of its factors is a constant, and it is no Linear layer", ""),
        "mul": ("this backend does not quantize mul", ""),
        "linear": ("its weight is computed, or not of 32 bits", ""),
    }


def test_what_another_approach_would_quantize_is_said() -> None:
    x = samples(2, 2, 8, 8)
    backend = TorchBackend(torch_modules.convnet(), x, approach="dynamic")
    found = left_out(backend)
    needs = "calibration_data with approach='static' or 'auto'"
    assert found["body"] == ("only static quantization takes it", needs)
    assert found["Add"] == ("only static quantization takes it", f'{needs}, and op_types="all"')
    tokens = torch.arange(40).reshape(8, 5) % 20
    words = backend_of(torch_modules.attention(), tokens)
    assert left_out(words)["embedding"] == (
        "only its table can be quantized",
        "approach='weight_only', and op_types=\"all\"",
    )
    alone = backend_of(torch_modules.convnet(), samples(8, 2, 8, 8), approach="weight_only")
    assert left_out(alone)["body"] == ("its weight is not quantized alone", "approach='static'")
    assert left_out(alone)["Add"] == (
        "it has no weight",
        "approach='static', and op_types=\"all\"",
    )
    trained = TorchBackend(torch_modules.convnet(), x, approach="qat", train=lambda model: None)
    assert left_out(trained)["body"] == ("only static quantization takes it", "calibration_data")


class Branched(nn.Module):
    """Layers inside ``torch.cond``, one of them in both branches."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.left, self.both = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        found: torch.Tensor = torch.cond(
            x.sum() > 0,
            lambda x: self.both(self.left(x)),
            lambda x: self.both(x) @ x.transpose(0, 1) @ x,
            (x,),
        )
        return found


def test_ops_inside_branches_are_named() -> None:
    net, x = randomized(Branched()).requires_grad_(False), samples(8, 4)
    backend = backend_of(net, x)
    space = backend.tuning_space()
    assert list(space.default().ops) == ["before"]
    reason = "it is computed inside torch.cond, where ops are not switched"
    found = {each.op: (each.op_type, each.reason) for each in backend.ops_left_out(space)}
    assert found == {
        "left": ("Linear", reason),
        "both": ("Linear", reason),
        "cond.MatMul": ("MatMul", reason),
    }
    sizes = {each.op: each.weight_bytes for each in backend.ops_left_out(space)}
    assert sizes == {"left": 80, "both": 80, "cond.MatMul": 0}
    assert torch.equal(backend.simulated(space.fp32()).native()(x), net(x))
    written = backend.converted(space.default(), lower=False)
    torch.testing.assert_close(written.native()(x), backend.simulated(space.default()).native()(x))


def test_weights_in_floats_are_weighed() -> None:
    backend = conv_backend()
    space = backend.tuning_space()
    whole = backend.float_weights(space.fp32())
    # Weights, biases, and the four vectors of batch normalizations.
    sizes = {
        "stem.0": 4 * (72 + 16),
        "body": 4 * (144 + 4 + 16),
        "depthwise": 4 * (36 + 4),
        "fc": 4 * (12 + 3),
    }
    assert whole.nbytes == whole.in_fallback == sum(sizes.values())
    assert whole.nbytes <= whole.model_bytes
    best = backend.float_weights(space.default())
    assert best.nbytes == best.in_fallback == 0
    without = {op: option for op, option in space.default().ops.items() if op != "body"}
    some = backend.float_weights(QuantConfig(without))
    assert some.nbytes == sizes["body"]
    assert some.in_fallback == 0
    assert [(o.op, o.weight_bytes) for o in some.left_out if o.weight_bytes] == [
        ("body", sizes["body"])
    ]
