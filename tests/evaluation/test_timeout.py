"""Evaluations that take too long, or suspiciously long."""

from __future__ import annotations

from collections.abc import Callable
import datetime
import logging
import math
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any
from typing import TypeVar

from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest
import sample_models

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation import timeout
from optuna_quant.evaluation.asked_between_batches import AskedBetweenBatches
from optuna_quant.evaluation.timeout import EvaluationTimeout
from optuna_quant.evaluation.timeout import EvaluationWatchdog
from optuna_quant.study import record
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.slow_trials import SlowTrials
from optuna_quant.study.slow_trials import suspicious_after
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


_Result = TypeVar("_Result")

REASON = "it took longer than evaluation_timeout=0.3 s"
TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    optuna.logging.enable_propagation()
    caplog.set_level(logging.WARNING)
    return caplog


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in timeout._free_signals()]


def never(reason: str) -> None:
    raise AssertionError(reason)


def timed(
    watch: EvaluationWatchdog,
    evaluate: Callable[[], _Result],
    *,
    give_up: Callable[[str], None] = never,
    usual: tuple[float, str] = (math.inf, ""),
) -> _Result:
    return watch.run(
        lambda check: evaluate(), what="It", give_up=give_up, usual_seconds=lambda: usual
    )


def in_thread(function: Callable[[], Any]) -> Any:
    """What a function gives or raises in another thread."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    return found[0]


# Ways to hang.


def sleep() -> None:
    time.sleep(60)


def lock() -> None:
    held = threading.Lock()
    held.acquire()
    held.acquire()


def child() -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=False)


def loop() -> None:
    while True:
        pass


def stubborn_loop() -> float:
    for _ in range(3):
        try:
            while True:
                pass
        except BaseException:
            pass
    return 0.5


def other_error() -> float:
    try:
        time.sleep(60)
    except BaseException as error:
        raise RuntimeError("made of it") from error
    return 0.5


@pytest.mark.parametrize("hang", [sleep, lock, child, loop, stubborn_loop, other_error])
def test_evaluation_that_hangs_in_the_main_thread_is_ended(hang: Callable[[], Any]) -> None:
    started, before = time.monotonic(), handlers()
    with pytest.raises(EvaluationTimeout, match=REASON):
        timed(EvaluationWatchdog(0.3), hang)
    assert time.monotonic() - started < 10
    assert handlers() == before


@pytest.mark.parametrize("hang", [loop, stubborn_loop])
def test_evaluation_that_hangs_in_another_thread_is_ended(hang: Callable[[], Any]) -> None:
    error = in_thread(lambda: timed(EvaluationWatchdog(0.3), hang))
    assert isinstance(error, EvaluationTimeout)


def test_evaluation_that_does_not_react_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeout, "_SHORTEST_GRACE_SECONDS", 0.2)
    given_up: list[str] = []
    stuck: list[str] = []
    release_connection = threading.Event()

    def hang() -> float:
        release_connection.wait(60)  # In another thread nothing can end it.
        return 0.5

    def note(text: str) -> None:
        stuck.append(text)
        release_connection.set()

    watch = EvaluationWatchdog(0.3, on_stuck=note)
    error = in_thread(lambda: timed(watch, hang, give_up=given_up.append))
    assert given_up == [REASON]
    assert isinstance(error, EvaluationTimeout)
    assert len(stuck) == 1
    assert "It took longer than evaluation_timeout=0.3 s and did not stop" in stuck[0]


def test_evaluation_in_time_is_left_alone() -> None:
    watch, before = EvaluationWatchdog(5), handlers()
    assert timed(watch, lambda: 0.5) == 0.5
    with pytest.raises(ZeroDivisionError):
        timed(watch, lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        timed(watch, interrupt)
    assert handlers() == before


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["main", "thread"])
def test_evaluation_that_ends_at_the_last_moment_gives_one_or_the_other(where: str) -> None:
    """And nothing is raised afterwards, wherever the thread is by then."""
    watch = EvaluationWatchdog(0.02)
    rolled = random.Random(0)
    seen = set()

    def many() -> None:
        for _ in range(25):
            until = time.monotonic() + rolled.uniform(0.01, 0.05)

            def spin(until: float = until) -> str:
                while time.monotonic() < until:
                    pass
                return "in time"

            try:
                seen.add(timed(watch, spin))
            except EvaluationTimeout:
                seen.add("late")

    failed = many() if where == "main" else in_thread(many)
    assert failed is None
    assert seen == {"in time", "late"}


def test_signal_of_somebody_else_is_left_to_him(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(number: int, frame: object) -> None:
        raise AssertionError

    taken, free = signal.SIGRTMAX - 7, signal.SIGRTMAX - 8
    monkeypatch.setattr(timeout, "_free_signals", lambda: [taken, free])
    signal.signal(taken, theirs)
    try:
        with pytest.raises(EvaluationTimeout):
            timed(EvaluationWatchdog(0.3), sleep)
        assert signal.getsignal(taken) is theirs
        # Without a free one, what runs Python code can be ended all the same.
        signal.signal(free, theirs)
        with pytest.raises(EvaluationTimeout):
            timed(EvaluationWatchdog(0.3), loop)
    finally:
        signal.signal(taken, signal.SIG_DFL)
        signal.signal(free, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [(0, ValueError), (-1, ValueError), (math.inf, ValueError), (math.nan, ValueError),
     ("soon", ValueError), ([5], TypeError), (True, TypeError)],
)  # fmt: skip
def test_timeout_must_be_a_time(timeout: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="evaluation_timeout must be a number of seconds"):
        tune(backend=FakeBackend(), evaluate=lambda m: m.accuracy, evaluation_timeout=timeout)


# In a search.


def tune_fake(evaluate: Any, **kwargs: Any) -> TuningResult:
    return tune(
        backend=FakeBackend({"a": 0.2, "b": 0.0}),
        evaluate=evaluate,
        accuracy_criterion=TOLERANT,
        tuning_criterion=TuningCriterion(strategy="basic", timeout=None),
        evaluation_timeout=0.3,
        **kwargs,
    )


def hangs_with_a(model: FakeModel) -> float:
    if "a" in model.config.quantized_ops:
        loop()
    return model.accuracy


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_candidate_that_hangs_fails_once_and_for_all(n_jobs: int) -> None:
    result = tune_fake(hangs_with_a, n_jobs=n_jobs)
    assert result.met
    assert result.fallback_ops == ("a",)
    hung = [t for t in result.study.trials if t.state == TrialState.FAIL]
    assert hung
    assert {t.user_attrs[record.FAILURE] for t in hung} == {
        f"Not evaluated: EvaluationTimeout: {REASON}"
    }
    # Each of them once, as long as there is anything else.
    claims = [TrialView(t).claim for t in hung]
    keys = [c.key for c in claims if c is not None and c.stage != record.EXHAUSTED_STAGE]
    assert len(set(keys)) == len(keys)


def test_fp32_model_that_hangs_is_an_error() -> None:
    with pytest.raises(
        BaselineError, match=f"could not be evaluated: EvaluationTimeout: {REASON}"
    ):
        tune_fake(lambda model: loop())


def test_evaluation_of_samples_is_asked_between_batches() -> None:
    evaluation = sample_models.SampleScores(sample_models.DAMAGE, seconds=0.05, batch=10)
    timeouts = []

    def evaluate(check: Callable[[], None]) -> None:
        asked = AskedBetweenBatches(evaluation, check)
        model = FakeBackend(sample_models.DAMAGE).quantize(
            sample_models.FakeBackend(sample_models.DAMAGE).tuning_space().fp32()
        )
        try:
            for _ in asked.scores(model, sample_models.np.arange(1000)):
                pass
        except BaseException as error:
            timeouts.append(type(error))
            raise

    started = time.monotonic()
    with pytest.raises(EvaluationTimeout):
        EvaluationWatchdog(0.3).run(
            evaluate, what="It", give_up=never, usual_seconds=lambda: (0, ""), can_be_asked=True
        )
    # By itself, before anything was sent.
    assert timeouts == [EvaluationTimeout]
    assert time.monotonic() - started < 2


# What is said without a timeout.


def trial(number: int, state: TrialState, seconds: float, **attrs: Any) -> FrozenTrial:
    start = datetime.datetime(2026, 1, 1)
    worker = "elsewhere machine boot namespace|1|1|1"
    claim = record.Claim(number, f"key{number}", "stage", worker)
    return FrozenTrial(
        number=number,
        state=state,
        value=0.5 if state == TrialState.COMPLETE else None,
        datetime_start=start,
        datetime_complete=start + datetime.timedelta(seconds=seconds)
        if state.is_finished()
        else None,
        params={},
        distributions={},
        user_attrs=attrs,
        system_attrs={record.CLAIM: claim.to_attr()},
        intermediate_values={},
        trial_id=number,
    )


def test_what_is_suspicious() -> None:
    # Sixty seconds at least, ten times the median, and twice the longest; repeats do not count.
    done, pruned, failed = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert suspicious_after([]) == (600, "no other trial has finished")
    assert suspicious_after([trial(0, failed, 5)])[0] == 600
    assert suspicious_after([trial(0, done, 1), trial(1, pruned, 3)])[0] == 60
    several = [trial(0, done, 8), trial(1, done, 8), trial(2, pruned, 9)]
    assert suspicious_after(several) == (80, "others took 8 s, 9 s at most")
    assert suspicious_after([*several, trial(3, done, 50)])[0] == 100
    assert suspicious_after([*several, trial(3, done, 0.1, reused_from=1)])[0] == 80


def test_other_worker_that_holds_up_all_is_named_once(lines: pytest.LogCaptureFixture) -> None:
    now = 0.0
    slow = SlowTrials(clock=lambda: now)
    trials = [
        trial(0, TrialState.COMPLETE, 8),
        trial(1, TrialState.RUNNING, 0),
        trial(2, TrialState.RUNNING, 0),
    ]
    for seconds in range(0, 200, 10):
        now = float(seconds)
        slow.look(trials)
        assert bool(lines.messages) == (now >= 80)
    assert lines.messages == [
        "Trial 1 of another worker, on 'elsewhere', has been running for 80 s (others took 8 s, "
        "8 s at most). Others may be waiting for it; evaluation_timeout=SECONDS "
        "(--evaluation-timeout) ends such evaluations."
    ]
    # The next one may only have waited for that.
    slow.look([trials[0], trial(1, TrialState.FAIL, 200), trials[2]])
    assert len(lines.messages) == 2


def test_own_evaluation_that_takes_long_is_told_of_once(
    lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeout, "_FIRST_TOLD_SECONDS", 0.05)
    monkeypatch.setattr(timeout, "_LONGEST_BETWEEN_LOOKS_SECONDS", 0.02)
    watch = EvaluationWatchdog(None)
    assert timed(watch, lambda: time.sleep(0.4), usual=(0.12, "others took 0.01 s")) is None
    assert len(lines.messages) == 1
    assert lines.messages[0].startswith("It has been running for 0 s (others took 0.01 s)")
    lines.clear()
    assert timed(watch, lambda: time.sleep(0.15), usual=(0.5, "others took 0.01 s")) is None
    assert lines.messages == []
