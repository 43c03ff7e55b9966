"""Many orders of events: nothing is evaluated twice, whichever worker stands still."""

from __future__ import annotations

from collections import Counter
from functools import cache

from faults.simulation import Hazards
from faults.simulation import Simulation
import optuna
from optuna.trial import TrialState
import pytest
from spaces import make_space

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ConservativeQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.trial_view import TrialView


SEEDS = 5
SPACE = make_space(4)
LOSSES = {"op0": 0.02, "op1": 0.2, "op2": 0.03, "op3": 0.15}
CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.06)
SAMPLERS = {
    "basic": lambda: BasicQuantSampler(SPACE, criterion=CRITERION, claim_timeout=1e9),
    "waiting": lambda: BasicQuantSampler(
        SPACE, criterion=CRITERION, claim_timeout=1e9, when_blocked="wait"
    ),
    "conservative": lambda: ConservativeQuantSampler(
        SPACE, criterion=CRITERION, claim_timeout=1e9
    ),
    "exhaustive": lambda: ExhaustiveQuantSampler(SPACE, fallback=True, claim_timeout=1e9),
}


def metric(config: QuantConfig) -> float:
    return 1.0 - sum(LOSSES[op] for op in config.quantized_ops)


@cache
def undisturbed(name: str) -> set[str]:
    sampler = SAMPLERS[name]()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    while not sampler.is_exhausted(study):
        study.optimize(lambda trial: metric(SPACE.suggest(trial)), n_trials=1)
    return {SPACE.key_from_params(trial.params) for trial in study.trials}


def check(simulation: Simulation, name: str, sampler: QuantSampler) -> None:
    """What was promised holds."""
    study = simulation.study
    ours = [t for t in simulation.complete if TrialView(t).claim.stage != record.EXHAUSTED_STAGE]
    counts = Counter(SPACE.key_from_params(trial.params) for trial in ours)
    assert set(counts.values()) == {1}, counts
    assert undisturbed(name) <= set(counts)
    assert sampler.is_exhausted(study)
    states = {trial.number: trial.state for trial in study.trials}
    done = {trial.number for trial in simulation.complete}
    died = {e.number for e in simulation.evaluations if e.worker in simulation.dead}
    started = Counter(
        e.key for e in simulation.evaluations if e.number in done or e.number not in died
    )
    last = {SPACE.key_from_params(t.params) for t in simulation.complete if t not in ours}
    assert all(count == 1 for key, count in started.items() if key not in last), started
    # A worker that died before it could say whose its trial is leaves it running.
    for number, state in states.items():
        if state == TrialState.RUNNING:
            assert TrialView(study.trials[number]).worker is None
        if state == TrialState.FAIL:
            assert TrialView(study.trials[number]).worker in simulation.dead


HAZARDS = {
    "smooth": Hazards(stall=0.0),
    "stalls": Hazards(stall=0.05),
    "many stalls": Hazards(stall=0.3),
    "deaths": Hazards(stall=0.03, death=0.02, most_deaths=8),
}


@pytest.mark.parametrize("hazards", list(HAZARDS))
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_nothing_is_evaluated_twice(name: str, hazards: str) -> None:
    for seed in range(SEEDS):
        simulation = Simulation(SPACE, SAMPLERS[name], metric, seed, HAZARDS[hazards])
        with pytest.MonkeyPatch.context() as patch:
            simulation.run(3, patch)
        try:
            check(simulation, name, SAMPLERS[name]())
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def test_queued_trials_do_nothing_twice() -> None:
    # A trial from the queue has a lower number than trials that are at work already.
    hazards = Hazards(stall=0.3, longest=2.3, queued=0.3)
    for name, seed in [*(("exhaustive", seed) for seed in range(30)), ("basic", 23)]:
        simulation = Simulation(SPACE, SAMPLERS[name], metric, seed, hazards)
        with pytest.MonkeyPatch.context() as patch:
            simulation.run(4, patch)
        counts = Counter(
            SPACE.key_from_params(trial.params)
            for trial in simulation.complete
            if TrialView(trial).claim.stage != record.EXHAUSTED_STAGE
        )
        assert set(counts.values()) == {1}, (name, seed)
