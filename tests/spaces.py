"""Spaces and objectives that the tests share; no model is needed for them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import optuna

from optuna_quant.space.blocks import Block
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


ACT = TensorConfig("uint8")
KL = TensorConfig("uint8", algorithm="kl")
CHANNEL = TensorConfig("int8", "sym", "per_channel")
TENSOR = TensorConfig("int8", "sym", "per_tensor")

STATIC = OpConfig("static", ACT, CHANNEL)
STATIC_TENSOR = OpConfig("static", ACT, TENSOR)
STATIC_KL = OpConfig("static", KL, CHANNEL)
STATIC_16 = OpConfig("static", TensorConfig("uint16"), CHANNEL)
DYNAMIC = OpConfig("dynamic", ACT, CHANNEL)


def make_space(
    ops: int | Sequence[tuple[str, str]] = 4,
    options: Sequence[OpConfig] = (STATIC, FP32),
    **kwargs: object,
) -> TuningSpace:
    """A space of ops that all have the same options."""
    if isinstance(ops, int):
        ops = [(f"op{i}", "Conv") for i in range(ops)]
    tunables = tuple(Tunable(name, kind, (name,), tuple(options)) for name, kind in ops)
    return TuningSpace(tunables, **kwargs)


def blocks_of(space: TuningSpace) -> list[Block]:
    """Blocks of two ops each."""
    ops = [op for tunable in space.tunables for op in tunable.ops]
    pairs = zip(ops[::2], ops[1::2], strict=True)
    return [Block(f"b{i}", "f", pair) for i, pair in enumerate(pairs)]


def evaluated(study: optuna.Study, space: TuningSpace) -> list[QuantConfig]:
    """The configurations that a study's trials had, in the order of the trials."""
    return [
        space.config_from_params(trial.params)
        for trial in study.get_trials(deepcopy=False)
        if trial.params
    ]


def keys(study: optuna.Study, space: TuningSpace) -> list[str]:
    return [config.key for config in evaluated(study, space)]


def objective_of(
    space: TuningSpace, metric: Callable[[QuantConfig], float]
) -> Callable[[optuna.Trial], float]:
    return lambda trial: metric(space.suggest(trial))
