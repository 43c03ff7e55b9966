"""What the classes share that the backend is put together from, one for each topic."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set
    from threading import RLock

    from optuna_quant.backends.calibration.samples import Samples
    from optuna_quant.backends.ranges.missing_ranges import MissingRanges
    from optuna_quant.backends.torch.calibration import ProgramCalibration
    from optuna_quant.backends.torch.candidates.simulated import SimulatedModel
    from optuna_quant.backends.torch.candidates.weights import QuantizedWeights
    from optuna_quant.backends.torch.converted.model import TorchModel
    from optuna_quant.backends.torch.graph.switched import SwitchedProgram
    from optuna_quant.backends.torch.models import CandidateModels
    from optuna_quant.backends.torch.qat.trainer import Trainer
    from optuna_quant.data.inputs import InputSpec
    from optuna_quant.space.config import QuantConfig


@dataclass(frozen=True, eq=False)
class BackendParts:
    """What a backend consists of; one thread at a time may use it.

    Args:
        program:
            The program.
        approach:
            The approach to quantization.
        inputs:
            The inputs of the program.
        samples:
            What it is run on.
        calibration:
            What is known of its tensors from the samples.
        weights:
            Its quantized weights.
        module_paths:
            The paths of the modules that it was exported from.
        models:
            Makes the models of configurations.
        trainer:
            Trains them.
        float_bytes:
            The size of all its tensors in floats.
        missing_ranges:
            Which ops stay in floats because calibration gives them no range.
    """

    program: SwitchedProgram
    approach: str
    inputs: Sequence[InputSpec]
    samples: Samples
    calibration: ProgramCalibration
    weights: QuantizedWeights
    module_paths: Set[str]
    models: CandidateModels
    trainer: Trainer
    float_bytes: int
    missing_ranges: MissingRanges


class BackendTopic(abc.ABC):
    """The public methods of a backend about one topic; the backend's class derives from all.

    A method takes the lock, and the parts do the work.

    Args:
        parts:
            The parts of the backend.
        lock:
            Is held while parts are used.
    """

    def __init__(self, parts: BackendParts, lock: RLock) -> None:
        self._parts = parts
        self._lock = lock

    @abc.abstractmethod
    def untrained(self, config: QuantConfig) -> TorchModel:
        """The model that a configuration describes, without any training."""

    @abc.abstractmethod
    def untrained_simulation(self, config: QuantConfig) -> SimulatedModel:
        """A simulation in floats of it."""
