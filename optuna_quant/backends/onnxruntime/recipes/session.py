"""The recipe ``graph_optimization_level``."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
from types import MappingProxyType
from typing import TYPE_CHECKING

import onnxruntime

from optuna_quant.backends.onnxruntime.recipes.recipe import SessionRecipe


if TYPE_CHECKING:
    from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
    from optuna_quant.backends.onnxruntime.recipes.recipe import ModelFacts


LEVELS: Mapping[str, onnxruntime.GraphOptimizationLevel] = MappingProxyType(
    {
        "disable_all": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "enable_basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "enable_extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "enable_all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }
)
"""The levels of graph optimization by the names that ONNX Runtime has for them."""

_IN_FILES: Mapping[str, int] = MappingProxyType(
    {"disable_all": 0, "enable_basic": 1, "enable_extended": 2, "enable_all": 99}
)
_CONFIG_KEY = "ort_config"
"""The entry of a model's metadata from which ONNX Runtime takes session options."""


class OptimizationLevel(SessionRecipe):
    """How far the runtime optimizes the graphs of candidates; integer kernels need the two last.

    The default is what the session options say. A model keeps its level: its sessions have it,
    and its file names it in the metadata, where ONNX Runtime reads it if the environment variable
    ``ORT_LOAD_CONFIG_FROM_MODEL`` is 1. Set it before another session of the file is made.
    """

    name = "graph_optimization_level"
    default = "default"
    in_all = False

    def offered(self, args: Mapping[str, object]) -> tuple[str, ...]:
        return (self.default, *LEVELS)

    def distinct(self, values: tuple[str, ...], facts: ModelFacts) -> tuple[str, ...]:
        # The level of the session options is the default by another name.
        usual = [name for name, level in LEVELS.items() if level == facts.level]
        hidden = usual if self.default in values else []
        return tuple(value for value in values if value not in hidden)

    def choices(self, given: object) -> Sequence[object]:
        items = given if isinstance(given, (list, tuple)) else [given]
        for item in items:
            if isinstance(item, bool):
                raise ValueError(f"there is no value {item!r}: {self._values}")
        return [_name_of(item) for item in items]

    def check(self, value: str) -> None:
        if value != self.default and value not in LEVELS:
            raise ValueError(self._values)

    @property
    def _values(self) -> str:
        return f"its values are {', '.join(map(repr, (self.default, *LEVELS)))}"

    def sessions(self, sessions: SessionMaker, value: str) -> SessionMaker:
        return sessions.at_level(LEVELS[value])

    def metadata(self, value: str) -> Mapping[str, str]:
        options = {"session_options": {"graph_optimization_level": _IN_FILES[value]}}
        return {_CONFIG_KEY: json.dumps(options)}


def _name_of(level: object) -> object:
    """The label of a level as users of neural-compressor or of ONNX Runtime write it."""
    if isinstance(level, onnxruntime.GraphOptimizationLevel):
        level = level.name
    return level.lower().removeprefix("ort_") if isinstance(level, str) else level
