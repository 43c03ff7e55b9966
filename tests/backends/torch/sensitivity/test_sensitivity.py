"""Sensitivities of the PyTorch backend, against plain computations."""

from __future__ import annotations

from collections.abc import Mapping
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
import torch_modules
from torch_modules import randomized
from torch_modules import samples

from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.sensitivity.perturbation import squared_perturbation
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch.graph.recording import OpRecorder
from optuna_quant.backends.torch.sensitivity.gradient import GradientSensitivity
from optuna_quant.backends.torch.sensitivity.op_error import OpErrorSensitivity
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


STATIC = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax")
COARSE = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax")
FEW_BITS = OpConfig.from_label("weight_only w=int2/asym/per_channel/rtn")


def conv_backend(**options: Any) -> TorchBackend:
    x = samples(40, 2, 8, 8)
    return TorchBackend(torch_modules.convnet(), x[:2], calibration_data=x.numpy(), **options)


def scored(net: nn.Module, x: torch.Tensor, **options: Any) -> TorchBackend:
    return TorchBackend(net.eval(), x[:2], calibration_data=x.numpy(), **options)


def all_ops(backend: TorchBackend, option: OpConfig) -> QuantConfig:
    known = {op.name for op in backend.capability().ops if op.default}
    return QuantConfig(dict.fromkeys(sorted(known), option))


class Scaled(nn.Module):
    """Equal layers, each behind the one before it, but for the factors of what they give."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in factors)
        self.factors = factors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x)
        for layer, factor in zip(self.layers, self.factors, strict=True):
            total = total + factor * layer(x)
        return total


@pytest.mark.parametrize("option", [STATIC, COARSE])
def test_gradients_say_what_each_op_does_to_the_outputs(option: OpConfig) -> None:
    backend = conv_backend()
    config = all_ops(backend, option)
    predicted = backend.gradient_sensitivity(samples=40, probes=16)(config, list(config.ops))
    found = backend.output_sensitivity(batches=2)(config, list(config.ops))
    assert sorted(predicted, key=predicted.__getitem__) == sorted(found, key=found.__getitem__)
    for op, score in found.items():
        assert predicted[op] == pytest.approx(score, rel=0.5)


def test_an_error_that_the_outputs_make_little_of_scores_little() -> None:
    x = samples(40, 8)
    backend = scored(randomized(Scaled(1.0, 0.01)), x)
    config = all_ops(backend, STATIC)
    score = backend.gradient_sensitivity()(config, list(config.ops))
    assert score["layers.1"] < 1e-3 * score["layers.0"]
    alone = backend.mse_sensitivity()(config, list(config.ops))
    assert alone["layers.1"] == pytest.approx(alone["layers.0"], rel=1.0)


def test_op_errors_are_those_of_a_plain_computation() -> None:
    x = samples(40, 8)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    backend = scored(net, x)
    config = all_ops(backend, STATIC)
    found = backend.mse_sensitivity()(config, list(config.ops))
    read = torch.relu(net[0](x))
    layer, exact = net[2], net(x)
    scale = read.max() / 255
    rounded = torch.clamp(torch.round(read / scale), 0, 255) * scale
    steps = layer.weight.abs().amax(dim=1, keepdim=True) / 127
    weight = torch.round(layer.weight / steps) * steps
    error = (F.linear(rounded, weight, layer.bias) - exact).square().detach().double().numpy()
    values = exact.detach().double().numpy()
    power = values.var(axis=0) + 1e-3 * np.square(values).mean(axis=0)
    whole = error.mean() / power.mean()
    by_channel = np.minimum(error.mean(axis=0) / power, 1).mean()
    assert found["2"] == pytest.approx((whole + by_channel) / 2, rel=0.05)


def test_a_folded_batch_normalization_belongs_to_its_op() -> None:
    backend = conv_backend()
    (record,) = OpRecorder(backend._program, ["body"]).record(_feed()).ops.values()
    net = torch_modules.convnet()
    with torch.no_grad():
        expected = net.norm(net.body(torch.relu(net.stem(torch.from_numpy(_feed()["x"])))))
    torch.testing.assert_close(record.output, expected)
    config = QuantConfig({"body": STATIC})
    assert 0 < backend.mse_sensitivity()(config, ["body"])["body"] < 0.01


def _feed() -> Mapping[str, Any]:
    return {"x": samples(4, 2, 8, 8).numpy()}


def test_an_option_of_several_configurations_is_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = conv_backend()
    config = all_ops(backend, STATIC)
    configs = [config, config.with_fallback("fc"), config.with_ops({"fc": COARSE})]
    ops = list(config.ops)
    computed = []
    alone = OpRecorder.alone

    def spy(self: OpRecorder, op: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(op.name)
        return alone(self, op, *args, **kwargs)

    monkeypatch.setattr(OpRecorder, "alone", spy)
    sensitivity = backend.mse_sensitivity(samples=32)
    together = sensitivity.score_options(configs, ops)
    assert sorted(computed) == sorted([*ops, "fc"])
    assert together[1]["fc"] == 0
    assert together[2]["fc"] > together[0]["fc"] > 0
    assert {each["body"] for each in together} == {together[0]["body"]}


@pytest.mark.parametrize("make", ["gradient_sensitivity", "mse_sensitivity"])
def test_what_comes_from_weights_is_told_apart(make: str) -> None:
    backend = conv_backend(approach="auto")
    config = all_ops(backend, STATIC)
    sensitivity = getattr(backend, make)()
    scores, parts = sensitivity.score_with_weights([config], list(config.ops))
    assert parts.keys() == config.ops.keys()
    assert all(0 < part <= 1 for part in parts.values())
    _, none = sensitivity.score_with_weights([QuantConfig({"fc": FEW_BITS})], ["fc"])
    assert none == {}
    assert scores[0].keys() == config.ops.keys()


def test_ops_in_floats_score_zero_and_unknown_ones_are_refused() -> None:
    backend = conv_backend()
    config = QuantConfig({"fc": OpConfig("bf16"), "body": FP32})
    for kind, factory in backend.sensitivities().items():
        sensitivity = factory(outputs=None)
        assert sensitivity is not None
        assert dict(sensitivity(config, ["fc", "body"])) == {"fc": 0, "body": 0}, kind
        with pytest.raises(ValueError, match="no op 'head'"):
            sensitivity(config, ["head"])


class InPlace(nn.Module):
    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1)
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.one(x))
        return self.act(self.two(h) + h).mean((2, 3))


def test_writing_in_place_changes_no_score() -> None:
    found = []
    for inplace in (True, False):
        backend = scored(randomized(InPlace(inplace=inplace)), samples(40, 2, 8, 8))
        config = all_ops(backend, STATIC)
        best = backend.sensitivity()
        assert isinstance(best, GradientSensitivity)
        found.append(
            (best(config, list(config.ops)), backend.mse_sensitivity()(config, list(config.ops)))
        )
    assert found[0] == found[1]


class Stopped(nn.Module):
    """Gradients are stopped behind the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).detach())


def test_what_stops_gradients_stops_no_errors() -> None:
    backend = scored(randomized(Stopped()), samples(40, 8))
    config = all_ops(backend, STATIC)
    scores = backend.gradient_sensitivity(probes=16)(config, list(config.ops))
    found = backend.output_sensitivity()(config, list(config.ops))
    assert scores["one"] == pytest.approx(found["one"], rel=0.5)
    assert backend.hessian_sensitivity()(config, ["one"])["one"] > 0


class NoGradients(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            h = self.one(x)
        return self.two(h)


def test_a_part_without_gradients_is_looked_at() -> None:
    x = samples(40, 8)
    net = randomized(NoGradients())
    program = torch.export.export(net, (x,), strict=True)
    assert "wrap_with_set_grad_enabled" in str(program.graph)
    backend = TorchBackend(program, calibration_data=x.numpy())
    config = all_ops(backend, STATIC)
    assert backend.gradient_sensitivity()(config, ["two"])["two"] > 0


class Labels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x))).argmax(1)


def test_without_gradients_ops_are_scored_by_their_own_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = scored(randomized(Labels()), samples(40, 8))
    logger = logging.getLogger("optuna_quant.backends.sensitivity.offered")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        found = backend.sensitivity()
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(logging.NOTSET)
    assert type(found) is OpErrorSensitivity
    assert "no output of floats depends on an op" in caplog.text


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = torch.relu(self.body(x))
        return {"left": self.left(h), "right": self.right(h)}


@pytest.mark.parametrize(
    "kind", [SensitivityKind.BEST, SensitivityKind.OUTPUT_ERROR, SensitivityKind.CURVATURE]
)
def test_only_outputs_that_count_are_looked_at(kind: SensitivityKind) -> None:
    backend = scored(randomized(TwoHeads()), samples(40, 8))
    config = all_ops(backend, STATIC)
    factory = backend.sensitivities()[kind]
    both, left = factory(outputs=None), factory(outputs=["left"])
    assert both is not None
    assert left is not None
    assert all(both(config, list(config.ops)).values())
    scores = left(config, list(config.ops))
    assert scores["right"] == 0
    assert scores["left"] > 0
    assert scores["body"] > 0
    with pytest.raises(ValueError, match="no output 'middle'"):
        factory(outputs=["middle"])(config, list(config.ops))  # type: ignore[misc]


def test_scores_depend_on_the_seed_alone() -> None:
    backend, again = conv_backend(), conv_backend()
    config = all_ops(backend, STATIC)
    ops = list(config.ops)
    one = backend.gradient_sensitivity(seed=1)(config, ops)
    # PyTorch's sums of the same numbers differ in their last bits with where these are in memory.
    assert again.gradient_sensitivity(seed=1)(config, ops) == pytest.approx(one, rel=1e-5)
    assert backend.gradient_sensitivity(seed=2)(config, ops) != pytest.approx(one, rel=1e-5)
    first = backend.hessian_sensitivity(seed=1, probes=8, tolerance=0)(config, ops)
    second = again.hessian_sensitivity(seed=1, probes=8, tolerance=0)(config, ops)
    assert second == pytest.approx(first, rel=1e-5)
    other = backend.hessian_sensitivity(seed=2, probes=8, tolerance=0)(config, ops)
    assert other != pytest.approx(first, rel=1e-5)


def test_small_pieces_give_the_same_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = conv_backend()
    config = all_ops(backend, STATIC)
    whole = backend.mse_sensitivity()(config, list(config.ops))
    monkeypatch.setattr("optuna_quant.backends.sensitivity.pieces._PIECE_BYTES", 1)
    pieces = backend.mse_sensitivity()(config, list(config.ops))
    assert pieces == pytest.approx(whole, rel=1e-3)


def test_without_data_there_is_nothing_to_score_with() -> None:
    x = samples(2, 8)
    backend = TorchBackend(nn.Linear(8, 3), x)
    assert backend.sensitivity() is None
    for kind in set(SensitivityKind) - {SensitivityKind.BEST}:
        with pytest.raises(ValueError, match="needs samples to run the model on"):
            backend.sensitivities()[kind](outputs=None)
    config = all_ops(backend, backend.capability().ops[0].options[0])
    given = backend.mse_sensitivity(data=samples(8, 8).numpy())
    assert all(score > 0 for score in given(config, list(config.ops)).values())


def test_weights_of_few_bits_are_scored() -> None:
    net, tokens = torch_modules.attention(), torch.arange(40).reshape(8, 5) % 20
    backend = TorchBackend(
        net, tokens[:2], approach="weight_only", calibration_data=tokens.numpy()
    )
    ops = ["embedding", "feed", "feed#2"]
    config = QuantConfig(dict.fromkeys(ops, FEW_BITS))
    for factory in backend.sensitivities().values():
        sensitivity = factory(outputs=None)
        assert sensitivity is not None
        assert all(score > 0 for score in sensitivity(config, ops).values())


# Curvature.


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(2, 3, 2, bias=False)
        self.norm = nn.BatchNorm1d(3)
        self.two = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.norm(self.one(x))).mean(2))


def cross_entropy(
    outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    return F.cross_entropy(outputs["output"], batch["labels"])


def test_traces_are_those_of_the_exact_hessian() -> None:
    net, x = randomized(Small()), samples(12, 2, 5)
    labels = np.arange(12) % 3
    backend = scored(net, x)
    sensitivity = backend.hessian_sensitivity(
        loss=cross_entropy, labels=labels, probes=4000, tolerance=0.01, dtype="float64"
    )
    double = net.double()
    factor = double.norm.weight / (double.norm.running_var + double.norm.eps).sqrt()
    shift = double.norm.bias - factor * double.norm.running_mean

    def loss(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(F.conv1d(x.double(), one) + shift[:, None]).mean(2)
        return F.cross_entropy(F.linear(h, two, double.two.bias), torch.from_numpy(labels))

    weights = ((double.one.weight * factor[:, None, None]).detach(), double.two.weight.detach())
    hessian = torch.autograd.functional.hessian(loss, weights)
    config = QuantConfig({"one": STATIC, "two": STATIC})
    scores = sensitivity(config, ["one", "two"])
    for number, name in enumerate(("one", "two")):
        size = weights[number].numel()
        trace = float(torch.trace(hessian[number][number].reshape(size, size)))
        found = sensitivity.report.ops[name]
        assert found.size == size
        assert abs(found.trace - trace) < 4 * found.standard_error + 1e-6
        assert STATIC.weight is not None
        moved = squared_perturbation(weights[number].float().numpy(), STATIC.weight, 0)
        assert scores[name] == pytest.approx(found.average * moved, rel=1e-4)


def test_single_precision_gives_about_the_same() -> None:
    backend = scored(randomized(Small()), samples(12, 2, 5))
    config = QuantConfig({"one": STATIC, "two": STATIC})
    single, double = (
        backend.hessian_sensitivity(dtype=dtype, probes=8, tolerance=0)(config, ["one", "two"])
        for dtype in ("float32", "float64")
    )
    assert single == pytest.approx(double, rel=1e-3)


class Fused(nn.Module):
    """Attention and a recurrent layer, whose fused kernels cannot be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(8, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.into(x)[:, None]
        h = F.scaled_dot_product_attention(h, h, h)[:, 0]
        return self.out(self.lstm(h)[0].mean(1))


def test_fused_kernels_are_differentiated_twice() -> None:
    backend = scored(randomized(Fused()), samples(16, 5, 8))
    config = all_ops(backend, STATIC)
    assert all(score > 0 for score in backend.hessian_sensitivity()(config, ["into"]).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, "probes must be an integer of at least 2"),
        ({"tolerance": -1.0}, "tolerance must be a number of at least 0"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"labels": np.zeros(3)}, "There are 3 labels"),
        ({"loss": lambda outputs, batch: outputs["output"]}, "must give one value"),
        ({"loss": lambda outputs, batch: torch.zeros(())}, "does not depend on the weights"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    backend = scored(randomized(Small()), samples(12, 2, 5))
    with pytest.raises(ValueError, match=message):
        backend.hessian_sensitivity(**options)
