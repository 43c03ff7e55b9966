"""When a study stops, and which of its trials is the answer."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
from datetime import UTC
from datetime import datetime
from datetime import timedelta
import logging
import math
import pickle
import threading
import warnings

from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
from optuna.trial import TrialState
import pytest

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import Progress
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.spent import busy_seconds
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.selection.answer import closest_trial
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def add(
    study: optuna.Study,
    value: float | None = None,
    *,
    state: TrialState = TrialState.COMPLETE,
    stage: str | None = None,
    provisional: bool = False,
    fallback: int | None = None,
    size: int | None = None,
    quantized: bool = True,
    reused_from: int | None = None,
    span: tuple[float, float] | None = None,
) -> None:
    """Add a trial to a study; its time is in seconds after noon."""
    number = len(study.get_trials(deepcopy=False))
    system_attrs: dict[str, object] = {}
    if stage is not None:
        claim = record.Claim(number, f"key{number}", stage, "worker", provisional)
        system_attrs[record.CLAIM] = claim.to_attr()
    user_attrs = {
        record.FALLBACK_OPS: fallback,
        record.MODEL_BYTES: size,
        record.REUSED_FROM: reused_from,
    }
    trial = optuna.trial.create_trial(
        state=state,
        value=value,
        constraints={} if quantized else {record.QUANTIZED: 1.0},
        user_attrs={k: v for k, v in user_attrs.items() if v is not None},
        system_attrs=system_attrs,
    )
    if span is not None:
        trial.datetime_start = NOON + timedelta(seconds=span[0])
        trial.datetime_complete = NOON + timedelta(seconds=span[1])
    study.add_trial(trial)


def new_study(baseline: float | None = 0.9, direction: str = "maximize") -> optuna.Study:
    """A study that begins with its baseline."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler())
    if baseline is not None:
        add(study, baseline, stage=record.BASELINE_STAGE, quantized=False, span=(0, 1))
        set_baseline(study, Baseline(baseline, 0))
    return study


# Stop at the first success.


def test_timeout_zero_stops_at_the_first_that_meets() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION)
    assert policy.decide(study) is None  # The baseline is no answer.
    add(study, 0.79)
    assert policy.decide(study) is None
    add(study, 0.8, fallback=1)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MET == "met"
    assert stop.message == "Trial 2 meets the criterion, with 1 op in fallback."


@pytest.mark.parametrize("timeout", [0, 1])
def test_latency_names_no_best_trial_since_it_is_measured_later(timeout: float) -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, timeout=timeout, objective="latency")
    add(study, 0.8, fallback=1, span=(1, 2))
    stop = policy.decide(study)
    assert stop is not None
    assert stop.message.endswith("1 trial meets the criterion.")
    add(study, 0.9, fallback=0, span=(2, 3))
    stop = policy.decide(study)
    assert stop is not None
    assert stop.message.endswith("2 trials meet the criterion.")


@pytest.mark.parametrize(
    ("most", "text"), [(1, "The one trial is used up. "), (2, "All 2 trials are used up. ")]
)
def test_limit_of_trials_is_said_in_the_right_number(most: int, text: str) -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, max_trials=most)
    for _ in range(most):
        add(study, 0.1)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.message.startswith(text)


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_the_end_is_logged_once_however_many_threads_there_are(
    n_jobs: int, caplog: pytest.LogCaptureFixture
) -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, max_trials=4)
    together = threading.Barrier(n_jobs)

    def objective(trial: optuna.Trial) -> float:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=0.2)
        return 0.1

    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.INFO):
            for _ in range(2):  # A second call says why it ends at once.
                caplog.clear()
                study.optimize(objective, n_jobs=n_jobs, callbacks=[policy])
                said = [r for r in caplog.records if "are used up" in r.getMessage()]
                assert len(said) == 1
    finally:
        optuna.logging.disable_propagation()


def test_a_policy_can_be_sent_to_other_processes() -> None:
    policy = pickle.loads(pickle.dumps(ExitPolicy(CRITERION, max_trials=3)))
    assert policy.criterion == CRITERION
    study = new_study()
    study.optimize(lambda trial: 0.1, callbacks=[policy])
    assert len(study.trials) == 1 + 3


def test_model_without_quantized_op_is_no_answer() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION)
    add(study, 0.9, quantized=False)
    assert policy.decide(study) is None


def test_provisional_success_is_no_answer_but_is_not_forgotten() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, max_trials=2)
    add(study, 0.9, stage="one type", provisional=True, fallback=7)
    assert policy.decide(study) is None
    add(study, 0.1, stage="two types", provisional=True)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MAX_TRIALS
    assert "trial 1, with 7 ops in fallback" in stop.message


def test_strategy_says_what_its_answer_is() -> None:
    class Sampler(optuna.samplers.RandomSampler):
        """Calls one trial its answer."""

        def is_answer(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return trial.number == 2

    study, policy = new_study(), ExitPolicy(CRITERION)
    study.sampler = Sampler()
    add(study, 0.9, stage="on its way")
    assert policy.decide(study) is None
    add(study, 0.9, stage="concluded", provisional=True)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MET


@pytest.mark.parametrize("stage", [None, record.ENQUEUED_STAGE, record.EXHAUSTED_STAGE])
def test_trial_that_is_no_step_of_a_strategy_is_an_answer(stage: str | None) -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3})
    study, policy = new_study(), ExitPolicy(CRITERION)
    study.sampler = BasicQuantSampler(backend.tuning_space())
    add(study, 0.9, stage=stage)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MET


def test_pruned_and_failed_trials_meet_nothing() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION)
    add(study, state=TrialState.FAIL)
    add(study, state=TrialState.PRUNED)
    assert policy.decide(study) is None


def test_nothing_is_met_without_a_baseline_and_the_user_is_told() -> None:
    study, policy = new_study(baseline=None), ExitPolicy(CRITERION)
    assert policy.decide(study) is None
    add(study, 0.9)
    with pytest.warns(UserWarning, match="The study has no baseline"):
        assert policy.decide(study) is None
    study.ask()  # It may be measuring the baseline.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert policy.decide(study) is None


def test_tolerance_can_be_moved_afterwards() -> None:
    study = new_study()
    add(study, 0.85)
    strict = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)
    assert ExitPolicy(strict).decide(study) is None
    assert ExitPolicy(CRITERION).decide(study) is not None


def test_lower_is_better() -> None:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1, higher_is_better=False)
    study, policy = new_study(0.5, "minimize"), ExitPolicy(criterion)
    add(study, 0.61)
    assert policy.decide(study) is None
    add(study, 0.6)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MET


# Time.


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(0, 3)], 3),
        ([(0, 3), (3, 5)], 5),
        ([(0, 3), (1, 5)], 5),  # Two workers.
        ([(0, 9), (1, 5), (2, 3)], 9),
        ([(0, 3), (100, 105)], 8),  # A break of a night.
        ([(100, 105), (0, 3)], 8),
        ([(0, 3), (0, 3), (0, 3)], 3),
    ],
)
def test_busy_seconds_is_the_time_in_which_something_ran(
    spans: Sequence[tuple[float, float]], seconds: float
) -> None:
    study = new_study(baseline=None)
    for span in spans:
        add(study, 0.1, span=span)
    assert busy_seconds(study.trials) == seconds


def test_busy_seconds_leaves_out_what_has_not_ended() -> None:
    study = new_study(baseline=None)
    study.ask()
    study.enqueue_trial({})
    assert busy_seconds(study.trials) == 0


def test_timeout_searches_on_after_a_success() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, timeout=10)
    add(study, 0.9, fallback=3, span=(1, 4))
    assert policy.decide(study) is None
    assert policy.seconds_left(study) == 6
    add(study, 0.8, fallback=0, span=(1000, 1005.9))
    assert policy.decide(study) is None
    add(study, 0.1, span=(2000, 2000.2))
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.TIMEOUT
    assert "trial 2, with no ops in fallback" in stop.message
    assert policy.seconds_left(study) == 0


def test_timeout_is_the_end_also_if_nothing_is_met() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, timeout=10)
    add(study, 0.1, span=(0, 20))
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.TIMEOUT
    assert "No quantized model meets the criterion." in stop.message


def test_timeout_can_be_had_together_with_stop_at_first() -> None:
    policy = ExitPolicy(CRITERION, timeout=10, stop_at_first=True)
    study = new_study()
    add(study, 0.8, span=(1, 2))
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MET
    study = new_study()
    add(study, 0.1, span=(1, 20))
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.TIMEOUT


# Trials.


def test_trials_are_counted_over_the_whole_study() -> None:
    study = new_study()
    add(study, 0.1)
    add(study, state=TrialState.FAIL)
    add(study, state=TrialState.PRUNED)
    add(study, 0.1, reused_from=1)  # Cost nothing.
    study.enqueue_trial({})
    study.ask()
    study.ask()
    assert trials_used(study.trials) == 3
    assert ExitPolicy(CRITERION, max_trials=4).decide(study) is None
    assert ExitPolicy(CRITERION, max_trials=4).trials_left(study) == 1
    stop = ExitPolicy(CRITERION, max_trials=3).decide(study)
    assert stop is not None
    assert stop.reason == StopReason.MAX_TRIALS
    assert ExitPolicy(CRITERION, max_trials=2).trials_left(study) == 0


def test_trial_that_was_interrupted_does_not_count() -> None:
    def interrupt(model: FakeModel) -> float:
        if model.config.quantized_ops:
            raise KeyboardInterrupt
        return model.accuracy

    def fail(model: FakeModel) -> float:
        if model.config.quantized_ops:
            raise RuntimeError("broken")
        return model.accuracy

    backend = FakeBackend(2)
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    with pytest.raises(KeyboardInterrupt):
        study.optimize(QuantObjective(backend, space, interrupt, CRITERION), n_trials=2)
    assert study.trials[-1].state == TrialState.FAIL
    assert trials_used(study.trials) == 0
    study.optimize(QuantObjective(backend, space, fail, CRITERION), n_trials=1)
    assert study.trials[-1].state == TrialState.FAIL
    assert trials_used(study.trials) == 1


@pytest.mark.parametrize("works", [False, True])
def test_message_says_why_every_evaluation_failed(works: bool) -> None:
    def evaluate(model: FakeModel) -> float:
        worked = works and len(model.config.fallback_ops) == 1
        return 0.9 if not model.config.quantized_ops else 0.1 if worked else math.nan

    backend = FakeBackend(3)
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    policy = ExitPolicy(CRITERION, max_trials=4 if works else 2)
    study.optimize(QuantObjective(backend, space, evaluate, CRITERION), callbacks=[policy])
    message = study.user_attrs[record.STOPPED_BECAUSE]["message"]
    assert "No quantized model meets the criterion." in message
    if works:
        assert "failed" not in message
    else:
        reason = study.trials[-1].user_attrs[record.FAILURE]
        assert "NaN" in reason
        assert message.endswith(f"Every evaluation failed. The last reason: {reason}")


def test_message_without_a_reason_why_every_evaluation_failed() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, max_trials=2)
    add(study, state=TrialState.FAIL)
    add(study, state=TrialState.FAIL)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.message.endswith("Every evaluation failed.")


def test_no_limit_of_trials() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, timeout=None, max_trials=None)
    for _ in range(300):
        add(study, 0.1)
    assert policy.decide(study) is None
    assert policy.trials_left(study) is None
    assert policy.seconds_left(study) is None


def test_sampler_that_only_repeats_ends_and_says_so() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION, max_trials=50)
    add(study, 0.1)
    for _ in range(999):
        add(study, 0.1, reused_from=1)
    assert policy.decide(study) is None
    add(study, 0.1, reused_from=1)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason == StopReason.EXHAUSTED
    assert "last 1000 configurations gave models that had been evaluated before" in stop.message


def test_end_of_a_strategy_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The sampler says it in any study; the policy adds which trial is the best."""
    caplog.set_level(logging.INFO, logger="optuna_quant")
    backend = FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3})
    space = backend.tuning_space()
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, criterion=CRITERION)
    )

    def own(trial: optuna.Trial) -> float:
        return backend.quantize(space.suggest(trial)).accuracy

    study.optimize(own, callbacks=[ExitPolicy(CRITERION, timeout=None)])
    said = [m for m in caplog.messages if "nothing left" in m]
    assert len(said) == 1
    assert said[0].startswith("BasicQuantSampler sees nothing left that is worth a trial")
    assert caplog.messages[-1].startswith("The best that meets the criterion is trial")
    stored = study.user_attrs[record.STOPPED_BECAUSE]["message"]
    assert "nothing left that is worth a trial" in stored


def test_a_trial_after_the_end_of_a_strategy_is_told_as_such() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3})
    space = backend.tuning_space()
    study = optuna.create_study(
        direction="maximize", sampler=BasicQuantSampler(space, criterion=CRITERION)
    )
    objective = QuantObjective(backend, space, CountingEvaluation(), CRITERION)
    study.optimize(objective)
    study.optimize(objective, n_trials=1)
    line = Progress(ExitPolicy(CRITERION)).line(study, study.trials[-1])
    assert f"trial {study.trials[-1].number} (after the end of the strategy) | " in line
    assert "nothing" not in line


def test_plan_that_is_carried_out_stops_the_study() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3})
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    policy = ExitPolicy(CRITERION, timeout=None, max_trials=None)
    objective = QuantObjective(backend, space, CountingEvaluation(), CRITERION)
    study.optimize(objective, callbacks=[policy])
    stored = study.user_attrs[record.STOPPED_BECAUSE]
    assert stored["reason"] == "exhausted"
    assert "nothing left that is worth a trial" in stored["message"]
    best = best_met_trial(study, CRITERION)
    assert best is not None
    assert space.config_from_params(best.params).fallback_ops == ("a", "c")
    # It says the same when asked again, and one trial more does not change it.
    stop = policy.decide(study)
    assert stop is not None
    assert stop.message == stored["message"]


def test_ask_and_tell_ends_as_optimize_does() -> None:
    def run(with_callback: bool) -> list[float]:
        backend = FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3})
        space = backend.tuning_space()
        study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
        objective = QuantObjective(backend, space, CountingEvaluation(), CRITERION)
        policy = ExitPolicy(CRITERION)
        if with_callback:
            study.optimize(objective, callbacks=[policy])
        else:
            while policy.decide(study) is None:
                trial = study.ask()
                study.tell(trial, objective(trial))
        return [trial.value for trial in study.trials]

    assert run(True) == run(False)


def test_study_that_already_has_enough_stops_after_one_trial() -> None:
    study, policy = new_study(), ExitPolicy(CRITERION)
    add(study, 0.9)
    study.optimize(lambda trial: 0.0, callbacks=[policy], n_trials=10)
    assert len(study.trials) == 3


def test_direction_that_contradicts_the_criterion_is_an_error() -> None:
    study = new_study(direction="minimize")
    with pytest.raises(ValueError, match="must be 'maximize'"):
        ExitPolicy(CRITERION).decide(study)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"timeout": -1}, "timeout"),
        ({"max_trials": 0}, "max_trials"),
        ({"objective": "speed"}, "objective must be one of"),
        ({"timeout": 0, "stop_at_first": False}, "timeout=None"),
    ],
)
def test_exit_policy_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExitPolicy(CRITERION, **kwargs)


# Which trial is the answer.


def test_best_has_the_lowest_cost_then_the_better_metric_then_came_first() -> None:
    study = new_study()
    add(study, 0.90, fallback=3, size=1)
    add(study, 0.80, fallback=2, size=9)
    add(study, 0.85, fallback=2, size=8)
    add(study, 0.85, fallback=2, size=8)
    add(study, 0.70, fallback=0, size=0)  # Not met.
    add(study, 0.90, fallback=1, quantized=False)
    add(study, state=TrialState.PRUNED, fallback=0)
    best = best_met_trial(study, CRITERION)
    assert best is not None
    assert best.number == 3
    smallest = best_met_trial(study, CRITERION, "model_size")
    assert smallest is not None
    assert smallest.number == 1


def test_best_of_a_metric_of_which_less_is_better() -> None:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1, higher_is_better=False)
    study = new_study(0.5, "minimize")
    add(study, 0.6, fallback=1)
    add(study, 0.5, fallback=1)
    best = best_met_trial(study, criterion)
    assert best is not None
    assert best.number == 2


def test_nothing_met_gives_no_best_but_the_closest() -> None:
    study = new_study()
    add(study, 0.70, fallback=1)
    add(study, 0.79, fallback=3)
    add(study, 0.79, fallback=2)
    add(study, 0.90, quantized=False)
    assert best_met_trial(study, CRITERION) is None
    closest = closest_trial(study, CRITERION)
    assert closest is not None
    assert closest.number == 3


def test_empty_study_has_no_answer() -> None:
    study = new_study()
    assert best_met_trial(study, CRITERION) is None
    assert closest_trial(study, CRITERION) is None
    assert best_met_trial(new_study(baseline=None), CRITERION) is None


def test_ops_in_fallback_are_counted_from_the_parameters_if_not_recorded() -> None:
    # As in a study whose objective is the user's own.
    backend = FakeBackend({"a": 0.2, "b": 0.0, "c": 0.3})
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    study.optimize(
        lambda trial: backend.quantize(space.suggest(trial)).accuracy,
        callbacks=[ExitPolicy(CRITERION)],
    )
    assert study.user_attrs[record.STOPPED_BECAUSE]["reason"] == "met"
    best = best_met_trial(study, CRITERION)
    assert best is not None
    assert space.config_from_params(best.params).fallback_ops == ("a", "c")
    assert "with 2 ops in fallback" in study.user_attrs[record.STOPPED_BECAUSE]["message"]
