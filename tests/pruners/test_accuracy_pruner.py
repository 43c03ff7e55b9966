"""The exact accuracy pruner: never wrong, and early where it can be."""

from __future__ import annotations

import math

import numpy as np
import optuna
from optuna.trial import TrialState
import pytest
from spaces import make_space

from optuna_quant.config import QuantConfig
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import ExhaustiveQuantSampler


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def run(
    right: dict[tuple[str, ...], np.ndarray],
    criterion: AccuracyCriterion = CRITERION,
    *,
    report_baseline: bool = True,
) -> optuna.Study:
    """A study of two ops; the scores of each configuration's samples, by its fallback ops."""
    space = make_space(2)
    study = optuna.create_study(
        direction=criterion.direction,
        sampler=ExhaustiveQuantSampler(space, fallback=True),
        pruner=AccuracyPruner(criterion),
    )

    def objective(trial: optuna.Trial) -> float:
        config: QuantConfig = space.suggest(trial)
        scores = right[config.fallback_ops]
        for seen in range(10, len(scores) + 1, 10):
            if report_baseline or config.quantized_ops:
                trial.report(float(scores[:seen].mean()), step=seen)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(scores.mean())

    study.optimize(objective, n_trials=4)
    return study


def scores(wrong_first: int) -> np.ndarray:
    found = np.ones(100)
    found[:wrong_first] = 0
    return found


RIGHT = {
    ("op0", "op1"): scores(0),
    (): scores(50),
    ("op0",): scores(10),
    ("op1",): scores(11),
}


def test_prunes_as_soon_as_the_rest_cannot_help() -> None:
    study = run(RIGHT)
    states = {t.value: (t.state, t.last_step) for t in study.trials}
    assert study.trials[0].state == TrialState.COMPLETE
    # 11 wrong are too many; that is known after 20 samples, the first look behind the 11th.
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert [t.last_step for t in pruned] == [20, 20], states


def test_equality_is_not_pruned() -> None:
    study = run(RIGHT)
    complete = [t.value for t in study.trials if t.state == TrialState.COMPLETE]
    assert sorted(complete) == [0.9, 1.0]


def test_lower_is_better() -> None:
    criterion = AccuracyCriterion(higher_is_better=False, criterion="absolute", tolerable_loss=0.1)
    study = run({ops: 1 - found for ops, found in RIGHT.items()}, criterion)
    assert [t.state for t in study.trials].count(TrialState.PRUNED) == 2


def test_without_the_size_of_the_data_nothing_is_pruned() -> None:
    study = run(RIGHT, report_baseline=False)
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bad_bounds(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="two different finite numbers"):
        AccuracyPruner(CRITERION, bounds=bounds)
