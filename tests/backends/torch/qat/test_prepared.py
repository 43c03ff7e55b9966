"""A prepared module computes as its simulation does, and its parameters are the user's."""

from __future__ import annotations

from collections.abc import Callable
import copy

import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.ranges.qparams import Params
from optuna_quant.backends.torch import PreparedModule
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch.qat.ranges import LearnedFakeQuantize
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig


STATIC = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym", "per_channel"))
PER_TENSOR = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym", "per_tensor"))
SIMPLE = OpConfig("static", TensorConfig("uint8", "sym"))
DYNAMIC = OpConfig("dynamic", TensorConfig("uint8"), TensorConfig("int8", "sym", "per_channel"))
BF16 = OpConfig("bf16")
INT4 = OpConfig("weight_only", weight=TensorConfig("int4", "asym", "per_channel", "rtn"))


def conv_backend(net: nn.Module | None = None) -> TorchBackend:
    x = torch_modules.samples(40, 2, 8, 8)
    return TorchBackend(net or torch_modules.convnet(), x[:2], calibration_data=x.numpy())


def all_in(option: OpConfig, *ops: str) -> QuantConfig:
    return QuantConfig(dict.fromkeys(ops, option))


CONFIGS = {
    "static": all_in(STATIC, "stem.0", "body", "depthwise", "fc"),
    "per tensor": all_in(PER_TENSOR, "stem.0", "body", "depthwise", "fc"),
    "add": QuantConfig({"Add": SIMPLE, "body": STATIC}),
    "dynamic": all_in(DYNAMIC, "fc"),
    "bf16": all_in(BF16, "stem.0", "body", "depthwise", "fc"),
    "few bits": QuantConfig({"fc": INT4, "body": STATIC, "stem.0": BF16}),
    "FP32": QuantConfig({}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_it_computes_as_the_quantized_model_before_and_after_training(name: str) -> None:
    backend, config = conv_backend(), CONFIGS[name]
    x = torch_modules.samples(8, 2, 8, 8, seed=3)
    module = backend.prepare(config)
    assert torch.equal(module(x), backend.simulated(config).native()(x))
    before = module(x).detach()

    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    losses = []
    for _ in range(20):
        loss = (module(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    assert losses[-1] < losses[0]
    finished = backend.finished(config, module)
    assert torch.equal(module(x), finished.simulated.native()(x))
    torch.testing.assert_close(finished.native()(x), module(x), rtol=0.02, atol=0.02)
    assert not torch.equal(module(x), before)
    assert finished.fingerprint != backend.quantize(config).fingerprint
    assert finished.nbytes == backend.quantize(config).nbytes


def test_gradients_reach_all_parameters() -> None:
    module = conv_backend().prepare(CONFIGS["static"])
    module(torch_modules.samples(8, 2, 8, 8)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_batch_norm_folds_exactly() -> None:
    """With weights that fit their integers, nothing is rounded but sums."""
    net = torch_modules.convnet()
    x = torch_modules.samples(8, 2, 8, 8)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    program = backend._program
    op = next(op for op in program.ops if op.name == "stem.0")
    conv, norm = net.get_submodule("stem.0"), net.get_submodule("stem.1")
    assert isinstance(conv, nn.Conv2d)
    weight, bias = program.weight(op), program.bias(op)
    folded = nn.functional.conv2d(x, weight, bias, padding=1)
    with torch.no_grad():
        torch.testing.assert_close(folded, norm(conv(x)), rtol=1e-5, atol=1e-6)

    # The scale and the shift of the normalization are trained through the folded weight.
    module = backend.prepare(CONFIGS["static"])
    module(x).square().sum().backward()
    parameters = dict(module.named_parameters())
    for name in ("stem.1.weight", "stem.1.bias", "stem.0.weight"):
        gradient = parameters[name].grad
        assert gradient is not None and gradient.abs().sum() > 0
    statistics = dict(module.named_buffers())["stem.1.running_mean"]
    assert torch.equal(statistics, net.get_buffer("stem.1.running_mean"))


def test_transposed_convolution_with_groups_folds() -> None:
    net = torch_modules.randomized(
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))
    )
    x = torch_modules.samples(20, 4, 5, 5)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    config = all_in(PER_TENSOR, "0")
    module = backend.prepare(config)
    assert torch.equal(module(x), backend.simulated(config).native()(x))
    module(x).square().sum().backward()
    assert all(each.grad is not None for each in module.parameters())


def test_it_has_the_users_parameters_and_leaves_the_users_module_alone() -> None:
    net = torch_modules.convnet()
    before = copy.deepcopy(net.state_dict())
    module = conv_backend(net).prepare(CONFIGS["static"])
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert set(module.state_dict()) == set(before)

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)

    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.load_state_dict(module.state_dict())


class Odd(nn.Module):
    """Tied weights, a shared module, a frozen parameter, and buffers; data in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.shared = nn.Linear(8, 8)
        self.out = nn.Linear(8, 10, bias=False)
        self.out.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.full((8,), 0.7))
        self.shared.bias.requires_grad_(False)
        self.register_buffer("kept", torch.full((8,), 0.5))
        self.register_buffer("passing", torch.full((8,), 1.5), persistent=False)

    def forward(self, tokens: torch.Tensor, *, factor: float = 2.0) -> dict[str, torch.Tensor]:
        x = self.shared(torch.relu(self.shared(self.embedding(tokens)))) * self.scale
        x = x * self.kept * self.passing * factor
        return {"logits": self.out(x), "hidden": x}


def odd_backend(net: nn.Module) -> tuple[TorchBackend, QuantConfig, torch.Tensor]:
    torch.manual_seed(0)
    tokens = torch.randint(0, 10, (30, 4))
    backend = TorchBackend(
        net, {"tokens": tokens[:2], "factor": 2.0}, calibration_data=tokens.numpy()
    )
    config = backend.tuning_space(op_types="all").default()
    return backend, config, tokens


def test_tied_shared_and_frozen_parameters() -> None:
    net = torch_modules.randomized(Odd())
    backend, config, tokens = odd_backend(net)
    module = backend.prepare(config)
    assert [n for n, _ in module.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert set(module.state_dict()) == set(net.state_dict())
    values = module.values()
    assert values["embedding.weight"] is values["out.weight"]
    assert not values["shared.bias"].requires_grad

    found = module(tokens, factor=2.0)
    expected = backend.simulated(config).native()(tokens, factor=2.0)
    assert all(torch.equal(found[name], expected[name]) for name in ("logits", "hidden"))

    found["logits"].square().sum().backward()
    gradients = {name: each.grad for name, each in module.named_parameters()}
    without = {"shared.bias", "unused.weight", "unused.bias"}
    assert {name for name, gradient in gradients.items() if gradient is None} == without

    with torch.no_grad():
        values["embedding.weight"].add_(0.1)
    finished = backend.finished(config, module).simulated.native()
    assert torch.equal(
        finished(tokens, factor=2.0)["logits"], module(tokens, factor=2.0)["logits"]
    )


def test_the_users_module_is_frozen_where_it_was() -> None:
    net = torch_modules.convnet().requires_grad_(False)
    module = conv_backend(net).prepare(CONFIGS["static"])
    assert not any(each.requires_grad for each in module.parameters())


def test_ranges_are_learned_if_asked_for() -> None:
    backend, config = conv_backend(), CONFIGS["static"]
    x = torch_modules.samples(8, 2, 8, 8, seed=3)
    module = backend.prepare(config, learn_ranges=True)
    learned = [n for n, _ in module.named_parameters() if n.startswith("activation_ranges.")]
    assert len(learned) == 4
    torch.testing.assert_close(module(x), backend.prepare(config)(x), rtol=1e-4, atol=1e-4)
    before = [each.params for each in module.ranges().values()]
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    after = [each.params for each in module.ranges().values()]
    assert all(one.scale != other.scale for one, other in zip(before, after, strict=True))
    finished = backend.finished(config, module)
    # What integer kernels make of it is another matter.
    torch.testing.assert_close(finished.simulated.native()(x), module(x), rtol=1e-3, atol=1e-3)


def test_the_gradient_of_a_range_is_that_of_learned_step_sizes() -> None:
    x = torch.tensor([-1.0, 0.335, 0.727, 9.0])
    module = LearnedFakeQuantize(Params(0.02, 10, "uint8"))
    module(x).sum().backward()
    codes = torch.tensor([-10.0, 17.0, 36.0, 245.0])
    exact = x / 0.02
    inside = torch.tensor([False, True, True, False])
    by_scale = torch.where(inside, codes - exact, codes).sum()
    expected = by_scale * 0.02 / (len(x) * 255 / 2) ** 0.5
    torch.testing.assert_close(module.log_ratio.grad, expected, rtol=1e-3, atol=1e-4)


def test_a_copy_is_trained_by_itself() -> None:
    backend, config = conv_backend(), CONFIGS["static"]
    x = torch_modules.samples(8, 2, 8, 8)
    module = backend.prepare(config, learn_ranges=True)
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert torch.equal(module(x), backend.prepare(config, learn_ranges=True)(x))
    assert not torch.equal(module(x), other(x))
    assert backend.finished(config, other).fingerprint != backend.finished(config, module)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda b: b.finished(CONFIGS["static"], nn.Linear(1, 1)), TypeError, "that prepare gave"),
        (
            lambda b: b.finished(CONFIGS["FP32"], b.prepare(CONFIGS["static"])),
            ValueError,
            "another configuration",
        ),
        (
            lambda b: b.prepare(
                QuantConfig(
                    {
                        "fc": OpConfig(
                            "weight_only",
                            weight=TensorConfig("int4", "asym", "per_channel", "hqq"),
                        )
                    }
                )
            ),
            ValueError,
            "'fc' is quantized by 'hqq'.*choose minmax or rtn",
        ),
        (lambda b: b.prepare(all_in(STATIC, "nowhere")), ValueError, "no op 'nowhere'"),
    ],
)
def test_errors(
    change: Callable[[TorchBackend], PreparedModule], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        change(conv_backend())


def test_weights_that_are_not_finite_are_an_error() -> None:
    backend = conv_backend()
    module = backend.prepare(CONFIGS["static"])
    with torch.no_grad():
        dict(module.named_parameters())["fc.weight"].fill_(float("nan"))
    with pytest.raises(
        ValueError, match=r"'fc\.weight', the weight of op 'fc', holds NaN or infinite.*rate"
    ):
        backend.finished(CONFIGS["static"], module)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 200.0, -2000.0])
def test_a_range_that_is_not_finite_is_an_error(value: float) -> None:
    backend = conv_backend()
    module = backend.prepare(CONFIGS["static"], learn_ranges=True)
    slot = backend._program.slots["fc"].activations[0]
    with torch.no_grad():
        module.ranges()[slot].log_ratio.fill_(value)
    with pytest.raises(ValueError, match=r"range of an activation of op 'fc'.*its scale became"):
        backend.finished(CONFIGS["static"], module)
