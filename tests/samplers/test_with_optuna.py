"""Our samplers and objective beside what Optuna brings: its pruners, its samplers, its queue."""

from __future__ import annotations

from collections.abc import Callable
import logging
import re

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant import AccuracyCriterion
from optuna_quant import ExitPolicy
from optuna_quant import QuantObjective
from optuna_quant.dashboard.overview import read_overview
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.report.collect import collect_recorded
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.samplers import TPEQuantSampler
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.space.config import FP32
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.criterion import recorded_criterion
from optuna_quant.tuning.status import status_of
import optuna_quant.visualization


CRITERION = AccuracyCriterion(tolerable_loss=0.05)
SAMPLERS = (BasicQuantSampler, TPEQuantSampler, RandomQuantSampler)


def backend() -> FakeBackend:
    return FakeBackend({"op0": 0.1, "op1": 0.01, "op2": 0.0})


def study_of(sampler: optuna.samplers.BaseSampler, **kwargs: object) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler, **kwargs)


@pytest.mark.parametrize("reports", [False, True], ids=["objective of ours", "own, reporting"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hyperband(sampler: Callable[..., QuantSampler], reports: bool) -> None:
    damage = {"op0": 0.1, "op1": 0.01, "op2": 0.0}
    quantizer = FakeBackend(damage, options=(STATIC, STATIC_TENSOR, DYNAMIC, FP32))
    space = quantizer.tuning_space()
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    # By the name Hyperband chooses the bracket of each trial.
    study = study_of(sampler(space, criterion=CRITERION), pruner=pruner, study_name="hyperband")

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
    assert study.trials[0].constraints["quantized"] == 1


def test_grid_sampler_runs_our_objective() -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    grid = {name: list(d.choices) for name, d in space.distributions().items()}
    study = study_of(optuna.samplers.GridSampler(grid))
    study.optimize(QuantObjective(quantizer, space, CountingEvaluation(), CRITERION))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * space.size
    assert len({space.key_from_params(trial.params) for trial in study.trials}) == space.size
    assert study.best_trial.constraints["accuracy"] == pytest.approx(-0.045)


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.RandomSampler(seed=0),
        optuna.samplers.TPESampler(seed=0),
        optuna.samplers.NSGAIISampler(seed=0),
        optuna.samplers.BruteForceSampler(seed=0),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_samplers_of_optuna_run_our_objective(sampler: optuna.samplers.BaseSampler) -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    study = study_of(sampler)
    evaluation = CountingEvaluation()
    study.optimize(QuantObjective(quantizer, space, evaluation, CRITERION), n_trials=12)
    baseline = get_baseline(study)
    assert baseline is not None and baseline.value == 0.9
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert evaluation.most_repeats() == 1
    assert space.config_from_params(study.best_trial.params).quantized_ops


def test_median_pruner() -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    study = study_of(BasicQuantSampler(space, criterion=CRITERION), pruner=pruner)

    def reporting(trial: optuna.Trial) -> float:
        accuracy = quantizer.accuracy(space.suggest(trial))
        trial.report(accuracy, 1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return accuracy

    study.optimize(reporting, n_trials=20)
    states = [trial.state for trial in study.trials]
    assert {*states} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.sampler.is_exhausted(study)


# Studies whose objective is one's own: what the sampler and the exit policy record, refuse, say.


def own(trial: optuna.Trial) -> float:
    quantizer = backend()
    return quantizer.accuracy(quantizer.tuning_space().suggest(trial))


def own_with_size(trial: optuna.Trial) -> tuple[float, int]:
    quantizer = backend()
    model = quantizer.quantize(quantizer.tuning_space().suggest(trial))
    return model.accuracy, model.nbytes


def basic(**kwargs: object) -> BasicQuantSampler:
    return BasicQuantSampler(backend().tuning_space(), **kwargs)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    return lambda: [
        each.getMessage() for each in caplog.records if each.levelno == logging.WARNING
    ]


def test_sampler_records_its_criterion_at_the_first_trial() -> None:
    study = study_of(basic(criterion=CRITERION))
    assert recorded_criterion(study) is None
    study.optimize(own, n_trials=1)
    assert recorded_criterion(study) == CRITERION
    assert status_of(study).criterion == str(CRITERION)
    # That of the study stays: it is what its trials were judged by.
    study.sampler = basic(criterion=AccuracyCriterion(tolerable_loss=0.2))
    study.optimize(own, n_trials=1)
    assert recorded_criterion(study) == CRITERION


def test_exit_policy_records_the_criterion_where_the_sampler_has_none() -> None:
    study = study_of(basic())
    study.optimize(own, n_trials=1)
    assert status_of(study).criterion.startswith("none recorded")
    study.optimize(own, n_trials=1, callbacks=[ExitPolicy(CRITERION)])
    assert recorded_criterion(study) == CRITERION


def test_forgotten_direction_is_refused_by_the_sampler() -> None:
    study = optuna.create_study(sampler=basic(criterion=CRITERION))
    with pytest.raises(ValueError, match="'minimize'.* must be 'maximize'"):
        study.optimize(own, n_trials=1)
    both = optuna.create_study(
        directions=["minimize", "minimize"], sampler=basic(criterion=CRITERION)
    )
    needed = re.escape("directions=['maximize', 'minimize'], the metric first")
    with pytest.raises(ValueError, match=f"first direction 'minimize'.*{needed}"):
        both.optimize(own_with_size, n_trials=1)


@pytest.mark.parametrize("knows", [True, False], ids=["criterion of the sampler", "no criterion"])
def test_study_with_two_objectives_can_be_read(knows: bool) -> None:
    sampler = basic(criterion=CRITERION if knows else None)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(own_with_size, n_trials=6)
    status = status_of(study)
    assert status.outcome == "met"
    assert status.criterion.startswith("at most 5%" if knows else "none recorded")
    assert collect_recorded(study).criterion.tolerable_loss == (0.05 if knows else 0.01)
    assert read_overview(study).best is not None
    assert optuna_quant.visualization.plot_tradeoff(study).data


def test_objective_of_one_value_refuses_a_study_with_two() -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    study = optuna.create_study(directions=["maximize", "minimize"])
    objective = QuantObjective(quantizer, space, CountingEvaluation(), CRITERION)
    with pytest.raises(ValueError, match=r"has 2 objectives.*ParetoObjective"):
        study.optimize(objective, n_trials=1)
    assert quantizer.built == []


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("sampler", [*SAMPLERS, ExhaustiveQuantSampler])
def test_sampler_with_nothing_left_stops_the_study(
    sampler: Callable[..., QuantSampler], n_jobs: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="optuna_quant")
    space = backend().tuning_space()
    study = study_of(sampler(space, criterion=CRITERION))
    study.optimize(own, n_trials=30, n_jobs=n_jobs)
    assert study.sampler.is_exhausted(study)
    if n_jobs == 1:
        keys = [space.key_from_params(trial.params) for trial in study.trials]
        assert len(keys) == len(set(keys)) < 30
    assert len(study.trials) <= space.size + n_jobs - 1
    assert any("nothing left that is worth a trial" in message for message in caplog.messages)


def test_queue_is_worked_off_before_the_study_is_stopped() -> None:
    space = backend().tuning_space()
    sampler = ExhaustiveQuantSampler(space, criterion=CRITERION)
    study = study_of(sampler)
    study.optimize(own, n_trials=30)
    before = len(study.trials)
    for index in (1, 2, 3):
        study.enqueue_trial(space.params_of(space.config_at(index)))
    study.optimize(own, n_trials=30)
    assert len(study.trials) == before + 3


def test_exhausted_sampler_can_be_asked_and_told() -> None:
    space = backend().tuning_space()
    study = study_of(ExhaustiveQuantSampler(space))
    for _ in range(space.size + 1):
        trial = study.ask()
        study.tell(trial, own(trial))
    assert study.sampler.is_exhausted(study)


def test_trial_that_ends_otherwise_than_expected_is_read_again() -> None:
    sampler = ExhaustiveQuantSampler(backend().tuning_space(), criterion=CRITERION)
    study = study_of(sampler)
    trial = study.ask()
    value = own(trial)
    study.tell(trial, value)
    trial = study.ask()
    own(trial)
    frozen = study.trials[1]
    sampler.after_trial(study, frozen, TrialState.COMPLETE, [0.9])
    assert sampler.is_exhausted(study)
    study.tell(1, state=TrialState.FAIL)  # Not so, after all.
    sampler.is_exhausted(study)
    assert not sampler.is_exhausted(study)


def test_sampler_and_objective_of_different_spaces() -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    study = study_of(BasicQuantSampler(make_space(7)))
    objective = QuantObjective(quantizer, space, CountingEvaluation(), CRITERION)
    with pytest.raises(ValueError) as caught:
        study.optimize(objective, n_trials=1)
    message = str(caught.value)
    assert "sampler has another tuning space than the objective: it has op 'op3'" in message
    assert "3 more differences" in message and "give it to both" in message
    assert len(message) < 250


def test_sampler_of_another_space_beside_ones_own_objective_is_told_once(
    told: Callable[[], list[str]],
) -> None:
    study = study_of(BasicQuantSampler(make_space([("a", "Conv")])))
    study.optimize(own, n_trials=3)
    (message,) = told()
    assert "lack 'quant.op:a'" in message


def test_misspelled_name_in_the_queue_is_told_with_the_nearest(
    told: Callable[[], list[str]],
) -> None:
    study = study_of(basic())
    study.enqueue_trial({"quant.op:opp1": "fp32", "lr": 0.1})
    study.optimize(lambda trial: own(trial) + 0 * trial.suggest_float("lr", 0, 1), n_trials=2)
    (message,) = told()
    assert "'quant.op:opp1' (did you mean 'quant.op:op1'?)" in message
    assert "lr" not in message


def test_trials_of_another_search_do_not_count(told: Callable[[], list[str]]) -> None:
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1) + 5, n_trials=3)
    assert status_of(study).outcome == "no search of optuna_quant"
    study.sampler = basic(criterion=CRITERION)
    study.optimize(own, n_trials=4)
    (message,) = told()
    assert message.startswith("3 of the 3 trials so far") and "'lr'" in message
    status = status_of(study)
    assert (status.trials, status.evaluated) == (4, 3)
    assert best_met_trial(study, CRITERION).number >= 3


def test_study_of_another_search_cannot_be_plotted() -> None:
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=3)
    plots = optuna_quant.visualization
    for draw in (plots.plot_tradeoff, plots.plot_confidence_sequence, plots.plot_cost_prediction):
        with pytest.raises(ValueError, match="none of its 3 trials has a parameter of a tuning"):
            draw(study)


def test_values_that_depend_on_other_parameters_are_told(
    told: Callable[[], list[str]],
) -> None:
    quantizer = backend()
    space = quantizer.tuning_space()
    study = study_of(BasicQuantSampler(space, criterion=CRITERION))
    study.optimize(lambda trial: own(trial) + 0 * trial.suggest_float("lr", 0, 1), n_trials=3)
    study.optimize(QuantObjective(quantizer, space, CountingEvaluation(), CRITERION), n_trials=1)
    (message,) = told()
    assert "also has the parameters 'lr', which QuantObjective ignores" in message


def test_accuracy_pruner_says_once_that_it_has_no_baseline(
    told: Callable[[], list[str]],
) -> None:
    study = study_of(optuna.samplers.RandomSampler(seed=0), pruner=AccuracyPruner(CRITERION))

    def reporting(trial: optuna.Trial) -> float:
        value = own(trial)
        trial.report(value, 10)
        assert not trial.should_prune()
        return value

    study.optimize(reporting, n_trials=4)
    (message,) = told()
    assert "AccuracyPruner prunes nothing" in message and "no baseline" in message
