"""Quantization and an ordinary hyperparameter in one study: what to quantize, how much to prune.

Two objectives: the accuracy, and the share of the weights that is zero. The basic strategy chooses
how each op is quantized, and Optuna's TPE chooses the share. When a model meets the criterion, its
quantization is tried with the other shares. The criterion is a constraint of every trial, so
`study.best_trials` is the Pareto front of the quantized models that are good enough.

    python examples/mixed_study.py
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
import sys

import numpy as np
import onnx
from onnx import numpy_helper
import optuna
from optuna.trial import TrialState

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant import TuningSpace
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.selection import best_met_trial


DIGITS = Path(__file__).parent / "digits"
CALIBRATION = {"x": np.load(DIGITS / "calib.npz")["x"]}


def pruned(share: float) -> onnx.ModelProto:
    """The model with that share of each weight, the values nearest to zero, set to zero."""
    model = onnx.load(DIGITS / "model.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            weight = numpy_helper.to_array(tensor).copy()
            weight[np.abs(weight) < np.quantile(np.abs(weight), share)] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model


@cache
def backend(share: float) -> OnnxRuntimeBackend:
    """Builds the candidates from the pruned model; calibrated once for each share."""
    return OnnxRuntimeBackend(pruned(share), calibration_data=CALIBRATION)


def main() -> optuna.Study:
    sys.path.insert(0, str(DIGITS))
    from evaluate import accuracy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = backend(0.0).tuning_space()
    criterion = AccuracyCriterion(tolerable_loss=0.01)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        share = trial.suggest_float("pruned", 0.0, 0.3, step=0.05)
        config = space.suggest(trial)
        return accuracy(backend(share).session(config)), share

    sampler = BasicQuantSampler(
        space, criterion=criterion, independent_sampler=optuna.samplers.TPESampler(seed=0)
    )
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    # The first trial of the sampler is the FP32 model, the baseline: it must not be pruned.
    study.enqueue_trial({"pruned": 0.0})
    study.optimize(objective, callbacks=[ExitPolicy(criterion, max_trials=100)])
    found = best_met_trial(study, criterion)
    if found is None:
        print("No quantized model meets the criterion.")
        return study
    print(f"{len(study.trials)} trials:")
    show(space, found)

    quantization = {p.name: found.params[p.name] for p in space.parameters}
    for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
        study.enqueue_trial(quantization | {"pruned": share}, skip_if_exists=True)
    waiting = study.get_trials(states=[TrialState.WAITING])
    study.optimize(objective, n_trials=len(waiting))
    print(f"{len(study.trials)} trials, the best:")
    for trial in sorted(study.best_trials, key=lambda t: t.values[1]):
        show(space, trial)
    return study


def show(space: TuningSpace, trial: optuna.trial.FrozenTrial) -> None:
    metric, share = trial.values
    ops = ", ".join(space.config_from_params(trial.params).fallback_ops)
    print(f"  trial {trial.number}: accuracy {metric:.4f}, {share:.0%} pruned, in FP32: {ops}")


if __name__ == "__main__":
    main()
