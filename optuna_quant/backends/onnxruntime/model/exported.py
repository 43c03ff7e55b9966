"""A model that was exported from another framework, and what its sessions are called as."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol
from typing import runtime_checkable


if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from optuna_quant.backends.base import NativeModel


@runtime_checkable
class ExportedModel(Protocol):
    """An ONNX model that knows how its users call it."""

    @property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model."""
        ...

    def present(self, session: onnxruntime.InferenceSession) -> NativeModel:
        """What a function of the user's gets for a session of this model or a quantized one."""
        ...
