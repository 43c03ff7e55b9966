"""Stop candidates as soon as they surely miss the criterion. Coin tosses stand in for models."""

from __future__ import annotations

import numpy as np
import optuna
import optunahub

from optuna_quant import AccuracyCriterion
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline


RIGHT = {"fp32": 0.90, "good": 0.899, "bad": 0.80}
SAMPLES, BATCH = 4000, 100
rng = np.random.default_rng(0)
draws = rng.random(SAMPLES)


def objective(trial: optuna.Trial) -> float:
    model = trial.suggest_categorical("model", list(RIGHT))
    right = draws < RIGHT[model]
    for seen in range(BATCH, SAMPLES + 1, BATCH):
        trial.report(float(right[:seen].mean()), step=seen)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(right.mean())


if __name__ == "__main__":
    module = optunahub.load_module(package="pruners/accuracy_criterion")
    criterion = AccuracyCriterion(higher_is_better=True, tolerable_loss=0.01)
    study = optuna.create_study(direction="maximize", pruner=module.AccuracyPruner(criterion))
    study.enqueue_trial({"model": "fp32"})
    study.optimize(objective, n_trials=1)
    set_baseline(study, Baseline(study.trials[0].value, trial=0))
    study.enqueue_trial({"model": "good"})
    study.enqueue_trial({"model": "bad"})
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        print(trial.params["model"], trial.state.name, trial.last_step)
