"""Which of six layers can be INT8? A table of losses stands in for a model."""

from __future__ import annotations

import optuna
import optunahub

from optuna_quant import OpConfig
from optuna_quant import TuningSpace
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability


LOSS = {"conv1": 0.03, "conv2": 0.001, "conv3": 0.0, "conv4": 0.02, "conv5": 0.001, "fc": 0.0}
INT8 = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax")
FP32 = OpConfig.from_label("fp32")

ops = tuple(OpCapability(name, "Conv", (INT8, FP32)) for name in LOSS)
space = TuningSpace.from_capability(Capability(ops))


def objective(trial: optuna.Trial) -> float:
    config = space.suggest(trial)
    accuracy = 0.9 - sum(LOSS[op] for op in config.quantized_ops)
    trial.set_constraint("accuracy", 0.89 - accuracy)
    trial.set_constraint("quantized", 0.0 if config.quantized_ops else 1.0)
    return accuracy


if __name__ == "__main__":
    module = optunahub.load_module(package="samplers/accuracy_aware_quantization")
    study = optuna.create_study(direction="maximize", sampler=module.BasicQuantSampler(space))
    study.optimize(objective, n_trials=30)
    feasible = [t for t in study.trials if all(c <= 0 for c in t.constraints.values())]
    best = max(feasible, key=lambda t: len(space.config_from_params(t.params).quantized_ops))
    print("in FP32:", ", ".join(space.config_from_params(best.params).fallback_ops))
