"""The fake backend with all that one may offer on top."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
from typing import Any

from costed_backend import CostedBackend
from costed_backend import table
from fake_backend import FP32_BYTES
from fake_backend import fake_data
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_KL

from optuna_quant.backends.base import GraphNode
from optuna_quant.backends.base import Sensitivity
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.costs import CostTable
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


DAMAGE = {"a": 0.0, "b": 0.01, "c": 0.2}


def size_table(space: TuningSpace) -> CostTable:
    """What the files of fake models have."""
    rest = FP32_BYTES - 100 * len(space.tunables)
    return table(space, dict.fromkeys(DAMAGE, 0.0), measure="size", fixed=rest)


class Scores:
    """What ops lose, with all that a sensitivity may offer."""

    def __init__(self, samples: int = 64) -> None:
        self.samples = samples

    @property
    def key(self) -> str:
        return f"samples={self.samples}"

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        return {op: DAMAGE[op] * config.ops[op].is_quantized for op in ops}

    def score_options(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> Sequence[Mapping[str, float]]:
        return [self(config, ops) for config in configs]

    def score_with_weights(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> tuple[Sequence[Mapping[str, float]], Mapping[str, float]]:
        return self.score_options(configs, ops), dict.fromkeys(ops, 0.25)

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        return float(self.samples * (configs + 1 + with_weights))

    def with_samples(self, samples: int) -> Scores:
        return Scores(min(samples, self.samples))


class WholeBackend(CostedBackend):
    """The fake backend with all that one may offer on top.

    Args:
        data:
            Stands for the calibration data.
    """

    def __init__(self, data: str = "the data") -> None:
        options = (STATIC, STATIC_KL, DYNAMIC, FP32)
        quantized = dict.fromkeys(DAMAGE, 0.5)
        super().__init__(DAMAGE, quantized, sizes=dict.fromkeys(DAMAGE, 0.0), options=options)
        self._data = data
        self._statistics: bytes | None = None

    def fingerprint(self, config: QuantConfig) -> str:
        found = super().fingerprint(config)
        return f"{found}:{self._data}" if config.quantized_ops else found

    def calibrate(self) -> None:
        self._statistics = self._statistics or self._data.encode()

    def is_calibrated(self) -> bool:
        return self._statistics is not None

    def calibration_key(self) -> str:
        return self._data

    def export_calibration(self) -> bytes:
        self.calibrate()
        assert self._statistics is not None
        return hashlib.sha256(self._statistics).digest() + self._statistics

    def import_calibration(self, data: bytes) -> None:
        digest, statistics = data[:32], data[32:]
        if hashlib.sha256(statistics).digest() != digest:
            raise ValueError("These are no statistics, or they are damaged.")
        if statistics != self._data.encode():
            raise ValueError("These are the statistics of other data.")
        self._statistics = statistics

    def calibration_preview(self, samples: int) -> tuple[int, Sequence[Mapping[str, Any]]]:
        return samples, [{"x": fake_data(samples)["x"]}]

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        return {
            SensitivityKind.BEST: SensitivityFactory(self.scores),
            SensitivityKind.OP_ERROR: SensitivityFactory(self.scores),
        }

    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        return Scores()

    def graph_nodes(self) -> Sequence[GraphNode]:
        names = list(DAMAGE)
        return [
            GraphNode(name, "Conv", tuple(names[place - 1 : place]))
            for place, name in enumerate(names)
        ]

    def cost_conditions(self) -> Mapping[str, str]:
        return {"batch": "1", "threads": "1"}

    def signature(self) -> Mapping[str, str]:
        return {"calibration data": self._data}
