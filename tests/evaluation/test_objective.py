"""What one trial does."""

from __future__ import annotations

from collections.abc import Callable
import math
import threading
import time
from typing import Any

from fake_backend import FP32_BYTES
from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import optuna
from optuna.trial import TrialState
import pytest
from spaces import STATIC
from spaces import STATIC_TENSOR

from optuna_quant import _optuna
from optuna_quant.backends.base import ModelLoadError
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.value import as_metric
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.waiting import Waiting
from optuna_quant.workers.identity import this_worker


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


def setup(
    backend: FakeBackend,
    evaluate: Callable[[Any], Any] | None = None,
    *,
    sampler: optuna.samplers.BaseSampler | None = None,
    **kwargs: Any,
) -> tuple[optuna.Study, QuantObjective]:
    space = backend.tuning_space()
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler or BasicQuantSampler(space, criterion=CRITERION),
    )
    evaluate = CountingEvaluation() if evaluate is None else evaluate
    return study, QuantObjective(backend, space, evaluate, CRITERION, **kwargs)


# The record.


def test_trial_says_what_it_was() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0})
    study, objective = setup(backend)
    study.optimize(objective, n_trials=4)
    fp32, default, *_ = study.trials
    assert get_baseline(study) == Baseline(0.9, 0)
    assert fp32.value == 0.9
    assert fp32.constraints == {record.ACCURACY: pytest.approx(-0.1), record.QUANTIZED: 1.0}
    assert record.MET not in fp32.user_attrs
    assert fp32.user_attrs[record.MODEL_BYTES] == FP32_BYTES
    assert default.value == pytest.approx(0.7)
    assert default.constraints == {record.ACCURACY: pytest.approx(0.1), record.QUANTIZED: 0.0}
    assert default.user_attrs[record.MET] is False
    assert default.user_attrs[record.LOSS] == pytest.approx(0.2)
    assert default.user_attrs[record.FALLBACK_OPS] == 0
    assert default.user_attrs[record.MODEL_BYTES] == FP32_BYTES - 201
    assert default.user_attrs[record.FINGERPRINT] == backend.fingerprint(
        backend.tuning_space().default()
    )


def test_best_trial_of_the_study_is_right_by_itself() -> None:
    study, objective = setup(FakeBackend({"a": 0.2, "b": 0.01}))
    study.optimize(objective, n_trials=4)
    # The FP32 baseline has the highest metric, but it is no answer.
    assert study.best_trial.value == pytest.approx(0.89)
    assert study.best_trial.user_attrs[record.FALLBACK_OPS] == 1


def test_models_that_meet_the_criterion_are_handed_on() -> None:
    found: list[tuple[int, FakeModel]] = []
    seen: list[tuple[int, TrialState]] = []

    def on_met(trial: optuna.Trial, model: Any) -> None:
        found.append((trial.number, model))
        seen.append((trial.number, trial.study.get_trials(deepcopy=False)[trial.number].state))

    backend = FakeBackend({"a": 0.2, "b": 0.01, "c": 0.0}, duplicates=["c"])
    study, objective = setup(backend, on_met=on_met)
    study.optimize(objective, n_trials=6)
    met = [
        t.number
        for t in study.trials
        if t.user_attrs.get(record.MET) and record.REUSED_FROM not in t.user_attrs
    ]
    assert met
    assert [number for number, _ in found] == met
    for number, model in found:
        assert model.fingerprint == study.trials[number].user_attrs[record.FINGERPRINT]
    assert seen == [(number, TrialState.RUNNING) for number in met]


def test_direction_that_contradicts_the_criterion_is_an_error() -> None:
    backend = FakeBackend(2)
    study = optuna.create_study(direction="minimize")
    objective = QuantObjective(backend, backend.tuning_space(), lambda model: 0.9, CRITERION)
    with pytest.raises(ValueError, match="must be 'maximize'"):
        study.optimize(objective, n_trials=1)
    assert backend.built == []


@pytest.mark.parametrize("name", ["wait_timeout", "grace_period"])
def test_negative_waiting_is_refused(name: str) -> None:
    backend = FakeBackend(2)
    with pytest.raises(ValueError, match=f"{name} must not be negative, but got -1"):
        QuantObjective(backend, backend.tuning_space(), len, CRITERION, **{name: -1})


# The baseline.


def test_baseline_is_measured_first_and_once_by_the_sampler_of_ours() -> None:
    evaluate = CountingEvaluation()
    study, objective = setup(FakeBackend({"a": 0.2, "b": 0.0}), evaluate)
    study.optimize(objective, n_trials=4)
    assert not evaluate.seen[0].config.quantized_ops
    assert evaluate.fp32_count == 1


def test_baseline_is_measured_before_anything_is_calibrated() -> None:
    backend = FakeBackend(2)
    study, objective = setup(backend, lambda model: math.nan)
    with pytest.raises(BaselineError):
        study.optimize(objective, n_trials=1)
    assert backend.calls["calibrate"] == 0


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_baseline_is_measured_with_a_foreign_sampler(
    sampler: Callable[..., optuna.samplers.BaseSampler],
) -> None:
    evaluate = CountingEvaluation()
    study, objective = setup(FakeBackend(6), evaluate, sampler=sampler(seed=0))
    study.optimize(objective, n_trials=5)
    assert get_baseline(study) == Baseline(0.9, 0)
    assert evaluate.fp32_count == 1
    assert all(record.MET in t.user_attrs for t in study.trials)


def test_baseline_is_measured_where_the_space_lacks_fp32() -> None:
    backend = FakeBackend({"a": 0.05, "b": 0.01}, options=(STATIC, STATIC_TENSOR))
    evaluate = CountingEvaluation()
    study, objective = setup(backend, evaluate)
    study.optimize(objective, n_trials=2)
    assert get_baseline(study) == Baseline(0.9, 0)
    assert study.trials[0].value == pytest.approx(0.84)
    assert evaluate.fp32_count == 1


def test_baseline_that_is_there_is_not_measured_again() -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.0})
    study, objective = setup(backend, evaluate, sampler=optuna.samplers.RandomSampler(seed=0))
    set_baseline(study, Baseline(0.95))
    study.enqueue_trial(backend.tuning_space().params_of(backend.tuning_space().fp32()))
    study.optimize(objective, n_trials=2)
    assert study.trials[0].value == 0.95
    assert evaluate.fp32_count == 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"FP32 model returned None, but it must return one number"),
        (math.nan, r"FP32 model returned NaN"),
        ("0.9", r"FP32 model returned '0.9' \(a str\), but it must return one number"),
        ((0.9, 0.1), r"FP32 model returned \(0.9, 0.1\) \(a tuple\)"),
        (True, r"FP32 model returned True \(a bool\)"),
        (
            np.array([[0.9, 0.8]]),
            r"array of shape \(1, 2\) .*one number, the metric, or one score",
        ),
        (math.inf, r"returned inf, which cannot be compared"),
        (-math.inf, r"must be finite, but it is -inf"),
    ],
)
def test_baseline_that_is_no_number_ends_the_search(returned: object, message: str) -> None:
    study, objective = setup(FakeBackend(2), lambda model: returned)
    with pytest.raises(BaselineError, match=message):
        study.optimize(objective, n_trials=3, catch=(RuntimeError,))
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
    assert get_baseline(study) is None


def test_baseline_evaluation_that_raises_ends_the_search_and_says_why() -> None:
    def evaluate(model: FakeModel) -> float:
        raise KeyError("accuracy")

    study, objective = setup(FakeBackend(2), evaluate)
    with pytest.raises(BaselineError, match="could not be evaluated: KeyError: 'accuracy'"):
        study.optimize(objective, n_trials=3)


def test_zero_baseline_with_a_relative_criterion_ends_the_search() -> None:
    backend = FakeBackend(2, fp32=0.0)
    study = optuna.create_study(direction="maximize")
    objective = QuantObjective(
        backend, backend.tuning_space(), CountingEvaluation(), AccuracyCriterion()
    )
    with pytest.raises(BaselineError, match="use criterion='absolute'"):
        study.optimize(objective, n_trials=3)


# Candidates that fail.


def fails_for_quantized(failure: Callable[[], Any]) -> Callable[[FakeModel], Any]:
    return lambda model: failure() if model.config.quantized_ops else model.accuracy


def raising() -> float:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("failure", "reason", "final"),
    [
        (raising, "Not evaluated: RuntimeError: out of memory", False),
        (lambda: math.nan, "The evaluation returned NaN, but", True),
        (lambda: None, "The evaluation returned None, but", True),
        (lambda: "bad", "The evaluation returned 'bad' (a str), but", True),
    ],
)
def test_candidate_whose_evaluation_fails_does_not_end_the_search(
    failure: Callable[[], Any], reason: str, final: bool
) -> None:
    study, objective = setup(FakeBackend(2), fails_for_quantized(failure))
    study.optimize(objective, n_trials=3)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] + 2 * [TrialState.FAIL]
    assert study.trials[1].user_attrs[record.FAILURE].startswith(reason)
    assert study.trials[1].user_attrs.get(record.FAILURE_IS_FINAL, False) is final


def test_candidate_that_cannot_be_built_does_not_end_the_search() -> None:
    backend = FakeBackend(2)

    def before_build(config: Any) -> None:
        if not config.fallback_ops:
            raise ValueError("no such kernel")

    backend.before_build = before_build
    study, objective = setup(backend)
    study.optimize(objective, n_trials=3)
    failed = study.trials[1]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs[record.FAILURE] == "Not built: ValueError: no such kernel"
    assert failed.user_attrs[record.FAILURE_IS_FINAL] is True
    assert study.trials[2].state == TrialState.COMPLETE


@pytest.mark.parametrize("wrapped", [False, True])
def test_candidate_that_does_not_load_is_not_tried_again(wrapped: bool) -> None:
    tried = []

    def evaluate(model: FakeModel) -> float:
        if model.config.fallback_ops:
            return model.accuracy
        tried.append(model.config)
        try:
            raise ModelLoadError("no such kernel")
        except ModelLoadError as error:
            if wrapped:
                raise RuntimeError("the model is no good") from error
            raise

    backend = FakeBackend(2)
    space = backend.tuning_space()
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    study.optimize(QuantObjective(backend, space, evaluate, AccuracyCriterion()), n_trials=4)
    assert len(tried) == 1
    (failed,) = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert failed.user_attrs[record.FAILURE] == "Not loaded: ModelLoadError: no such kernel"
    assert failed.user_attrs[record.FAILURE_IS_FINAL] is True


def test_unusable_calibration_data_end_the_search() -> None:
    class Uncalibrated(FakeBackend):
        def calibrate(self) -> None:
            raise ValueError("calibration batch 3 is empty")

    study, objective = setup(Uncalibrated(2))
    with pytest.raises(ValueError, match="calibration batch 3 is empty"):
        study.optimize(objective, n_trials=3)


def test_candidate_that_is_infinitely_bad_does_not_meet_the_criterion() -> None:
    study, objective = setup(FakeBackend(2), fails_for_quantized(lambda: -math.inf))
    study.optimize(objective, n_trials=2)
    assert study.trials[1].state == TrialState.COMPLETE
    assert study.trials[1].user_attrs[record.MET] is False


def test_evaluation_may_prune() -> None:
    def prune() -> float:
        raise optuna.TrialPruned

    study, objective = setup(FakeBackend(2), fails_for_quantized(prune))
    study.optimize(objective, n_trials=2)
    assert study.trials[1].state == TrialState.PRUNED


# One model, one evaluation.


def test_same_model_is_evaluated_once() -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3, "c": 0.0}, duplicates=["c"])
    study, objective = setup(backend, evaluate, sampler=optuna.samplers.BruteForceSampler(seed=0))
    study.optimize(objective)
    assert len(study.trials) == 8
    assert len(evaluate.seen) == 5  # FP32 in "c" alone differs from FP32 in all ops.
    assert evaluate.most_repeats() == 1
    repeats = [t for t in study.trials if record.REUSED_FROM in t.user_attrs]
    assert len(repeats) == 3
    for trial in repeats:
        first = study.trials[trial.user_attrs[record.REUSED_FROM]]
        assert trial.value == first.value
        assert trial.user_attrs[record.FINGERPRINT] == first.user_attrs[record.FINGERPRINT]
        assert trial.constraints[record.ACCURACY] == first.constraints[record.ACCURACY]


def test_same_configuration_is_not_even_built() -> None:
    backend = FakeBackend({"a": 0.2, "b": 0.0})
    study, objective = setup(backend, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=20)
    assert len(backend.built) == len({config.key for config in backend.built}) == 4
    # It names the trial that was evaluated, not one that repeated it.
    for trial in study.trials:
        origin = trial.user_attrs.get(record.REUSED_FROM)
        if origin is not None and trial.params != study.trials[0].params:
            assert record.REUSED_FROM not in study.trials[origin].user_attrs


def test_result_of_a_trial_that_was_not_told_yet_is_known() -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3}, duplicates=["a", "b"])
    study, objective = setup(backend, evaluate)
    trials = [study.ask() for _ in range(4)]
    values = [objective(trial) for trial in trials]
    for trial, value in zip(trials, values, strict=True):
        study.tell(trial, value)
    assert len(evaluate.seen) == 2  # FP32 and, as all others are its duplicates, one more.
    assert values[1:] == 3 * [values[1]]
    assert study.trials[3].user_attrs[record.REUSED_FROM] == 1


def test_baseline_trial_that_waits_for_its_turn_does_not_block_its_own_thread() -> None:
    evaluate = CountingEvaluation()
    study, objective = setup(FakeBackend({"a": 0.2, "b": 0.3}), evaluate)
    baseline, candidate = study.ask(), study.ask()
    study.tell(candidate, objective(candidate))
    study.tell(baseline, objective(baseline))
    assert evaluate.fp32_count == 1
    assert study.trials[0].value == 0.9


def test_model_that_is_the_fp32_model_is_not_called_quantized() -> None:
    class Inert(FakeBackend):
        def fingerprint(self, config: Any) -> str:
            return "always the same"

    study, objective = setup(Inert(2))
    study.optimize(objective, n_trials=2)
    assert study.trials[1].user_attrs[record.REUSED_FROM] == 0
    assert study.trials[1].constraints[record.QUANTIZED] == 1.0
    assert record.MET not in study.trials[1].user_attrs


def in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


def slow(evaluate: Callable[[FakeModel], float]) -> Callable[[FakeModel], float]:
    def wrapped(model: FakeModel) -> float:
        time.sleep(0.05)
        return evaluate(model)

    return wrapped


@pytest.mark.parametrize("foreign", [False, True])
def test_threads_measure_one_baseline_and_each_model_once(foreign: bool) -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3, "c": 0.0, "d": 0.0}, duplicates=["c", "d"])
    sampler = optuna.samplers.RandomSampler(seed=0) if foreign else None
    study, objective = setup(backend, slow(evaluate), sampler=sampler)
    in_threads(4, lambda number: study.optimize(objective, n_trials=5))
    # A sampler of ours ends the calls once nothing is left to try.
    assert len(study.trials) == 20 if foreign else 10 <= len(study.trials) <= 20
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert evaluate.fp32_count == 1
    quantized = [model for model in evaluate.seen if model.config.quantized_ops]
    assert len(quantized) == len({model.fingerprint for model in quantized})
    assert get_baseline(study) is not None


def count_pauses(monkeypatch: pytest.MonkeyPatch) -> list[Waiting]:
    """Every pause that is made from now on; they cost no time."""
    pauses: list[Waiting] = []
    monkeypatch.setattr(Waiting, "pause", pauses.append)
    return pauses


def test_trial_of_a_dead_process_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3})
    study, objective = setup(backend, evaluate, sampler=optuna.samplers.RandomSampler(seed=1))
    host, _, _, thread = this_worker().split("|")
    dead = study.ask()
    claim = record.Claim(0, "key", record.BASELINE_STAGE, f"{host}|{2**22 - 1}|1|{thread}")
    _optuna.set_trial_system_attr(study, study.trials[0], record.CLAIM, claim.to_attr())
    assert dead.number == 0
    pauses = count_pauses(monkeypatch)
    study.optimize(objective, n_trials=1)
    assert not pauses
    assert get_baseline(study) == Baseline(0.9, 1)


def test_trial_of_which_nothing_is_known_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3})
    study, objective = setup(
        backend, evaluate, sampler=optuna.samplers.RandomSampler(seed=1), grace_period=0.2
    )
    study.ask()  # No worker will ever run it.
    space = backend.tuning_space()
    study.enqueue_trial(space.params_of(space.default()))
    start = time.monotonic()
    study.optimize(objective, n_trials=1)
    assert time.monotonic() - start >= 0.2
    pauses = count_pauses(monkeypatch)
    study.optimize(objective, n_trials=5)
    assert not pauses  # It is waited for once.
    assert evaluate.most_repeats() == 1
    assert get_baseline(study) == Baseline(0.9, 1)


def test_same_model_in_another_process_is_waited_for() -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3})
    study, objective = setup(backend, evaluate, sampler=optuna.samplers.RandomSampler(seed=1))
    set_baseline(study, Baseline(0.9))
    space = backend.tuning_space()
    params = space.params_of(space.default())
    study.enqueue_trial(params)
    study.enqueue_trial(params)
    other = study.ask()
    space.suggest(other)
    other.set_user_attr(record.FINGERPRINT, backend.fingerprint(space.default()))

    def finish() -> None:
        time.sleep(0.3)
        study.tell(other, 0.123)

    thread = threading.Thread(target=finish)
    thread.start()
    study.optimize(objective, n_trials=1)
    thread.join()
    assert study.trials[1].value == 0.123
    assert study.trials[1].user_attrs[record.REUSED_FROM] == 0
    assert evaluate.seen == []


def test_thread_that_takes_longer_than_the_timeout_is_waited_for() -> None:
    backend, evaluate = FakeBackend(3), CountingEvaluation()
    space = backend.tuning_space()

    def slowly(model: FakeModel) -> float:
        time.sleep(0.0 if model.config.quantized_ops else 0.5)
        return evaluate(model)

    objective = QuantObjective(
        backend, space, slowly, CRITERION, wait_timeout=0.1, grace_period=0.1
    )
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    in_threads(3, lambda number: study.optimize(objective, n_trials=1))
    assert evaluate.fp32_count == 1


def test_worker_that_writes_heartbeats_is_waited_for() -> None:
    study = optuna.create_study()
    trial = study.ask()
    mark = {"number": 0, "worker": "elsewhere m b n|1|1|1"}
    claim = record.Claim(0, "key", "stage", mark["worker"])
    system = study._storage.set_trial_system_attr
    system(trial._trial_id, record.CLAIM, claim.to_attr())
    waiting = Waiting(
        is_at_work=lambda number: False,
        timeout=lambda: 0.15,
        grace_period=0.15,
        given_up=set(),
    )
    for count in range(4):
        system(trial._trial_id, record.HEARTBEAT, count)
        assert waiting.is_for(study.trials)
        time.sleep(0.1)
    for _ in range(3):  # Only time during which it looks counts.
        waiting.is_for(study.trials)
        time.sleep(0.05)
    assert not waiting.is_for(study.trials)


def test_same_model_is_evaluated_after_all_if_the_other_trial_fails() -> None:
    evaluate = CountingEvaluation()
    backend = FakeBackend({"a": 0.2, "b": 0.3})
    study, objective = setup(backend, evaluate, sampler=optuna.samplers.RandomSampler(seed=1))
    set_baseline(study, Baseline(0.9))
    space = backend.tuning_space()
    params = space.params_of(space.default())
    study.enqueue_trial(params)
    study.enqueue_trial(params)
    other = study.ask()
    space.suggest(other)
    other.set_user_attr(record.FINGERPRINT, backend.fingerprint(space.default()))

    def fail() -> None:
        time.sleep(0.2)
        study.tell(other, state=TrialState.FAIL)

    thread = threading.Thread(target=fail)
    thread.start()
    study.optimize(objective, n_trials=1)
    thread.join()
    assert study.trials[1].value == pytest.approx(0.4)
    assert len(evaluate.seen) == 1


# Metrics.


class Tensor:
    """As torch.Tensor behaves."""

    def __init__(self, *values: float) -> None:
        self._values = values

    def item(self) -> float:
        if len(self._values) != 1:
            raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")
        return self._values[0]


@pytest.mark.parametrize(
    ("value", "metric"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (np.float64(0.5), 0.5),
        (np.float32(0.98), 0.98),
        (np.int64(3), 3.0),
        (np.array(0.5), 0.5),
        (np.array([[0.5]]), 0.5),
        (np.array([0.98], dtype=np.float32), 0.98),
        (Tensor(0.5), 0.5),
        (-math.inf, -math.inf),
    ],
)
def test_metric_is_read_from_any_number(value: object, metric: float) -> None:
    read = as_metric(value, higher_is_better=True)
    assert type(read) is float
    assert read == metric


@pytest.mark.parametrize(
    "value",
    [None, "1", b"1", True, np.True_, [], {}, 1j, Tensor(1, 2), np.array([1, 2]), object()],
)
def test_metric_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must return one number"):
        as_metric(value, higher_is_better=True)


def test_metric_that_is_infinitely_good_is_refused() -> None:
    with pytest.raises(ValueError, match="returned inf"):
        as_metric(math.inf, higher_is_better=True)
    with pytest.raises(ValueError, match="returned -inf"):
        as_metric(-math.inf, higher_is_better=False)
    assert as_metric(math.inf, higher_is_better=False) == math.inf
