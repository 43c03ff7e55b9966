"""PyTorch modules for the ONNX Runtime backend: exported once, named by module, called with tensors.

The other way round nothing is known: a backend takes an :class:`ExportedModule` for what it holds, an
ONNX model and what its sessions are to be called as. torch is imported when a module is exported.

May import: ``_common``.
"""

from __future__ import annotations

from optuna_quant.backends.torch_export.detect import is_torch_model
from optuna_quant.backends.torch_export.errors import ModuleExportError
from optuna_quant.backends.torch_export.export import ExportedModule
from optuna_quant.backends.torch_export.export import export_module


__all__ = ["ExportedModule", "ModuleExportError", "export_module", "is_torch_model"]
