"""The ONNX Runtime backend.

May import: `backends.onnxruntime.costs` and what is below it.
"""

from __future__ import annotations

import importlib

from optuna_quant._common.extras import install_hint


try:
    for _package in ("onnx", "onnxruntime"):
        importlib.import_module(_package)
except ImportError as error:
    raise ImportError(
        "The ONNX Runtime backend needs the packages onnx and onnxruntime: "
        f"{install_hint('onnx')}."
    ) from error

from optuna_quant.backends.onnxruntime.backend import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
from optuna_quant.backends.onnxruntime.targets.profile import IntegerForm
from optuna_quant.backends.onnxruntime.targets.profile import TargetProfile
from optuna_quant.backends.onnxruntime.targets.table import TARGETS
from optuna_quant.backends.onnxruntime.torch_export.export import ExportedModule
from optuna_quant.backends.onnxruntime.torch_export.export import export_module
from optuna_quant.backends.onnxruntime.torch_export.loading import load_module
from optuna_quant.backends.torch_program.errors import ModuleExportError


__all__ = [
    "TARGETS",
    "ExportedModule",
    "IntegerForm",
    "ModuleExportError",
    "OnnxRuntimeBackend",
    "QuantizedModel",
    "TargetProfile",
    "export_module",
    "load_module",
]
