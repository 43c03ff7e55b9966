"""What a user writes, for the type checker: it is not run."""

from __future__ import annotations

from typing import assert_type

import optuna

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant import QuantConfig
from optuna_quant import TuningResult
from optuna_quant import TuningSpace
from optuna_quant import tune
from optuna_quant.samplers import BasicQuantSampler


def search(space: TuningSpace) -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        return float(len(assert_type(space.suggest(trial), QuantConfig).quantized_ops))

    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    study.optimize(objective, callbacks=[ExitPolicy(AccuracyCriterion(), max_trials=3)])
    return study


result = tune("model.onnx", evaluate=lambda session: 0.9, max_trials=10)
assert_type(result, TuningResult)
assert_type(result.met, bool)
assert_type(result.config, QuantConfig | None)
