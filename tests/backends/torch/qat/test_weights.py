"""Weights are rounded in training as they are afterwards, to the bit."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch_modules

from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch.graph.ops import TorchOp
from optuna_quant.backends.torch.qat.weights import fake_quantized
from optuna_quant.space.config import TensorConfig


def ops(backend: TorchBackend) -> list[TorchOp]:
    return [op for op in backend._program.ops if op.weight is not None]


def weight_of(backend: TorchBackend, op: TorchOp, config: TensorConfig) -> torch.Tensor:
    return backend._weights.tensor(backend._weights.get(op, config, None), op)


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_eight_bits(granularity: str, reduce_range: bool) -> None:
    backend = TorchBackend(
        torch_modules.convnet(),
        torch_modules.samples(2, 2, 8, 8),
        approach="dynamic",
        reduce_range=reduce_range,
    )
    config = TensorConfig("int8", "sym", granularity)
    for op in ops(backend):
        weight = backend._program.weight(op)
        found = fake_quantized(weight, op, config, reduce_range=reduce_range)
        assert torch.equal(found, weight_of(backend, op, config))
        codes = backend._weights.get(op, config, None).codes
        assert abs(codes).max() == (63 if reduce_range else 127)


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend(
        torch_modules.attention(), torch.arange(10).reshape(2, 5), approach="weight_only"
    )


@pytest.mark.parametrize(
    ("bits", "scheme", "size"), list(product((2, 4, 8), ("sym", "asym"), (None, 3, 4)))
)
def test_few_bits(bits: int, scheme: str, size: int | None, backend: TorchBackend) -> None:
    granularity = "per_channel" if size is None else "per_group"
    config = TensorConfig(f"int{bits}", scheme, granularity, "rtn", size)
    for op in ops(backend):
        weight = backend._program.weight(op)
        assert torch.equal(fake_quantized(weight, op, config), weight_of(backend, op, config))


def test_zeros_stay_zero(backend: TorchBackend) -> None:
    op = ops(backend)[0]
    for config in (TensorConfig("int8", "sym", "per_channel"), TensorConfig("int4", "asym")):
        assert op.shape is not None
        assert not fake_quantized(torch.zeros(op.shape), op, config).any()


def test_gradients_pass_through(backend: TorchBackend) -> None:
    op = ops(backend)[0]
    weight = backend._program.weight(op).clone().requires_grad_()
    given = torch.rand(weight.shape)
    for config in (
        TensorConfig("int8", "sym", "per_channel"),
        TensorConfig("int4", "asym", "per_group", "rtn", 4),
    ):
        weight.grad = None
        (fake_quantized(weight, op, config) * given).sum().backward()
        assert weight.grad is not None
        assert torch.equal(weight.grad, given)
