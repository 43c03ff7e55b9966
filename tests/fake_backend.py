"""A backend without a runtime: quantizing an op costs a known part of the accuracy.

It is the smallest whole backend, and knows nothing of ONNX.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spaces import STATIC

from optuna_quant.backends.base import OpRuns
from optuna_quant.backends.base import atomic_write
from optuna_quant.data.inputs import InputSpec
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


FP32_BYTES = 4000


def fake_data(samples: int) -> dict[str, NDArray[Any]]:
    """Labelled data on which a fake model has just its accuracy, if that is a multiple of 1/n."""
    x = (np.arange(samples)[:, None] + 0.5) / samples
    return {"x": x, "labels": np.ones(samples, np.int64)}


@dataclass(frozen=True)
class FakeModel:
    """What the fake backend builds: it tells class 1 where its input is below its accuracy."""

    config: QuantConfig
    accuracy: float
    fingerprint: str

    inputs = (InputSpec("x", np.dtype(np.float64), (None, 1)),)
    outputs = ("logits",)

    def run(
        self, feed: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        x = feed["x"]
        computed = {"logits": np.hstack([x, np.full_like(x, self.accuracy)])}
        return [computed[name] for name in outputs or self.outputs]

    @property
    def nbytes(self) -> int:
        """Every quantized op saves 100 bytes, the first one most."""
        ops = list(self.config.ops.values())
        return FP32_BYTES - sum(100 + (i == 0) for i, op in enumerate(ops) if op.is_quantized)

    def save(self, path: str | Path) -> None:
        atomic_write(path, self.config.to_json().encode())


class FakeBackend:
    """Quantizes nothing; the accuracy is that of FP32 less what each quantized op costs.

    Args:
        damage:
            What quantizing each op costs, by op name.
        fp32:
            The accuracy of FP32.
        options:
            The options of every op.
        duplicates:
            Ops that change nothing: their configuration is not in the fingerprint.
        name:
            The name of the model.
    """

    def __init__(
        self,
        damage: Mapping[str, float] | int = 4,
        *,
        fp32: float = 0.9,
        options: Sequence[OpConfig] = (STATIC, FP32),
        duplicates: Sequence[str] = (),
        name: str = "model",
    ) -> None:
        if isinstance(damage, int):
            damage = {f"op{i}": 0.0 for i in range(damage)}
        self.damage = dict(damage)
        self.fp32 = fp32
        self._options = tuple(options)
        self._duplicates = set(duplicates)
        self._name = name
        self.calls = Counter[str]()
        self.built: list[QuantConfig] = []
        self.before_build: Callable[[QuantConfig], None] = lambda config: None
        self._lock = threading.Lock()

    def capability(self) -> Capability:
        return Capability(tuple(OpCapability(name, "Conv", self._options) for name in self.damage))

    def tuning_space(self, **kwargs: object) -> TuningSpace:
        return TuningSpace.from_capability(self.capability(), **kwargs)

    def calibrate(self) -> None:
        self.calls["calibrate"] += 1

    def quantize(self, config: QuantConfig) -> FakeModel:
        for op, option in config.ops.items():
            if op not in self.damage:
                raise ValueError(f"The model has no op {op!r}; it has: {', '.join(self.damage)}.")
            if option not in (*self._options, FP32):
                raise ValueError(f"Op {op!r} cannot run as {option}.")
        for recipe in config.recipes:
            raise ValueError(f"There is no recipe {recipe!r}.")
        self.before_build(config)
        with self._lock:
            self.built.append(config)
        return FakeModel(config, self.accuracy(config), self.fingerprint(config))

    def accuracy(self, config: QuantConfig) -> float:
        lost = sum(self.damage[op] for op in config.quantized_ops)
        return round(self.fp32 - lost, 10)

    def fingerprint(self, config: QuantConfig) -> str:
        options = {op: config.ops.get(op, FP32) for op in self.damage}
        kept = [f"{op}={option}" for op, option in options.items() if op not in self._duplicates]
        return f"{self._name}:{bool(config.quantized_ops)}:{';'.join(kept)}"

    def executed(self, config: QuantConfig) -> dict[str, OpRuns]:
        return {
            op: OpRuns("QLinearConv" if option.is_quantized else "Conv")
            for op, option in config.ops.items()
        }


class CountingEvaluation:
    """Gives a fake model's accuracy, and counts how often each model was evaluated."""

    def __init__(self) -> None:
        self.seen: list[FakeModel] = []
        self._lock = threading.Lock()

    def __call__(self, model: FakeModel) -> float:
        with self._lock:
            self.seen.append(model)
        return model.accuracy

    @property
    def fp32_count(self) -> int:
        return sum(not model.config.quantized_ops for model in self.seen)

    def most_repeats(self) -> int:
        """How often the model that was evaluated most was evaluated."""
        return max(Counter(model.fingerprint for model in self.seen).values())
