"""PyTorch modules as exported programs, for any backend: how they are exported and called.

torch is imported when a module is exported.

May import: `backends.blocks` and what is below it.
"""

from __future__ import annotations

from optuna_quant.backends.torch_program.detect import is_torch_model
from optuna_quant.backends.torch_program.errors import ModuleExportError


__all__ = ["ModuleExportError", "is_torch_model"]
