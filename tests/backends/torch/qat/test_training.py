"""What is trained, with which random numbers, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import copy
from typing import Any

from backends.torch.qat.digits_net import accuracy
from backends.torch.qat.digits_net import digits
from backends.torch.qat.digits_net import fit
from backends.torch.qat.digits_net import trained_net
import optuna
import pytest
import torch
from torch import nn

from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch import Training
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig


INT4 = OpConfig("weight_only", weight=TensorConfig("int4", "sym", "per_channel", "rtn"))


def config_of(backend: TorchBackend, option: OpConfig = INT4) -> QuantConfig:
    return QuantConfig(dict.fromkeys((op.name for op in backend.capability().ops), option))


def qat_backend(train: Any, net: nn.Module | None = None) -> TorchBackend:
    x, *_ = digits()
    net = trained_net(2) if net is None else net
    return TorchBackend(net, x[:2], calibration_data=x[:100].numpy(), approach="qat", train=train)


class Counted:
    """A training that counts its calls, which make no difference to it."""

    def __init__(self, lr: float = 0.002) -> None:
        self.lr = lr
        self.calls: list[int] = []

    def __call__(self, model: nn.Module) -> None:
        self.calls.append(1)
        fit(model, self.lr, 1)


def test_quantization_aware_training_recovers_most_of_what_four_bits_lose() -> None:
    net = trained_net()
    x, *_ = digits()
    backend = TorchBackend(net, x[:2], approach="weight_only")
    config = config_of(backend)
    whole = accuracy(net)
    rounded = accuracy(backend.quantize(config).native())
    assert whole - rounded > 0.02

    module = backend.prepare(config)
    torch.manual_seed(1)
    fit(module, 0.002, 8)

    finished = backend.finished(config, module)
    assert accuracy(finished.simulated.native()) == accuracy(module)
    # Kernels for four bits may take activations in bfloat16.
    trained = accuracy(finished.native())
    assert whole - trained <= (whole - rounded) / 2


def test_a_configuration_is_trained_once_and_fp32_never() -> None:
    train = Counted()
    backend = qat_backend(train)
    config = config_of(backend)
    net, x = trained_net(2), digits()[2]

    fp32 = backend.quantize(backend.tuning_space().fp32())
    assert torch.equal(fp32.native()(x), net(x))
    assert not train.calls

    model = backend.quantize(config)
    assert backend.fingerprint(config) == model.fingerprint
    assert backend.simulated(config).fingerprint == model.fingerprint
    assert len(train.calls) == 1
    untrained = TorchBackend(net, x[:2], approach="weight_only").quantize(config)
    assert not torch.equal(model.native()(x), untrained.native()(x))


def test_training_is_the_same_in_every_process_and_leaves_random_numbers_alone() -> None:
    one, other = qat_backend(Counted()), qat_backend(Counted())
    config = config_of(one)
    torch.manual_seed(5)
    first = one.fingerprint(config)
    torch.manual_seed(6)
    expected = torch.rand(3)
    torch.manual_seed(6)
    assert other.fingerprint(config) == first
    assert torch.equal(torch.rand(3), expected)


def test_the_seed_and_the_code_tell_trainings_apart() -> None:
    def one(model: nn.Module) -> None:
        fit(model, 0.001, 1)

    def other(model: nn.Module) -> None:
        fit(model, 0.002, 1)

    def signature(train: Any) -> str:
        return qat_backend(train).signature()["options"]

    assert signature(one) == signature(Training(one))
    found = {signature(each) for each in (one, other, Training(one, seed=1))}
    found.add(signature(Training(one, learn_ranges=True)))
    assert len(found) == 4


class Parts:
    """Keeps parts in memory, as a study does."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get(self, name: str, compute: Callable[[], bytes], *, nbytes: int) -> bytes:
        if name not in self.kept:
            self.kept[name] = compute()
        return self.kept[name]


class Run:
    """A trial with hyperparameters, without a study."""

    def __init__(self, **hyperparameters: Any) -> None:
        self.hyperparameters: Mapping[str, Any] = hyperparameters
        self.trial = optuna.trial.FixedTrial(dict(hyperparameters))
        self.reports: list[tuple[float, int]] = []

    def report(self, value: float, step: int, *, pruner: Any = None) -> None:
        self.reports.append((value, step))

    def resume(self, name: str) -> None:
        return None

    def save(self, name: str, state: bytes, step: int) -> None:
        pass


def test_another_worker_gets_the_weights_that_were_kept() -> None:
    parts, train = Parts(), Counted()
    one = qat_backend(train)
    one.share_parts(parts)
    assert isinstance(one, TrainsCandidates)
    model = one.trained(config_of(one), Run())
    assert len(parts.kept) == 1

    other = qat_backend(train)
    other.share_parts(parts)
    assert other.quantize_trained(config_of(other), {}).fingerprint == model.fingerprint
    assert len(train.calls) == 1


def test_the_first_weights_that_were_kept_count() -> None:
    """Also where a training gives other weights each time."""
    seeds = iter(range(10))

    def train(model: nn.Module) -> None:
        torch.manual_seed(next(seeds))
        fit(model, 0.002, 1)

    parts = Parts()
    one, other = qat_backend(train), qat_backend(train)
    one.share_parts(parts)
    other.share_parts(parts)
    config = config_of(one)
    first = one.trained(config, Run()).fingerprint
    assert other.trained(config, Run()).fingerprint == first


def test_hyperparameters_tell_trainings_apart() -> None:
    def train(model: nn.Module, run: Any) -> None:
        fit(model, run.trial.suggest_float("lr", 1e-4, 1e-1), 1)
        run.report(accuracy(model), 0)

    backend = qat_backend(train)
    config = config_of(backend)
    run = Run(lr=0.001)
    models = [backend.trained(config, each).fingerprint for each in (run, Run(lr=0.01))]
    assert models[0] != models[1]
    assert [step for _, step in run.reports] == [0]
    for lr, fingerprint in zip((0.001, 0.01), models, strict=True):
        assert backend.quantize_trained(config, {"lr": lr}).fingerprint == fingerprint
    with pytest.raises(ValueError, match=r"hyperparameter that is not known.*'lr'"):
        backend.quantize(config)


def test_a_returned_copy_is_taken() -> None:
    def best(model: nn.Module) -> nn.Module:
        kept = copy.deepcopy(model)
        fit(model, 1.0, 1)
        return kept

    backend = qat_backend(best)
    config = config_of(backend)
    _, _, x, _ = digits()
    untrained = TorchBackend(trained_net(2), x[:2], approach="weight_only").quantize(config)
    assert torch.equal(backend.quantize(config).native()(x), untrained.native()(x))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": 3}, TypeError, "train must be a function"),
        ({"train": lambda: None}, TypeError, "takes no argument"),
        ({"train": len, "approach": "static"}, ValueError, "approach is 'static'"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    x, *_ = digits()
    options = {"approach": "qat", **options}
    with pytest.raises(error, match=message):
        TorchBackend(trained_net(0), x[:2], calibration_data=x[:100].numpy(), **options)


def test_without_train_the_user_trains() -> None:
    backend = qat_backend(None)
    config = backend.tuning_space().default()
    module = backend.prepare(config)
    fit(module, 0.001, 1)
    assert backend.finished(config, module).plan.ops
    with pytest.raises(ValueError, match="give TorchBackend train="):
        backend.quantize(config)


def test_something_else_returned_is_an_error() -> None:
    backend = qat_backend(lambda model: nn.Linear(1, 1))
    with pytest.raises(TypeError, match="must return nothing, or a copy"):
        backend.quantize(config_of(backend))


def test_the_space_has_what_can_be_trained() -> None:
    space = qat_backend(Counted()).tuning_space(
        op_type_dict={"Linear": {"mode": ["weight_only"], "weight": {"bits": [4, 2]}}}
    )
    options = {option for tunable in space.tunables for option in tunable.quantized}
    assert {option.weight.algorithm for option in options if option.weight} == {"rtn"}
    assert {option.weight.bits for option in options if option.weight} == {4, 2}
    default = qat_backend(Counted()).tuning_space().default()
    assert {option.mode for option in default.ops.values()} == {"static"}
