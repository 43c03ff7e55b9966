"""Our samplers and objective beside what Optuna brings: its pruners, its samplers, its queue."""

from __future__ import annotations

from collections.abc import Callable

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
import pytest

from optuna_quant import AccuracyCriterion
from optuna_quant import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import TPEQuantSampler
from optuna_quant.study.baseline import get_baseline


CRITERION = AccuracyCriterion(tolerable_loss=0.05)
SAMPLERS = (BasicQuantSampler, TPEQuantSampler, RandomQuantSampler)


def backend() -> FakeBackend:
    return FakeBackend({"op0": 0.1, "op1": 0.01, "op2": 0.0})


def study_of(sampler: optuna.samplers.BaseSampler, **kwargs: object) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler, **kwargs)


@pytest.mark.parametrize("reports", [False, True], ids=["objective of ours", "own, reporting"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hyperband(sampler: Callable[..., QuantSampler], reports: bool) -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    study = study_of(sampler(space, criterion=CRITERION), pruner=pruner)

    def reporting(trial: optuna.Trial) -> float:
        accuracy = quantizer.accuracy(space.suggest(trial))
        for step in range(1, 10):
            trial.report(accuracy - 0.1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    ours = QuantObjective(quantizer, space, CountingEvaluation(), CRITERION)
    study.optimize(reporting if reports else ours, n_trials=8)
    assert get_baseline(study) is not None
    # All trials are seen, not only those of a trial's own bracket: nothing comes twice.
    keys = [space.key_from_params(trial.params) for trial in study.trials]
    assert len(keys) == len(set(keys)) == 8
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert any(trial.state == TrialState.PRUNED for trial in study.trials) == reports
    assert study.best_trial.constraints["accuracy"] <= 0


def test_grid_sampler_runs_our_objective() -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    grid = {name: list(d.choices) for name, d in space.distributions().items()}
    study = study_of(optuna.samplers.GridSampler(grid))
    study.optimize(QuantObjective(quantizer, space, CountingEvaluation(), CRITERION))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * space.size
    assert len({space.key_from_params(trial.params) for trial in study.trials}) == space.size
    assert study.best_trial.constraints["accuracy"] == pytest.approx(-0.045)
