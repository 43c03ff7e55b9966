"""What all tests of exported modules share."""

from __future__ import annotations

from collections.abc import Iterator
import functools

import pytest


@pytest.fixture(scope="package", autouse=True)
def one_registry() -> Iterator[None]:
    """Each export would collect the conversions of all operators again: half its time."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    registry = getattr(registration, "ONNXRegistry", None)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(registry, "from_torchlib"):  # It is torch's own.
            found = functools.cache(registry.from_torchlib)
            patch.setattr(registry, "from_torchlib", staticmethod(found))
        yield
