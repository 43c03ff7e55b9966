"""PyTorch modules as models of the backend: exported once, named by module, called with tensors.

torch is imported when a module is exported.

May import: `backends.onnxruntime.model` and what is below it.
"""

from __future__ import annotations

from optuna_quant.backends.onnxruntime.torch_export.export import ExportedModule
from optuna_quant.backends.onnxruntime.torch_export.export import ModuleToExport
from optuna_quant.backends.onnxruntime.torch_export.export import export_module
from optuna_quant.backends.onnxruntime.torch_export.loading import load_module


__all__ = ["ExportedModule", "ModuleToExport", "export_module", "load_module"]
