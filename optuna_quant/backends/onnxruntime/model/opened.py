"""The user's model and the forms of it that candidates are made from."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from optuna_quant.backends.onnxruntime.model.compact import CompactModel
from optuna_quant.backends.onnxruntime.model.compact import compacted
from optuna_quant.backends.onnxruntime.model.external_data import external_bytes
from optuna_quant.backends.onnxruntime.model.normalize import normalize


if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from optuna_quant.backends.onnxruntime.model.graph import Graph
    from optuna_quant.backends.onnxruntime.model.model import SourceModel


class OpenedModel:
    """The user's model in its forms, each of them made when it is first asked for.

    Args:
        source:
            The model as it was read.
    """

    def __init__(self, source: SourceModel) -> None:
        self.source = source

    @property
    def proto(self) -> onnx.ModelProto:
        """The model as the user gave it. Must not be changed."""
        return self.source.proto

    @property
    def base_dir(self) -> Path | None:
        """The directory that its external data are relative to; None if it has none."""
        return self.source.base_dir

    @cached_property
    def compact(self) -> CompactModel:
        """The model with its large initializers outside."""
        return compacted(self.proto)

    @cached_property
    def nbytes(self) -> int:
        """Its size, external data included."""
        return self.compact.nbytes + external_bytes(self.proto, self.base_dir)

    @cached_property
    def graph(self) -> Graph:
        """The model in normal form."""
        return normalize(self.source)
