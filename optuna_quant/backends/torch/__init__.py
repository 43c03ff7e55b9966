"""The PyTorch backend: a module, exported once, whose ops are switched for each configuration.

It needs the extra ``torch``.

May import: `backends.torch.costs` and what is below it.
"""

from __future__ import annotations

from optuna_quant.backends.torch.backend import TorchBackend
from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
from optuna_quant.backends.torch.converted.loading import load
from optuna_quant.backends.torch.converted.model import TorchModel
from optuna_quant.backends.torch.converted.saving import ModelFileError


__all__ = ["ModelFileError", "SimulatedModel", "TorchBackend", "TorchModel", "load"]
