"""Whenever PyTorch may compile a program again, it does so with integer kernels."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest


torch = pytest.importorskip("torch")

from optuna_quant.backends.torch.converted import compiling  # noqa: E402


@pytest.fixture
def threads() -> Iterator[int]:
    found = torch.get_num_threads()
    yield found
    torch.set_num_threads(found)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each call, whether a compilation in it would have integer kernels."""
    from torch._inductor import config

    found: list[bool] = []

    def compile(graph: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            found.append(config.freezing)
            return graph(*args)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    return found


def test_what_pytorch_compiles_again_for_is_another_kind(frozen: list[bool], threads: int) -> None:
    run = compiling.compiled(torch.fx.symbolic_trace(torch.nn.Linear(4, 4)))
    x = torch.zeros(4, 4)
    for other in (x, x.t(), x.clone().requires_grad_(), x[:2], x):
        run(other)
    assert frozen == [True, True, True, True, False]
    frozen.clear()
    with torch.inference_mode():
        run(x)
        inferred = torch.zeros(4, 4)
        run(inferred)
        run(x)
    run(inferred)
    assert frozen == [True, True, False, True]
    frozen.clear()
    with torch.autocast("cpu"):
        run(x)
    torch.set_num_threads(threads + 1)
    run(x)
    run(x)
    assert frozen == [True, True, False]


def test_how_many_kinds_are_remembered_is_bounded(
    frozen: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_REMEMBERED", 2)
    run = compiling.compiled(torch.fx.symbolic_trace(torch.nn.Linear(4, 4)))
    for samples in (1, 2, 3, 3, 1):
        run(torch.zeros(samples, 4))
    assert frozen == [True, True, True, False, True]
