"""What the classes share that a backend is put together from, one for each topic."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from threading import RLock

    from optuna_quant.backends.onnxruntime.model.quantized_model import QuantizedModel
    from optuna_quant.backends.onnxruntime.parts import BackendParts
    from optuna_quant.space.config import QuantConfig


class BackendTopic(abc.ABC):
    """The public methods of a backend about one topic; the backend's class derives from all.

    A method takes the lock, and the parts do the work.

    Args:
        parts:
            The parts of the backend.
        lock:
            Is held while parts are made or used.
    """

    def __init__(self, parts: BackendParts, lock: RLock) -> None:
        self._parts = parts
        self._lock = lock

    @abc.abstractmethod
    def quantize(self, config: QuantConfig) -> QuantizedModel:
        """Build the model that a configuration describes."""
