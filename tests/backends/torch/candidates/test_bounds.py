"""What a backend keeps of the candidates that were tried has a bound, and threads may use it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
import itertools
import logging
import sys
from threading import Event
from threading import Thread
from types import SimpleNamespace
from typing import Any
import warnings

import numpy as np
import pytest
import torch
from torch import nn
import torch_modules

from optuna_quant.backends.torch import TorchBackend
from optuna_quant.backends.torch.calibration import ProgramCalibration
from optuna_quant.backends.torch.candidates import observing
from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao
from optuna_quant.backends.torch.graph.ops import TorchOp
from optuna_quant.backends.torch.graph.run import plain_kernels
from optuna_quant.backends.torch_program.quiet import without_idle_output
from optuna_quant.space.config import QuantConfig


class Wide(nn.Module):
    """Linear layers, three of which read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(64, 64) for _ in range(3))
        self.rest = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.q(x) * self.k(x) + self.v(x)
        for layer in self.rest:
            x = torch.relu(layer(x))
        return x


def wide_backend(approach: str = "weight_only") -> TorchBackend:
    x = torch_modules.samples(16, 64)
    return TorchBackend(
        torch_modules.randomized(Wide()), x[:2], calibration_data=x.numpy(), approach=approach
    )


def all_in(backend: TorchBackend, label: str) -> QuantConfig:
    ops = backend.capability().ops
    return QuantConfig(
        {op.name: next(o for o in op.options if o.label.startswith(label)) for op in ops}
    )


def linear(backend: TorchBackend) -> list[TorchOp]:
    return [op for op in backend._program.ops if op.op_type == "Linear"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors each pass for moments was about."""
    seen: list[int] = []
    original = observing.collect_moments

    def counted(program: object, data: object, moments: dict[str, object], size: int) -> None:
        seen.append(len(moments))
        original(program, data, moments, size)

    monkeypatch.setattr("optuna_quant.backends.torch.calibration.collect_moments", counted)
    return seen


def test_weights_that_were_tried_take_no_more_than_the_bound() -> None:
    backend = wide_backend()
    one = 64 * 64 * 4
    bound = 3 * one
    weights = QuantizedWeights(backend._program, backend._calibration.moments, max_bytes=bound)
    first: dict[str, bytes] = {}
    for op, option in itertools.product(linear(backend), backend.capability().ops[0].options):
        if option.weight is None or option.weight.algorithm != "rtn":
            continue
        found = weights.get(op, option.weight, None)
        first.setdefault(f"{op.name} {option}", found.digest)
        weights.tensor(found, op)
        assert weights.nbytes <= 2 * bound
    assert len(first) * one > 2 * bound
    # What was forgotten is computed again, and is the same.
    for op, option in itertools.product(linear(backend), backend.capability().ops[0].options):
        if f"{op.name} {option}" in first:
            assert option.weight is not None
            found = weights.get(op, option.weight, None)
            assert found.digest == first[f"{op.name} {option}"]


def test_ops_that_read_one_tensor_share_moments(passes: list[int]) -> None:
    backend = wide_backend()
    backend.simulated(all_in(backend, "weight_only w=int4/asym/per_group=32/gptq"))
    assert passes == [5]  # Of seven ops.


def test_moments_take_no_more_than_the_bound(passes: list[int]) -> None:
    backend = wide_backend()
    one = 64 * 64 * 4 + 64 * 8
    bounded = ProgramCalibration(backend._program, backend._samples, "", max_bytes=2 * one)
    expected = ProgramCalibration(backend._program, backend._samples, "")
    for op in linear(backend):
        found = bounded.moments(op, None)
        np.testing.assert_array_equal(found.gram(), expected.moments(op, None).gram())
        assert bounded._moments.nbytes <= 2 * one
    # All at once without a bound; two at a time in the order in which they are asked for.
    assert sorted(passes) == [2, 2, 2, 5]


def test_scores_are_the_same_while_other_threads_switch() -> None:
    backend = wide_backend("auto")
    space = backend.tuning_space()
    configs = [space.default().with_fallback(op) for op in space.default().ops]
    expected = backend.mse_sensitivity()(space.default(), list(space.default().ops))
    backend._weights._found._max_bytes = backend._weights._tensors._max_bytes = 30_000

    def score(_: int) -> dict[str, float]:
        return backend.mse_sensitivity()(space.default(), list(space.default().ops))

    def switch(number: int) -> None:
        config = configs[number % len(configs)]
        backend.simulated(config).run({"x": np.zeros((2, 64), np.float32)})

    with ThreadPoolExecutor(4) as pool:
        scores = [pool.submit(score, n) for n in range(6)]
        switches = [pool.submit(switch, n) for n in range(40)]
        for each in switches:
            each.result()
        assert all(each.result() == expected for each in scores)


def overlapping(make: Callable[[], AbstractContextManager[object]]) -> None:
    """Another thread enters while this one is inside, if it can, and leaves after it."""
    entered, left = Event(), Event()

    def other() -> None:
        with make():
            entered.set()
            left.wait(10)

    thread = Thread(target=other)
    with make():
        thread.start()
        entered.wait(0.2)  # It may have to wait.
    left.set()
    thread.join()


@pytest.mark.parametrize("make", [without_idle_output, quiet_torchao])
def test_threads_that_export_leave_no_filters(
    make: Callable[[], AbstractContextManager[object]],
) -> None:
    logger = logging.getLogger("torchao" if make is quiet_torchao else "torch.export")
    before, level, stream = list(warnings.filters), logger.level, sys.stderr
    overlapping(make)
    assert warnings.filters == before
    assert logger.level == level
    assert sys.stderr is stream


def test_threads_that_need_plain_kernels_leave_the_others_enabled() -> None:
    targets = ["aten.scaled_dot_product_attention.default", "aten.lstm.input"]
    graph: Any = SimpleNamespace(
        graph=SimpleNamespace(nodes=[SimpleNamespace(target=each) for each in targets])
    )

    def enabled() -> tuple[bool, bool]:
        return torch.backends.cuda.flash_sdp_enabled(), torch.backends.mkldnn.enabled

    before = enabled()
    with plain_kernels(graph):
        assert enabled() != before
    overlapping(lambda: plain_kernels(graph))
    assert enabled() == before
