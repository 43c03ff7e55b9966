"""Whether an object is a model of PyTorch, told without importing torch."""

from __future__ import annotations

import sys


def is_torch_model(model: object) -> bool:
    """Whether this is a :class:`torch.nn.Module` or a :class:`torch.export.ExportedProgram`."""
    # Who has made one has imported torch.
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "nn"):
        return False
    return isinstance(model, (torch.nn.Module, torch.export.ExportedProgram))
