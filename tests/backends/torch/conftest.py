"""What the tests of the PyTorch backend share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only slow tests compile: the C++ compiler takes seconds, the first time half a minute."""
    if request.node.get_closest_marker("slow") is None:
        name = "optuna_quant.backends.torch.converted.compiling.has_compiler"
        monkeypatch.setattr(name, lambda: False)
