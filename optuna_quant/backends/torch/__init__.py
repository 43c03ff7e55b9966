"""The PyTorch backend: a module, exported once, whose ops are switched for each configuration.

It needs the extra ``torch``.

May import: `backends.torch.costs` and what is below it.
"""

from __future__ import annotations

from optuna_quant.backends.torch.backend import TorchBackend
from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
from optuna_quant.backends.torch.converted.loading import load
from optuna_quant.backends.torch.converted.model import TorchModel
from optuna_quant.backends.torch.converted.model_files import ModelFileError
from optuna_quant.backends.torch.qat.prepared import PreparedModule
from optuna_quant.backends.torch.qat.run import Checkpoint
from optuna_quant.backends.torch.qat.run import TrainingRun
from optuna_quant.backends.torch.qat.training import Training


__all__ = [
    "Checkpoint",
    "ModelFileError",
    "PreparedModule",
    "SimulatedModel",
    "TorchBackend",
    "TorchModel",
    "Training",
    "TrainingRun",
    "load",
]
