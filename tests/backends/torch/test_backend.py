"""What the PyTorch backend makes of modules: names, switches, numbers, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
import copy
from dataclasses import dataclass
import logging
from typing import Any
import warnings

import numpy as np
import optuna
import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.ranges.ranges import quantize_weight
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch_program import ModuleExportError
from optuna_quant.evaluation.data_checks import SeenInputs
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


BF16 = OpConfig("bf16")
STATIC = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax")
DYNAMIC = OpConfig.from_label(
    "dynamic a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"
)


ASYMMETRIC = OpConfig.from_label(STATIC.label.replace("int8/sym", "int8/asym"))


def conv_backend(**options: Any) -> TorchBackend:
    x = torch_modules.samples(40, 2, 8, 8)
    options.setdefault("calibration_data", x.numpy())
    return TorchBackend(torch_modules.convnet(), x[:2], **options)


def in_mode(backend: TorchBackend, option: OpConfig, *ops: str) -> QuantConfig:
    return QuantConfig(dict.fromkeys(ops, option))


def exported(backend: TorchBackend, *inputs: torch.Tensor) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return backend._exported.program.module()(*inputs)


def test_ops_are_named_by_module() -> None:
    ops = conv_backend().capability().ops
    assert {op.name: op.op_type for op in ops} == {
        "stem.0": "Conv2d",
        "body": "Conv2d",
        "Add": "Add",
        "depthwise": "Conv2d",
        "fc": "Linear",
    }
    assert [op.name for op in ops if not op.default] == ["Add"]


def test_a_module_that_is_used_twice_has_two_ops() -> None:
    backend = TorchBackend(
        torch_modules.attention(), torch.arange(10).reshape(2, 5), approach="dynamic"
    )
    names = [op.name for op in backend.capability().ops]
    assert names == ["attention.Linear", "attention.out_proj", "feed", "feed#2"]


@pytest.mark.parametrize("device", [None, "cpu"])
def test_nothing_switched_is_the_program_bit_for_bit(device: str | None) -> None:
    net, x = torch_modules.convnet(), torch_modules.samples(5, 2, 8, 8)
    backend = TorchBackend(net, x, calibration_data=x.numpy(), device=device)
    found = backend.simulated(backend.tuning_space().fp32()).native()(x)
    assert torch.equal(found, exported(backend, x))


def test_structured_outputs_are_those_of_the_module() -> None:
    # Torch multiplies in another order where a weight may be trained.
    net, tokens = torch_modules.attention().requires_grad_(False), torch.arange(10).reshape(2, 5)
    backend = TorchBackend(net, tokens, approach="dynamic")
    found = backend.simulated(QuantConfig({})).native()(tokens)
    wanted = exported(backend, tokens)
    assert found.keys() == wanted.keys()
    assert torch.equal(found["hidden"], wanted["hidden"])
    assert found["layers"] == 2


def test_the_users_module_is_not_changed() -> None:
    net = torch_modules.convnet()
    net.train()
    net.body.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    x = torch_modules.samples(40, 2, 8, 8)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    model = backend.simulated(backend.tuning_space().default())
    wanted = model.native()(x)
    assert net.training
    assert not net.body.weight.requires_grad
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        net.fc.weight.zero_()
    assert torch.equal(model.native()(x), wanted)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_normalization_is_folded(groups: int, transposed: bool, bias: bool) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(4, 6, 3, groups=groups, bias=bias)
    net = torch_modules.randomized(nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU()))
    x = torch_modules.samples(8, 4, 9, 9)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    program = backend._program
    (op,) = program.ops
    weight, shift = program.weight(op), program.bias(op)
    run = nn.functional.conv_transpose2d if transposed else nn.functional.conv2d
    with torch.no_grad():
        torch.testing.assert_close(
            torch.relu(run(x, weight, shift, groups=groups)), net(x), rtol=1e-4, atol=1e-5
        )


def test_a_linear_layer_in_numbers() -> None:
    net = torch_modules.randomized(nn.Linear(6, 4))
    x = torch_modules.samples(30, 6)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    name = backend.capability().ops[0].name
    found = backend.simulated(in_mode(backend, STATIC, name)).run({"input": x.numpy()})[0]

    values = x.numpy()
    low, high = min(values.min(), 0), max(values.max(), 0)
    scale = np.float32((high - low) / 255)
    zero_point = np.rint(-low / scale)
    rounded = (np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale
    codes, scales, _ = quantize_weight(net.weight.detach().numpy(), "int8", "sym", 0)
    weight = codes * scales[:, None]
    np.testing.assert_allclose(
        found, rounded @ weight.T + net.bias.detach().numpy(), rtol=1e-4, atol=2e-5
    )


def test_bf16_is_computed_in_bf16() -> None:
    net = torch_modules.randomized(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)))
    x = torch_modules.samples(30, 6)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    found = backend.simulated(in_mode(backend, BF16, "0")).native()(x)
    with torch.no_grad():
        wanted = net[1](copy.deepcopy(net[0]).bfloat16()(x.bfloat16()).float())
    assert torch.equal(found, wanted)


def test_tied_weights_are_switched_one_by_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.head = nn.Linear(8, 10, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(tokens))

    net, tokens = torch_modules.randomized(Tied()), torch.arange(10)[None]
    backend = TorchBackend(net, tokens, approach="weight_only")
    ops = {op.name: op for op in backend.capability().ops}
    assert set(ops) == {"embedding", "head"}
    head = QuantConfig({"head": ops["head"].options[0]})
    both = QuantConfig({name: op.options[0] for name, op in ops.items()})
    plain, one, two = (
        backend.simulated(each).native()(tokens) for each in (QuantConfig({}), head, both)
    )
    assert not torch.equal(plain, one)
    assert not torch.equal(one, two)


def test_a_dead_input_keeps_its_op_in_fp32() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.fc(x * 0.0) + x)

    net, x = torch_modules.randomized(Masked()), torch_modules.samples(20, 4)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    space = backend.tuning_space()
    with pytest.warns(UserWarning, match="Op 'fc' stays in FP32 .*: Tensor 'mul' is zero in all"):
        model = backend.simulated(space.default())
    assert set(model.plan.ops) == {"out"}
    assert backend.fingerprint(space.default()) == backend.fingerprint(
        space.default().with_fallback("fc")
    )


@dataclass
class Pair:
    first: torch.Tensor
    second: torch.Tensor


def test_data_classes_go_in_and_out() -> None:
    torch.export.register_dataclass(Pair)

    class Swap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, pair: Pair) -> Pair:
            return Pair(self.fc(pair.second), pair.first)

    x = torch_modules.samples(4, 3)
    backend = TorchBackend(torch_modules.randomized(Swap()), (Pair(x, 2 * x),), approach="dynamic")
    found = backend.simulated(QuantConfig({"fc": DYNAMIC})).native()(Pair(x, 2 * x))
    assert isinstance(found, Pair)
    assert torch.equal(found.second, x)


def test_control_flow_is_refused_with_its_line() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return self.fc(x)
            return x

    with pytest.raises(
        ModuleExportError, match=r"(?s)module Branch cannot be exported: .*if x.sum\(\) > 0"
    ):
        TorchBackend(Branch(), torch_modules.samples(2, 3), approach="dynamic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"approach": "qint"}, "approach must be one of static, dynamic, weight_only, auto"),
        ({"approach": "QAT"}, "but got 'QAT'. Did you mean 'qat'"),
        (
            {"approach": "static", "calibration_data": None},
            "Static quantization needs calibration_data",
        ),
        ({"calibration_sizes": [0]}, "calibration_sizes must be positive integers, but got 0"),
    ],
)
def test_bad_options_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_backend(**options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (QuantConfig({"no": STATIC}), "There is no op 'no' in the model"),
        (QuantConfig({"body": DYNAMIC}), r"Op 'body' \(Conv2d\) cannot run as 'dynamic"),
        (QuantConfig({"body": OpConfig("fp16")}), "has bf16 and fp32 for ops in floats"),
        (QuantConfig({}, {"smooth_quant": "on"}), "no recipes in this backend"),
        (
            QuantConfig({"fc": ASYMMETRIC}),
            "in this mode there are 20 options, such as",
        ),
    ],
)
def test_bad_configurations_are_refused(config: QuantConfig, message: str) -> None:
    backend = conv_backend()
    with pytest.raises(ValueError, match=message):
        backend.simulated(config)
    with pytest.raises(ValueError, match=message):
        backend.fingerprint(config)


def test_calibration_sizes_give_their_own_ranges() -> None:
    x = torch_modules.samples(40, 2, 8, 8)
    x[20:] *= 10
    backend = TorchBackend(
        torch_modules.convnet(), x[:2], calibration_data=x.numpy(), calibration_sizes=[10, 40]
    )
    (small, large) = (
        backend.simulated(QuantConfig({"stem.0": STATIC}, {}, size)).plan.ops["stem.0"]
        for size in (10, 40)
    )
    assert large.activations[0].scale > 5 * small.activations[0].scale


def test_a_model_is_switched_without_being_built(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = conv_backend()
    space = backend.tuning_space()
    backend.simulated(space.default())
    for name in ("torch.fx.GraphModule.recompile", "torch.export.export"):
        monkeypatch.setattr(name, None)
    model = backend.simulated(space.default().with_fallback("body"))
    assert model.plan.ops.keys() == {"stem.0", "depthwise", "fc"}


def test_options_in_order() -> None:
    ops = {op.name: op for op in conv_backend(approach="auto").capability().ops}
    labels = [option.label for option in ops["fc"].options]
    assert labels[0] == STATIC.label
    assert labels.index(DYNAMIC.label) > max(i for i, x in enumerate(labels) if "static" in x)
    assert labels[-2:] == ["bf16", "fp32"]
    assert ops["Add"].options[-1] == FP32
    assert BF16 not in ops["Add"].options


def test_a_module_that_writes_into_its_input_leaves_the_users_data() -> None:
    net = torch_modules.randomized(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4)))
    x = torch_modules.samples(30, 6)
    before = x.clone()
    backend = TorchBackend(net, x[:2].clone(), calibration_data=x.numpy())
    config = backend.tuning_space().default()
    for model in (backend.simulated(config), backend.quantize(config)):
        model.run({"input": x.numpy()})
        model.native()(x)
    assert torch.equal(x, before)


def test_a_module_that_keeps_state_between_calls_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            return self.fc(x) + self.calls

    with pytest.raises(ValueError, match="writes into 'calls' when it is called in evaluation"):
        TorchBackend(Counting(), torch_modules.samples(2, 3), approach="dynamic")


def test_a_weight_that_two_ops_read_is_counted_once() -> None:
    net = torch_modules.attention()
    backend = TorchBackend(net, torch.arange(10).reshape(2, 5), approach="dynamic")
    space = backend.tuning_space()
    fp32, default = (backend.simulated(each).nbytes for each in (space.fp32(), space.default()))
    floats = sum(each.numel() * 4 for each in net.state_dict().values())
    assert fp32 == floats
    shared = QuantConfig({"feed": DYNAMIC, "feed#2": DYNAMIC})
    assert floats - backend.simulated(shared).nbytes == 4 * 64 - (64 + 4 * 8)
    one = QuantConfig({"feed": DYNAMIC})
    assert backend.simulated(one).nbytes - floats == 64 + 4 * 8
    table = backend.counted_costs(space).table("size")
    assert table.cost(space.fp32()) == fp32
    assert table.cost(space.default()) == default


def test_tied_weights_are_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.head = nn.Linear(8, 10, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(tokens))

    backend = TorchBackend(
        torch_modules.randomized(Tied()), torch.arange(10)[None], approach="weight_only"
    )
    assert backend.simulated(QuantConfig({})).nbytes == 4 * 80


def test_a_batch_that_is_fixed_is_told_of_once() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.reshape(1, 4))

    net, x = torch_modules.randomized(One()), torch_modules.samples(20, 4)
    with pytest.warns(UserWarning, match=r"The module One is exported for batches of 1") as seen:
        backend = TorchBackend(net, x[:1], calibration_data=x.numpy())
    told = [str(each.message) for each in seen if "exported for batches" in str(each.message)]
    assert len(told) == 1
    # Where, in the user's code.
    assert "in forward, test_backend.py" in told[0]
    assert backend.simulated(backend.tuning_space().default()).run({"x": x[:1].numpy()})


def test_nothing_is_told_of_a_batch_that_is_free_or_of_the_users_choice() -> None:
    net, x = torch_modules.convnet(), torch_modules.samples(4, 2, 8, 8)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        TorchBackend(net, x[:1], calibration_data=x.numpy())
        TorchBackend(net, x[:1], calibration_data=x.numpy(), dynamic_shapes={"x": {2: None}})
    assert not [each for each in seen if "exported for batches" in str(each.message)]


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.table(tokens))[0][:, -1])


def test_texts_that_must_have_one_length_are_told(caplog: pytest.LogCaptureFixture) -> None:
    tokens = torch.arange(10).reshape(2, 5) % 9
    caplog.set_level(logging.INFO, "optuna")
    caplog.set_level(logging.INFO, "optuna_quant")
    optuna.logging.enable_propagation()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Nor does PyTorch talk of its LSTM.
            TorchBackend(_Recurrent(), tokens, approach="dynamic")
        assert "exported for integers of shape (batch, 5) alone" in caplog.text
        caplog.clear()
        TorchBackend(torch_modules.attention(), tokens, approach="dynamic")
        assert "alone" not in caplog.text
    finally:
        optuna.logging.disable_propagation()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("stem", "Did you mean 'stem.0'"), ("0", "'stem.0'"), ("bodi", "'body'"), ("zzz", r"\.$")],
)
def test_a_name_that_no_op_has(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"There is no op '{name}' in the model.*{meant}"):
        conv_backend().quantize(QuantConfig({name: STATIC}))


def test_names_of_what_cannot_be_quantized_are_known() -> None:
    backend = conv_backend()
    known = backend.capability().known_names
    assert "norm" in known  # A module.
    assert "mean" in known  # A node.
    assert "stem" not in known  # Modules that hold others: a pattern was meant.
    with pytest.warns(UserWarning, match=r"\['norm'\] matches no op that is tuned"):
        backend.tuning_space(op_name_dict={"norm": {"mode": ["fp32"]}})
    with pytest.raises(ValueError, match=r"'stem'.*matches no op name.*stem\.0"):
        backend.tuning_space(op_name_dict={"stem": {"mode": ["fp32"]}})


def test_what_runs_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_quant.backends.torch import backend as module
    from optuna_quant.backends.torch import models

    made: list[object] = []
    original = models.convert

    def counted(*args: Any) -> Any:
        made.append(args)
        return original(*args)

    monkeypatch.setattr(models, "convert", counted)
    monkeypatch.setattr(module, "_MOST_EXECUTED", 2)
    backend = conv_backend()
    default = backend.tuning_space().default()
    first = backend.executed(default)
    assert backend.executed(default) == first
    assert len(made) == 1
    # An op that is not named runs as one in FP32.
    named = default.with_fallback("fc")
    without = QuantConfig({name: option for name, option in default.ops.items() if name != "fc"})
    assert backend.executed(without).keys() == without.ops.keys()
    assert backend.executed(named)["body"] == backend.executed(without)["body"]
    assert len(made) == 2
    backend.executed(default.with_fallback("body"))
    assert len(backend._executed) == 2
    backend.executed(default)
    assert len(made) == 4


def test_arithmetic_is_what_this_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_quant.backends.torch.converted import saturation as module

    found = {}
    for saturates in (False, True):
        monkeypatch.setattr(module, "products_saturate", lambda s=saturates: s)
        for approach in ("static", "weight_only"):
            found[saturates, approach] = conv_backend(approach=approach).signature()["arithmetic"]
    assert found == {
        (False, "static"): "exact",
        (True, "static"): "saturating",
        (False, "weight_only"): "exact",
        (True, "weight_only"): "exact",
    }
    monkeypatch.setattr(module, "products_saturate", lambda: True)
    narrow = conv_backend(approach="static", reduce_range=True).signature()
    assert narrow["arithmetic"] == "exact"
    assert "reduce_range=True" in narrow["options"]


def test_it_is_said_once_that_products_saturate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from optuna_quant.backends.torch.converted import saturation as module

    monkeypatch.setattr(module, "products_saturate", lambda: True)
    caplog.set_level("INFO", logger="optuna_quant")
    optuna.logging.enable_propagation()
    try:
        backend = conv_backend()
        backend.quantize(QuantConfig({}))
        assert "saturate" not in caplog.text
        for _ in range(2):
            backend.quantize(backend.tuning_space().default())
    finally:
        optuna.logging.disable_propagation()
    assert caplog.text.count("saturate in PyTorch's integer kernels") == 1


def test_inputs_on_another_scale_than_the_calibration_data_are_told() -> None:
    x = torch_modules.samples(40, 2, 8, 8)
    backend = TorchBackend(
        torch_modules.convnet(), x[:2], calibration_data={"x": (255 * x).numpy()}
    )
    model = backend.quantize(QuantConfig({}))
    seen = SeenInputs()
    with model.showing_inputs(seen):
        model.native()(x)
    (said,) = seen.warnings(backend)
    assert f"from {x.min():.4g} to {x.max():.4g} in what evaluate= gives to the model" in said
    later = SeenInputs()
    model.native()(x)
    assert later.warnings(backend) == ()


def test_doubles_of_numpy_are_examples_of_floats() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4))
    backend = TorchBackend(nn.Linear(4, 2), x, approach="dynamic")
    assert backend.quantize(QuantConfig({})).inputs[0].dtype == np.float32


class _InNumpy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * float(np.max(x.numpy()))


@pytest.mark.parametrize(
    ("net", "x", "cure"),
    [
        (nn.Conv1d(1, 2, 3), torch.ones(2, 1, 5).double(), "Give example_inputs in the dtype"),
        (nn.Conv1d(1, 2, 3), torch.ones(2, 1, 5).long(), "Give example_inputs in the dtype"),
        (_InNumpy(), torch.ones(3, 4), "compute it with torch"),
    ],
)
def test_why_a_module_is_not_exported_comes_with_a_cure(
    net: nn.Module, x: torch.Tensor, cure: str
) -> None:
    with pytest.raises(ModuleExportError, match=cure):
        TorchBackend(net, x, approach="dynamic")


def test_a_type_that_the_approach_does_not_quantize_is_no_unknown_type() -> None:
    backend = conv_backend(approach="weight_only")
    with pytest.warns(UserWarning, match=r"\['Conv2d'\] matches no op that is tuned"):
        backend.tuning_space(op_type_dict={"Conv2d": {"mode": ["weight_only"]}})


def test_a_state_that_is_always_zero_has_a_range() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = torch.zeros(x.shape[0], 8)
            for _ in range(2):
                state = torch.tanh(self.cell(state) + x)
            return state

    net, x = torch_modules.randomized(Steps()), torch_modules.samples(20, 8)
    backend = TorchBackend(net, x[:2], calibration_data=x.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = backend.simulated(backend.tuning_space().default())
    assert set(model.plan.ops) == {"cell", "cell#2"}
    assert (model.native()(x) - net(x)).abs().max() < 0.05
