"""Synthetic spaces for benchmarks of the samplers."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


ACTIVATION = TensorConfig("uint8")
OPTIONS = (
    OpConfig("static", ACTIVATION, TensorConfig("int8", "sym", "per_channel")),
    OpConfig("static", ACTIVATION, TensorConfig("int8", "sym", "per_tensor")),
    OpConfig(
        "static", TensorConfig("uint8", algorithm="kl"), TensorConfig("int8", "sym", "per_channel")
    ),
    FP32,
)


def make_space(ops: int) -> TuningSpace:
    tunables = tuple(
        Tunable(name, "Conv", (name,), OPTIONS) for name in (f"op{i}" for i in range(ops))
    )
    return TuningSpace(tunables)


def metric(config: QuantConfig) -> float:
    """Each quantized op takes its own loss, which depends on its number."""
    return 1.0 - sum((int(op[2:]) * 41 % 97) * 1e-5 for op in config.quantized_ops)


def objective_of(space: TuningSpace) -> Callable[[optuna.Trial], float]:
    return lambda trial: metric(space.suggest(trial))
