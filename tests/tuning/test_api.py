"""The whole search in one call."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import os
from pathlib import Path
import re
import signal
import sys
import threading
import time
import traceback
from typing import Any

from child_paths import python_path
from fake_backend import CountingEvaluation
from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import onnx_models
import onnxruntime as ort
import optuna
from places import ROOT
from places import TESTS
import pytest
import tune_worker
from zygote import Zygote

from optuna_quant import SearchOptions
from optuna_quant import _optuna
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs import KnownObjective
from optuna_quant.costs import as_costs
from optuna_quant.costs import as_objective
from optuna_quant.costs.timing import measure_interleaved
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.evaluation.labelled import accuracy
from optuna_quant.evaluation.labelled import mae
from optuna_quant.evaluation.labelled import mse
from optuna_quant.evaluation.labelled import top5
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.space.config import QuantConfig
from optuna_quant.storages.open import open_storage
from optuna_quant.study import record
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning import measures
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.errors import OutputError
from optuna_quant.tuning.errors import TuningInterrupted
from optuna_quant.tuning.finalists import finalists
from optuna_quant.tuning.options.collect import collect
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.options.request import TuneOptions
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.prepare import prepare
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.run import run_search
from optuna_quant.tuning.setup import TuningSetup
from optuna_quant.tuning.strategies import choose_strategy
from optuna_quant.tuning.strategies import sampler_options


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
PATHS = {"PYTHONPATH": python_path(TESTS)}
DAMAGE = {"a": 0.2, "b": 0.0, "c": 0.3}
DIGITS = ROOT / "examples" / "digits"


def evaluate(model: FakeModel) -> float:
    return model.accuracy


def tune_fake(backend: FakeBackend | None = None, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {"evaluate": evaluate, "accuracy_criterion": TOLERANT}
    return tune(backend=backend or FakeBackend(DAMAGE), **given | kwargs)


@pytest.fixture
def optuna_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What Optuna itself logs, at its usual verbosity."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    yield caplog
    optuna.logging.disable_propagation()
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize(
    ("timeout", "stop_at_first", "thorough"),
    [(0, None, False), (None, None, True), (600, None, True), (600, True, False)],
)
def test_a_search_that_does_not_stop_at_its_first_answer_is_thorough(
    timeout: float | None, stop_at_first: bool | None, thorough: bool
) -> None:
    found = tune_fake(
        tuning_criterion=TuningCriterion(timeout=timeout, stop_at_first=stop_at_first)
    )
    assert isinstance(found.study.sampler, SurrogateQuantSampler)
    assert found.study.sampler.thorough is thorough


def interrupted_fake(backend: FakeBackend | None = None, **kwargs: Any) -> TuningResult:
    """What a search that is interrupted has found."""
    with pytest.raises(TuningInterrupted) as caught:
        tune_fake(backend, **kwargs)
    return caught.value.result


class Interrupt:
    """Interrupts the search at a certain evaluation."""

    def __init__(self, at: int | None) -> None:
        self.begin(at)

    def begin(self, at: int | None) -> None:
        """Count from the start, as a new process would."""
        self._at = at
        self.seen: list[FakeModel] = []

    def __call__(self, model: FakeModel) -> float:
        self.seen.append(model)
        if len(self.seen) == self._at:
            raise KeyboardInterrupt
        return model.accuracy


# The result.


def test_result_says_what_was_found() -> None:
    result = tune_fake()
    assert result.met is True
    assert result.metric == pytest.approx(0.9)
    assert result.baseline == 0.9
    assert result.loss == pytest.approx(0.0)
    assert result.config is not None
    assert result.fallback_ops == ("a", "c")
    assert result.cost == 2
    assert result.stopped_because == "met"
    assert isinstance(result.study, optuna.Study)
    assert result.trial is not None
    assert result.study.best_trial.number == result.trial.number
    assert result.study.user_attrs[record.STOPPED_BECAUSE]["reason"] == "met"


def test_result_of_an_easy_model_is_the_default() -> None:
    backend = FakeBackend({"a": 0.01, "b": 0.02})
    result = tune_fake(backend)
    assert result.config == backend.tuning_space().default()
    assert result.cost == 0
    assert len(result.study.trials) == 2


def test_result_reads_well() -> None:
    lines = str(tune_fake()).splitlines()
    assert lines[0] == "A quantized model meets the criterion."
    assert lines[1] == "metric 0.9, FP32 0.9, loss 0 (at most 0.1 absolute loss, higher is better)"
    assert "1 of 3 ops quantized, 3.9 kB" in lines[2]
    assert lines[3] == "in fallback: a, c"
    assert lines[4].startswith("stopped: Trial ")


def test_nothing_met_is_said_and_the_closest_is_offered(tmp_path: Path) -> None:
    strict = AccuracyCriterion(criterion="absolute", tolerable_loss=0.01)
    backend = FakeBackend({"a": 0.2, "b": 0.15, "c": 0.3})
    result = tune_fake(
        backend,
        accuracy_criterion=strict,
        output=tmp_path / "out",
        tuning_criterion=TuningCriterion(strategy="basic"),
    )
    assert result.met is False
    assert result.stopped_because == "exhausted"
    assert result.fallback_ops == ("a", "c")
    assert result.metric == pytest.approx(0.75)
    assert result.loss == pytest.approx(0.15)
    assert str(result).startswith("NOT MET: no quantized model meets the criterion. The one that")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"none is saved.*closest=True"):
        result.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result.save(tmp_path / "out", closest=True)
    assert QuantConfig.from_json((tmp_path / "out").read_text()) == result.config


def test_fp32_model_is_never_the_answer() -> None:
    result = tune_fake(FakeBackend({"a": 0.5, "b": 0.5}))
    assert result.met is False
    assert result.config is not None
    assert result.config.quantized_ops


def test_metric_of_which_less_is_better() -> None:
    backend = FakeBackend({"a": -0.2, "b": 0.0}, fp32=0.5)  # Quantizing adds to the error.
    result = tune_fake(
        backend,
        accuracy_criterion=AccuracyCriterion(
            criterion="absolute", tolerable_loss=0.1, higher_is_better=False
        ),
    )
    assert result.met
    assert result.fallback_ops == ("a",)
    assert result.study.direction == optuna.study.StudyDirection.MINIMIZE


def test_save_writes_the_model(tmp_path: Path) -> None:
    result = tune_fake()
    result.save(tmp_path / "model")
    assert QuantConfig.from_json((tmp_path / "model").read_text()) == result.config


def test_report_has_a_row_for_each_op() -> None:
    report = tune_fake().report()
    assert list(report.columns) == [
        "op", "op_type", "mode", "activation", "weight", "runs", "as_asked", "note",
    ]  # fmt: skip
    assert report["op"].tolist() == ["a", "b", "c"]
    assert report["op_type"].tolist() == ["Conv"] * 3
    assert report["mode"].tolist() == ["fp32", "static", "fp32"]
    assert report["activation"].tolist() == ["", "uint8/asym/per_tensor/minmax", ""]
    assert report["weight"].tolist() == ["", "int8/sym/per_channel/minmax", ""]
    assert report["runs"].tolist() == ["Conv", "QLinearConv", "Conv"]


# What is best.


def test_model_size_chooses_the_smallest_and_not_the_fewest_in_fallback() -> None:
    # "a" saves a byte more than the others, see FakeModel.nbytes.
    backend = FakeBackend({"a": 0.06, "b": 0.05, "c": 0.0})
    basic = {"timeout": None, "strategy": "basic"}
    tuning = TuningCriterion(**basic, objective="model_size")
    result = tune_fake(backend, tuning_criterion=tuning)
    assert result.fallback_ops == ("b",)
    assert result.cost == 4000 - 201
    fewest = tune_fake(backend, tuning_criterion=TuningCriterion(**basic))
    assert fewest.fallback_ops == ("a",)  # Of equals the better metric.


def test_measurement_is_interleaved_and_takes_the_median() -> None:
    order: list[str] = []
    ticks = iter([0, 1, 1, 3, 10, 20, 20, 22, 30, 31, 31, 33])
    times = measure_interleaved(
        [lambda: order.append("a"), lambda: order.append("b")],
        rounds=3,
        warmup=1,
        clock=lambda: next(ticks),
    )
    assert order == ["a", "b"] * 4
    assert times == [1, 2]  # One run of a took 10.


@pytest.mark.parametrize("kwargs", [{"rounds": 0}, {"warmup": -1}])
def test_measurement_refuses(kwargs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        measure_interleaved([], **kwargs)


def test_equal_models_are_measured_once() -> None:
    backend = FakeBackend({"a": 0.0, "b": 0.0, "c": 0.0}, duplicates=["a", "b"])
    tuning = TuningCriterion(timeout=None, strategy="basic")
    result = tune_fake(backend, tuning_criterion=tuning)
    costs = as_costs(lambda config: 1.0, result.space)
    same = KnownObjective(as_objective("latency"), result.space, costs)
    met = ranked(candidates(result.study, TOLERANT), same)
    assert len(met) > 2
    assert len(finalists(met, same)) == 2
    assert len(finalists(met, as_objective("ops"))) == 1


# Going on, interruption, and the file.


def test_search_is_continued_from_its_record(tmp_path: Path) -> None:
    storage = str(tmp_path / "journal")
    basic = TuningCriterion(strategy="basic")
    whole = tune_fake(tuning_criterion=basic)
    evaluate = Interrupt(None)
    for at in (1, 2, 4):
        evaluate.begin(at)
        interrupted = interrupted_fake(storage=storage, evaluate=evaluate, tuning_criterion=basic)
        assert interrupted.stopped_because == "interrupted"
        assert interrupted.met is False
    evaluate.begin(None)
    result = tune_fake(storage=storage, evaluate=evaluate, tuning_criterion=basic)
    assert result.met
    assert result.config == whole.config
    assert all(model.config.quantized_ops for model in evaluate.seen)
    seen = [t.params for t in whole.study.trials]
    done = [t.params for t in result.study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert done == seen
    evaluate.begin(1)
    again = tune_fake(storage=storage, evaluate=evaluate, tuning_criterion=basic)
    assert again.met
    assert again.config == result.config
    assert again.stopped_because == "met"
    assert evaluate.seen == []


def test_interrupt_at_the_baseline_is_a_result_too() -> None:
    result = interrupted_fake(evaluate=Interrupt(1))
    assert result.met is False
    assert (result.metric, result.baseline, result.loss, result.config) == (None,) * 4
    assert (result.cost, result.trial) == (None, None)
    assert result.report().empty
    assert "no quantized model was evaluated" in str(result)
    with pytest.raises(ValueError, match="no quantized model was evaluated"):
        result.save("nowhere")


def test_interrupt_loses_nothing_that_was_found(tmp_path: Path) -> None:
    def met(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.user_attrs.get(record.MET):
            raise KeyboardInterrupt

    tuning = TuningCriterion(timeout=None)
    result = interrupted_fake(tuning_criterion=tuning, callbacks=[met], output=tmp_path / "out")
    assert result.stopped_because == "interrupted"
    assert result.met
    assert QuantConfig.from_json((tmp_path / "out").read_text()) == result.config


def test_interrupt_reaches_evaluations_in_other_threads() -> None:
    both = threading.Barrier(3)

    def evaluate(model: FakeModel) -> float:
        if model.config.quantized_ops:
            both.wait(60)
            for _ in range(1200):
                time.sleep(0.05)
        return model.accuracy

    def press() -> None:
        both.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    start, handler = time.monotonic(), signal.getsignal(signal.SIGINT)
    result = interrupted_fake(evaluate=evaluate, n_jobs=2)
    assert time.monotonic() - start < 30
    assert signal.getsignal(signal.SIGINT) is handler
    states = [trial.state.name for trial in result.study.trials]
    assert states == ["COMPLETE", "FAIL", "FAIL"]
    # They are given back, and are no failures of the models.
    assert not any(record.FAILURE in trial.user_attrs for trial in result.study.trials)


def test_script_does_not_go_on_after_an_interrupt() -> None:
    # As any KeyboardInterrupt: what a script would do with the result is not done.
    with pytest.raises(KeyboardInterrupt, match="It had found a model that meets the criterion"):
        tune_fake(
            FakeBackend({"a": 0.0, "b": 0.0}),
            tuning_criterion=TuningCriterion(timeout=None),
            evaluate=Interrupt(3),
        )


def test_interrupt_in_the_measurement_of_the_gain_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("optuna_quant.tuning.finish.measure_finalists", interrupted)
    result = interrupted_fake(FakeBackend({"a": 0.0}))
    assert result.met
    assert result.gain is None
    assert result.message.endswith("Interrupted: time and size were not compared with FP32.")


def test_interrupt_in_the_holdout_is_one() -> None:
    result = interrupted_fake(FakeBackend({"a": 0.0}), holdout=Interrupt(1))
    assert result.met
    assert result.holdout is None
    assert result.holdout_missing == "its evaluation was interrupted"


def test_best_model_is_on_disk_as_soon_as_it_is_found(tmp_path: Path) -> None:
    path = tmp_path / "out"
    written: list[int | None] = []

    def look(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        fallback = None
        if path.exists():
            fallback = len(QuantConfig.from_json(path.read_text()).fallback_ops)
        written.append(fallback)

    backend = FakeBackend({"a": 0.11, "b": 0.04, "c": 0.03})
    tuning = TuningCriterion(timeout=None)
    result = tune_fake(backend, tuning_criterion=tuning, output=path, callbacks=[look])
    assert written[:2] == [None, None]  # The baseline, and the default that is not met.
    assert written[-1] == 1
    known = [number for number in written if number is not None]
    assert known == sorted(known, reverse=True)  # It only gets better.
    assert QuantConfig.from_json(path.read_text()) == result.config


def test_processes_share_one_search(zygote: Zygote, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir()
    shared.mkdir()
    expected = tune_worker.run(alone)
    workers = [zygote.start("tune_worker:write", folder=str(shared)) for _ in range(4)]
    assert zygote.join(*workers) == [0, 0, 0, 0]
    found = [path.read_text() for path in shared.glob("found-*")]
    assert found == 4 * [expected]
    evaluated = (shared / "log").read_text().splitlines()
    # The baseline among them; the answer is evaluated a second time, by one of them.
    assert len(evaluated) == len(set(evaluated)) + 1
    assert set((alone / "log").read_text().splitlines()) <= set(evaluated)


def prepared(**options: Any) -> TuningSetup:
    return prepare(collect(TuneOptions, options))


def test_threads_share_one_search() -> None:
    backend = FakeBackend({"a": 0.02, "b": 0.15, "c": 0.0, "d": 0.03, "e": 0.2})
    evaluate = CountingEvaluation()

    def slow(model: FakeModel) -> float:
        time.sleep(0.02)
        return evaluate(model)

    tuning = TuningCriterion(timeout=None, max_trials=None, strategy="basic")
    given = {"accuracy_criterion": TOLERANT, "tuning_criterion": tuning, "verify": False}
    alone = run_search(prepared(backend=backend, evaluate=evaluate, **given))
    evaluate.seen.clear()
    threads = SearchOptions(n_jobs=4)
    result = run_search(prepared(backend=backend, evaluate=slow, **given), options=threads)
    assert result.fallback_ops == alone.fallback_ops
    assert result.met
    assert evaluate.most_repeats() == 1
    workers = {TrialView(trial).worker for trial in result.study.trials}
    assert len(workers) == 4
    assert result.speculation is not None


def test_trial_that_others_have_ended_costs_one_trial_and_not_the_search(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when this process was suspended for longer than the others waited for a heartbeat."""
    backend = FakeBackend(DAMAGE)
    ended: list[int] = []

    def evaluate(model: FakeModel) -> float:
        trials = study.get_trials(deepcopy=False)
        if trials[-1].number == 3 and not ended:
            ended.append(3)
            assert _optuna.fail_trial(study, trials[-1])
        return model.accuracy

    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    tuning = TuningCriterion(timeout=None, strategy="basic")
    optuna.logging.enable_propagation()
    result = tune_fake(
        backend, evaluate=evaluate, storage=storage, study_name="s", tuning_criterion=tuning
    )
    assert ended
    assert result.fallback_ops == tune_fake(backend, tuning_criterion=tuning).fallback_ops
    assert result.study.trials[3].state == optuna.trial.TrialState.FAIL
    assert "ended this process's trial 3" in caplog.text
    assert result.abandoned == ()


def test_trial_that_others_end_while_it_is_told_costs_one_trial(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    conclude = BasicQuantSampler.after_trial

    def after_trial(self: Any, study: Any, trial: Any, *args: Any) -> None:
        if trial.number == 3:
            assert _optuna.fail_trial(study, trial)
        conclude(self, study, trial, *args)

    tuning = TuningCriterion(timeout=None, strategy="basic")
    expected = tune_fake(tuning_criterion=tuning)
    monkeypatch.setattr(BasicQuantSampler, "after_trial", after_trial)
    optuna.logging.enable_propagation()
    result = tune_fake(tuning_criterion=tuning)
    assert result.study.trials[3].state == optuna.trial.TrialState.FAIL
    assert result.fallback_ops == expected.fallback_ops
    assert "ended this process's trial" in caplog.text


def exits(*_: object) -> float:
    sys.exit(0)


def abandons(*_: object) -> float:
    raise GeneratorExit


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("leave", "shown"), [(exits, r"sys\.exit\(0\)"), (abandons, "GeneratorExit")]
)
def test_evaluation_that_ends_the_process_is_a_failed_one(
    leave: Callable[..., float], shown: str, n_jobs: int
) -> None:
    with pytest.raises(BaselineError, match=f"tried to end the process .{shown}.") as caught:
        tune_fake(evaluate=leave, n_jobs=n_jobs)
    assert isinstance(caught.value, ValueError)

    def evaluate(model: FakeModel) -> float:
        return leave() if "a" in model.config.quantized_ops else model.accuracy

    tuning = TuningCriterion(strategy="basic", strategy_kwargs={"max_failures": 1})
    result = tune_fake(
        FakeBackend({"a": 0.2, "b": 0.0}),
        evaluate=evaluate,
        tuning_criterion=tuning,
        n_jobs=n_jobs,
    )
    assert result.met
    assert result.fallback_ops == ("a",)
    assert "tried to end the process" in result.summary()
    assert not any(trial.state == optuna.trial.TrialState.RUNNING for trial in result.study.trials)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_callback_that_ends_the_process_is_an_error(n_jobs: int) -> None:
    with pytest.raises(ValueError, match=r"tune\(\) has called tried to end the process"):
        tune_fake(callbacks=[exits], n_jobs=n_jobs)


def test_holdout_that_ends_the_process_is_not_evaluated() -> None:
    result = tune_fake(holdout=exits)
    assert result.met
    assert "tried to end the process (sys.exit(0))" in str(result.holdout_missing)


def test_output_that_cannot_be_written_at_the_end_loses_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: FakeModel, path: str | Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FakeModel, "save", save)
    with pytest.raises(OutputError, match="out' could not be written: .* No space left") as caught:
        tune_fake(output=tmp_path / "out")
    assert caught.value.result.met


def test_summary_names_what_was_abandoned() -> None:
    def evaluate(model: FakeModel) -> float:
        if "a" not in model.config.quantized_ops and model.config.quantized_ops:
            raise RuntimeError("cannot be run")
        return model.accuracy

    tuning = TuningCriterion(timeout=None, strategy="basic")
    result = tune_fake(evaluate=evaluate, tuning_criterion=tuning)
    assert result.abandoned
    line = next(line for line in result.summary().splitlines() if "abandoned" in line)
    assert "Not evaluated: RuntimeError: cannot be run (3 times)" in line


def test_callback_may_stop_the_search() -> None:
    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        study.stop()

    result = tune_fake(callbacks=[stop])
    assert result.stopped_because == "callback"
    assert len(result.study.trials) == 1


def test_time_and_trials_are_limits() -> None:
    trials = tune_fake(tuning_criterion=TuningCriterion(timeout=None, max_trials=2))
    assert trials.stopped_because == "max_trials"
    assert len(trials.study.trials) == 3  # And the baseline.
    time = tune_fake(tuning_criterion=TuningCriterion(timeout=1e-9))
    assert time.stopped_because == "timeout"
    assert len(time.study.trials) == 1


def test_continued_study_must_fit(tmp_path: Path) -> None:
    storage = tmp_path / "journal"
    tune_fake(storage=storage, study_name="s")
    with pytest.raises(ValueError, match="was started with another model"):
        tune_fake(FakeBackend(DAMAGE, name="other"), storage=storage, study_name="s")
    with pytest.raises(ValueError, match="has the direction 'maximize'"):
        criterion = AccuracyCriterion(higher_is_better=False)
        tune_fake(storage=storage, study_name="s", accuracy_criterion=criterion)
    with pytest.raises(ValueError, match=r"another tuning space.*op 'a' no longer has 'fp32'"):
        narrowed = {"a": {"mode": ["static"]}}
        tune_fake(storage=storage, study_name="s", op_name_dict=narrowed)
    with pytest.raises(ValueError, match="another model"):
        tune_fake(FakeBackend({"a": 0.0}), storage=storage, study_name="s")
    # Another name, another study.
    assert tune_fake(FakeBackend({"a": 0.0}), storage=storage, study_name="b").met


def test_models_have_studies_of_their_own_where_none_is_named(tmp_path: Path) -> None:
    storage = tmp_path / "journal"
    first = tune_fake(storage=storage)
    other = tune_fake(FakeBackend({"a": 0.0}), storage=storage)
    names = optuna.get_all_study_names(open_storage(storage))
    assert names == [first.study.study_name, other.study.study_name]
    assert all(re.fullmatch(r"optuna_quant-[0-9a-f]{8}", name) for name in names)
    # One that an earlier version has started.
    old = tmp_path / "old"
    tune_fake(storage=old, study_name="optuna_quant")
    assert tune_fake(storage=old).study.study_name == "optuna_quant"
    assert tune_fake(FakeBackend({"a": 0.0}), storage=old).study.study_name == names[1]


class SignedBackend(FakeBackend):
    """A fake backend with calibration data: they change what is built."""

    def __init__(self, calibration: str, approach: str = "static") -> None:
        super().__init__(DAMAGE)
        self._calibration = calibration
        self._approach = approach
        self.files: dict[str, Path] = {}

    def signature(self) -> dict[str, str]:
        return {"calibration data": self._calibration, "options": f"approach={self._approach!r}"}

    def fingerprint(self, config: QuantConfig) -> str:
        return super().fingerprint(config) + (self._calibration if config.quantized_ops else "")


def test_continued_study_must_have_the_same_calibration_data(tmp_path: Path) -> None:
    storage = tmp_path / "journal"
    counting = CountingEvaluation()
    tune_fake(SignedBackend("one"), storage=storage, evaluate=counting)
    counting.seen.clear()
    with pytest.raises(ValueError, match="started with other calibration data, so its"):
        tune_fake(SignedBackend("two"), storage=storage, evaluate=counting)
    with pytest.raises(
        ValueError, match=r"other options \(it has approach='static'; here .*'auto'"
    ):
        tune_fake(SignedBackend("one", "auto"), storage=storage, evaluate=counting)
    with pytest.raises(ValueError, match=r"with other options \(it has .*'static'; here no app"):
        tune_fake(FakeBackend(DAMAGE), storage=storage, evaluate=counting)
    assert counting.seen == []
    assert tune_fake(SignedBackend("one"), storage=storage, evaluate=counting).met
    assert counting.seen == []


def test_signature_of_a_backend_covers_what_its_models_depend_on(tmp_path: Path) -> None:
    onnx_models = pytest.importorskip("onnx_models")

    model, x = onnx_models.convnet(), onnx_models.samples(40, 2, 8, 8)

    def signature(data: Any = x, **options: Any) -> dict[str, str]:
        return OnnxRuntimeBackend(model, calibration_data={"x": data}, **options).signature()

    first = signature()
    assert signature(x.copy()) == first

    def changed(**other: Any) -> list[str]:
        data = other.pop("data", x)
        found = signature(data, **other)
        # Where products saturate, 7 bits bring other arithmetic with them.
        assert ("reduce_range" in other) or found["arithmetic"] == first["arithmetic"]
        return [k for k, v in found.items() if v != first.get(k) and k != "arithmetic"]

    assert changed(data=x * 0.3) == ["calibration data"]
    assert changed(data=x[::-1]) == ["calibration data"]
    assert changed(calibration_batch_size=8) == ["calibration data"]
    assert changed(calibration_sizes=[16]) == ["calibration data", "options"]
    assert changed(approach="auto") == ["options", "algorithms"]
    assert changed(reduce_range=True) == ["options"]
    # Only what is used counts.
    used = signature(calibration_sizes=[16])
    assert signature(np.concatenate([x[:32], 2 * x]), calibration_sizes=[16]) == used
    dynamic = signature(approach="dynamic")
    assert signature(x * 0.3, approach="dynamic") == dynamic
    assert OnnxRuntimeBackend(model, approach="dynamic").signature() == dynamic


def test_model_that_is_another_than_the_trial_evaluated_is_not_handed_over(
    tmp_path: Path,
) -> None:
    backend = SignedBackend("one")
    result = tune_fake(backend)
    backend._calibration = "two"
    with pytest.raises(ValueError, match=r"trial \d+ cannot be built again"):
        result.model()
    with pytest.raises(ValueError, match="cannot be built again"):
        result.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_output_of_another_model_than_the_trial_evaluated_is_not_written(tmp_path: Path) -> None:
    class Same(SignedBackend):
        def signature(self) -> dict[str, str]:
            return {}  # A backend that does not tell.

    tune_fake(Same("one"), storage=tmp_path / "journal")
    for tuning in (TuningCriterion(), TuningCriterion(objective="size")):
        with pytest.raises(ValueError, match="cannot be built again"):
            tune_fake(
                Same("two"),
                storage=tmp_path / "journal",
                output=tmp_path / "out",
                tuning_criterion=tuning,
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spelled", ["model", "sub/../model", "link", "hard"])
def test_model_file_is_not_overwritten(tmp_path: Path, spelled: str) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "model"
    path.write_text("the FP32 model")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "hard").hardlink_to(path)
    backend = SignedBackend("one")
    backend.files = {"model": path}
    counting = CountingEvaluation()
    with pytest.raises(ValueError, match="is the model itself; choose another file"):
        tune_fake(backend, output=f"{tmp_path}/{spelled}", evaluate=counting)
    assert counting.seen == []
    with pytest.raises(ValueError, match="is the model itself; choose another file"):
        tune_fake(backend).save(f"{tmp_path}/{spelled}")
    assert path.read_text() == "the FP32 model"


def test_files_of_a_search_are_not_overwritten(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx_models = pytest.importorskip("onnx_models")
    path, x = tmp_path / "net.onnx", onnx_models.samples(8, 2, 8, 8)
    onnx.save(onnx_models.convnet(), path)
    np.savez(tmp_path / "calib.npz", x=x)
    given: dict[str, Any] = {"calibration_data": tmp_path / "calib.npz", "evaluate": lambda s: 1}
    given["tuning_criterion"] = TuningCriterion(objective="ops")
    for name, what in (("net.onnx", "model"), ("calib.npz", "calibration data")):
        with pytest.raises(ValueError, match=f"is the {what} itself"):
            tune(path, output=tmp_path / name, **given)
    with pytest.raises(ValueError, match="is the model itself"):
        tune(path, **given).save(path)
    with pytest.raises(ValueError, match="is the storage itself"):
        tune_fake(output=tmp_path / "new", storage=f"journal:{tmp_path / 'new'}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["calib.npz", "net.onnx"]


def test_tolerance_may_be_moved_and_old_trials_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = tmp_path / "journal"
    everything = TuningCriterion(timeout=None)
    counting = CountingEvaluation()
    strict = tune_fake(storage=storage, tuning_criterion=everything, evaluate=counting)
    counting.seen.clear()
    assert strict.fallback_ops == ("a", "c")
    loose = AccuracyCriterion(criterion="absolute", tolerable_loss=0.25)
    result = tune_fake(storage=storage, accuracy_criterion=loose, evaluate=counting)
    assert result.met
    # Hardly more than the answer, which is another one and is evaluated a second time.
    assert counting.seen[-1].config == result.config
    assert len(counting.seen) <= 2
    assert result.fallback_ops == ("c",)
    assert "was started with another criterion (at most 0.1 absolute loss" in caplog.text


# Strategies.


@pytest.mark.parametrize("strategy", ["basic", "exhaustive", "random"])
def test_named_strategy_is_used(strategy: str) -> None:
    result = tune_fake(
        FakeBackend({"a": 0.0, "b": 0.0}), tuning_criterion=TuningCriterion(strategy=strategy)
    )
    assert result.met
    assert type(result.study.sampler) is strategies()[strategy]


def test_strategy_kwargs_reach_the_sampler() -> None:
    tuning = TuningCriterion(
        strategy="exhaustive", strategy_kwargs={"fallback": True}, timeout=None
    )
    result = tune_fake(tuning_criterion=tuning)
    assert result.fallback_ops == ("a", "c")
    assert len(result.study.trials) == 8


@pytest.mark.parametrize(
    ("quant_level", "strategy", "chosen"),
    [
        (None, None, "auto"),
        (None, "random", "random"),
        ("auto", None, "auto"),
        ("auto", "auto", "auto"),
        (0, None, "conservative"),
        (1, None, "basic"),
        (1, "exhaustive", "exhaustive"),
    ],
)
def test_quant_level_chooses(
    quant_level: str | int | None, strategy: str | None, chosen: str
) -> None:
    assert choose_strategy(quant_level, strategy) == chosen


@pytest.mark.parametrize(
    ("quant_level", "strategy", "message"),
    [
        (
            None,
            "bayes",
            "no strategy 'bayes'. Did you mean 'bayesian'. The strategies are: .*random",
        ),
        ("auto", "random", "contradicts strategy='random'"),
        (0, "random", "quant_level=0 stands for the strategy 'conservative'"),
        (2, None, "quant_level must be 'auto', 0 or 1, but got 2"),
        (True, None, "quant_level must be 'auto', 0 or 1, but got True"),
        ("o1", None, "quant_level must be 'auto', 0 or 1, but got 'o1'"),
    ],
)
def test_quant_level_refuses(
    quant_level: str | int | None, strategy: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        choose_strategy(quant_level, strategy)


def test_unknown_option_of_a_strategy_lists_the_known_ones() -> None:
    tuning = TuningCriterion(strategy="basic", strategy_kwargs={"max_trial": 3})
    with pytest.raises(ValueError, match=r"no option 'max_trial'.*max_op_type_trials.*baseline"):
        tune_fake(tuning_criterion=tuning)
    assert "seed" not in sampler_options(BasicQuantSampler)


# Bad input, before anything is evaluated.


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"evaluate": None}, ValueError, "but got neither"),
        ({"data": "x.npz"}, ValueError, "but got both"),
        ({"metric": "accuracy"}, ValueError, "metric='accuracy' is for data"),
        ({"evaluation_threads": 2}, ValueError, "evaluation_threads=2 is for data"),
        ({"evaluation_threads": 0}, ValueError, "evaluation_threads must be at least 1"),
        ({"evaluation_threads": True}, TypeError, "evaluation_threads must be an integer"),
        ({"evaluate": 3}, TypeError, "evaluate must be a function, but got 3"),
        ({"evaluate": None, "data": "x.npy"}, ValueError, "must be an .npz file"),
        ({"evaluate": None, "data": "none.npz"}, ValueError, "There is no file 'none.npz'"),
        ({"accuracy_criterion": 0.01}, TypeError, "accuracy_criterion must be .*AccuracyCrit"),
        ({"tuning_criterion": 5}, TypeError, "tuning_criterion must be .*TuningCriterion"),
        ({"tuning_criterion": TuningCriterion(strategy="x")}, ValueError, "no strategy 'x'"),
        (
            {"model": "m.onnx"},
            ValueError,
            "^model: this belongs to the backend",
        ),
        ({"threads": 1}, ValueError, "^threads: this belongs to the backend"),
        ({"calibration_data": [1], "approach": "auto"}, ValueError, "approach, calibration_data:"),
        ({"op_types": ["Gemm"]}, ValueError, "no 'Gemm'"),
        ({"storage": "/nowhere/at/all"}, ValueError, "cannot be opened: there is no directory"),
        ({"output": "/nowhere/at/all"}, ValueError, "cannot be written: there is no directory"),
    ],
)
def test_bad_input_is_found_before_the_search(
    kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    backend, counting = FakeBackend(DAMAGE), CountingEvaluation()
    with pytest.raises(error, match=message):
        tune_fake(backend, **{"evaluate": counting, **kwargs})
    assert counting.seen == []


def test_a_class_is_no_backend() -> None:
    with pytest.raises(TypeError, match=r"backend must be an instance.*FakeBackend\(\.\.\.\)"):
        tune(backend=FakeBackend, evaluate=evaluate)


def test_a_model_of_another_runtime_needs_its_backend() -> None:
    with pytest.raises(TypeError, match=r"another runtime give backend="):
        tune(FakeBackend(2), evaluate=evaluate)


def test_no_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="No model is given"):
        tune(evaluate=evaluate)


@pytest.mark.parametrize(
    ("kwargs", "cores", "threads"),
    [
        ({}, 8, 2),
        ({}, 1, 1),
        ({"evaluation_threads": 4}, 8, 4),
        ({"evaluation_threads": 1}, 8, 1),
        ({"session_options": ort.SessionOptions()}, 8, 1),
        ({"session_options": ort.SessionOptions(), "evaluation_threads": 3}, 8, 3),
        ({"providers": ["CPUExecutionProvider"]}, 8, 1),
    ],
)
def test_how_many_batches_run_at_once(
    monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, Any], cores: int, threads: int
) -> None:
    monkeypatch.setattr(measures, "available_cores", lambda: cores)
    x = onnx_models.samples(8, 2, 8, 8)
    data = {"x": x, "labels": np.zeros(len(x))}
    given = {"calibration_data": x, "data": data, "holdout": {**data, "x": x + 1}}
    found = prepared(model=onnx_models.convnet(), **given, **kwargs)
    for evaluation in (found.measure, found.holdout):
        assert isinstance(evaluation, DataEvaluation)
        assert evaluation.threads == threads


def test_the_result_is_the_same_however_many_batches_run_at_once() -> None:
    found = [
        tune(
            DIGITS / "model.onnx",
            calibration_data=DIGITS / "calib.npz",
            data=DIGITS / "eval.npz",
            evaluation_threads=threads,
            tuning_criterion=TuningCriterion(strategy="basic", objective="ops", max_trials=4),
            measure_gain=False,
        )
        for threads in (1, 3)
    ]
    kept = [
        [(t.state, t.value, t.params, t.user_attrs.get("evidence")) for t in r.study.trials]
        for r in found
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) > 3
    # The user's own runs come one at a time, and have all cores.
    options = found[1].model().session.get_session_options()
    assert options.intra_op_num_threads == 0


def test_metric_must_go_the_way_of_the_criterion() -> None:
    data = {"x": np.zeros((2, 3)), "labels": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"'mse' lower is better.*higher_is_better=False"):
        tune_fake(
            evaluate=None,
            data=data,
            metric="mse",
            accuracy_criterion=AccuracyCriterion(higher_is_better=True),
        )
    with pytest.raises(ValueError, match=r"'accuracy' higher is better.*higher_is_better=True"):
        tune_fake(
            evaluate=None,
            data=data,
            accuracy_criterion=AccuracyCriterion(higher_is_better=False),
        )


@pytest.mark.parametrize("given", [None, AccuracyCriterion(tolerable_loss=0.3)])
def test_direction_is_that_of_the_metric_unless_it_is_given(
    given: AccuracyCriterion | None,
) -> None:
    x = onnx_models.samples(150, 2, 8, 8)
    (scores,) = onnx_models.run(onnx_models.convnet(), {"x": x})
    found = prepared(
        model=onnx_models.convnet(),
        calibration_data=x,
        data={"x": x, "labels": scores},
        metric="mae",
        accuracy_criterion=given,
    )
    assert found.criterion.higher_is_better is False
    assert found.criterion.direction == "minimize"
    assert found.criterion.tolerable_loss == (0.01 if given is None else 0.3)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_traceback_of_a_failed_baseline_starts_at_the_users_lines(n_jobs: int) -> None:
    def inner() -> float:
        raise KeyError("no such input")

    with pytest.raises(BaselineError, match="KeyError: 'no such input'") as caught:
        tune_fake(evaluate=lambda model: inner(), n_jobs=n_jobs)
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    names = [frame.name for frame in traceback.extract_tb(cause.__traceback__)]
    assert names == ["<lambda>", "inner"]
    shown = "".join(traceback.format_exception(caught.value))
    assert "baseline_measurement" not in shown
    assert "optimize" not in shown


def test_baseline_that_is_no_number_is_an_error_of_tune() -> None:
    with pytest.raises(BaselineError, match="returned None"):
        tune_fake(evaluate=lambda model: None)


def test_output_is_checked(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new") == tmp_path / "new"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="it is a directory"):
        check_output(tmp_path)
    with pytest.raises(ValueError, match=r"it is a directory; .* such as '.*new/model.onnx'"):
        check_output(f"{tmp_path}/new/")
    with pytest.raises(ValueError, match=r"as files that end with '\.npz'; give '.*new\.npz'"):
        check_output(tmp_path / "new.onnx", endings=(".npz",))
    with pytest.raises(ValueError, match=r"models are saved as ONNX; give '.*new.onnx'"):
        check_output(tmp_path / "new.pt")
    with pytest.raises(ValueError, match=r"The report .* cannot be written: there is no direc"):
        check_output(tmp_path / "no" / "file", "report")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
def test_output_takes_the_place_of_no_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(ValueError, match="it exists and is not an ordinary file"):
            check_output(path)


# What a result is worth.


@pytest.mark.parametrize("size", [4000, 5000])
def test_model_that_is_no_smaller_is_called_that(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "no smaller than FP32, which has 4 kB: it is useful only if it is faster"
    assert told not in str(tune_fake())
    sizes = property(lambda model: size if model.config.quantized_ops else 4000)
    monkeypatch.setattr(FakeModel, "nbytes", sizes)
    assert any(line.startswith(told) for line in str(tune_fake()).splitlines())


@pytest.mark.parametrize(
    ("metric", "higher_is_better", "asked"),
    [
        (lambda model: 1 - model.accuracy, True, "is higher really better? If lower is better"),
        (lambda model: model.accuracy, False, "is lower really better? If higher is better"),
        (lambda model: model.accuracy, True, None),
        (lambda model: 1 - model.accuracy, False, None),
    ],
)
def test_gain_that_is_too_good_is_asked_about(
    metric: Callable[[FakeModel], float],
    higher_is_better: bool,
    asked: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    optuna.logging.enable_propagation()
    criterion = AccuracyCriterion(
        higher_is_better=higher_is_better, criterion="absolute", tolerable_loss=0.35
    )
    assert tune_fake(evaluate=metric, accuracy_criterion=criterion).met
    optuna.logging.disable_propagation()
    said = [r.getMessage() for r in caplog.records if "really better" in r.getMessage()]
    assert len(said) == (asked is not None)
    assert asked is None or asked in said[0]


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"op_type_dict": {"Conv": {"mode": ["fp32"]}}}, "op_type_dict leaves"),
        ({"op_name_dict": {".*": {"weight": {"dtype": ["fp32"]}}}}, "op_name_dict leaves"),
        (
            {
                "op_type_dict": {"Conv": {"mode": ["fp32"]}},
                "op_name_dict": {"a": {"mode": ["fp32"]}},
            },
            "op_type_dict and op_name_dict leave",
        ),
    ],
)
def test_dictionaries_that_leave_nothing_to_quantize_are_an_error(
    kwargs: dict[str, Any], named: str
) -> None:
    counting = CountingEvaluation()
    with pytest.raises(ValueError, match=f"{named} no op any quantized option"):
        tune_fake(evaluate=counting, **kwargs)
    assert counting.seen == []


def test_no_storage_is_opened_before_the_rest_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no 'Gemm'"):
        tune_fake(storage=tmp_path / "journal", op_types=["Gemm"])
    assert list(tmp_path.iterdir()) == []


def test_baseline_error_is_not_logged_besides(optuna_log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BaselineError):
        tune_fake(evaluate=lambda model: None)
    assert "Traceback" not in optuna_log.text
    # An error of another kind is Optuna's to log, as ever.
    with pytest.raises(ZeroDivisionError):
        optuna.create_study().optimize(lambda trial: 1 / 0, n_trials=1)
    assert "Traceback" in optuna_log.text


# Storages.


def test_storage_is_opened_by_its_address(tmp_path: Path) -> None:
    assert isinstance(open_storage(None), optuna.storages.InMemoryStorage)
    given = optuna.storages.InMemoryStorage()
    assert open_storage(given) is given
    for address in (tmp_path / "a.log", f"journal:{tmp_path / 'b.log'}", str(tmp_path / "c.log")):
        assert isinstance(open_storage(address), optuna.storages.JournalStorage)
    assert (tmp_path / "b.log").exists()
    database = open_storage(f"sqlite:///{tmp_path / 'd.db'}")
    assert isinstance(database, optuna.storages.RDBStorage)
    assert database.get_heartbeat_interval() is not None


def test_file_that_is_no_journal_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x07 no newline at the end")
    with pytest.raises(ValueError, match="is not a journal"):
        open_storage(path)
    assert path.read_bytes() == b"\x08\x07 no newline at the end"


def test_journal_with_a_broken_end_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    study = optuna.create_study(storage=open_storage(path), study_name="s")
    study.optimize(lambda trial: 1.0, n_trials=2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 3].rpartition(b"\n")[2])
    assert not path.read_bytes().endswith(b"\n")
    study = optuna.load_study(storage=open_storage(path), study_name="s")
    assert path.read_bytes() == whole
    study.optimize(lambda trial: 1.0, n_trials=1)
    assert len(optuna.load_study(storage=open_storage(path), study_name="s").trials) == 3


def test_storage_error_is_one_line_without_the_password() -> None:
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        open_storage("nonsense://user:secret@host/db")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# Labelled data.


class Value:
    def __init__(self, name: str, kind: str, shape: list[int | str | None]) -> None:
        self.name, self.type, self.shape = name, kind, shape


class Session:
    """Gives its input, as the scores of the classes."""

    def __init__(
        self, function: Callable[[np.ndarray], np.ndarray], *, batch: int | str = "batch"
    ) -> None:
        self._function = function
        self._batch = batch
        self.sizes: list[int] = []

    def get_inputs(self) -> list[Value]:
        return [Value("x", "tensor(float)", [self._batch, 3])]

    def get_outputs(self) -> list[Value]:
        return [Value("y", "tensor(float)", [self._batch, 3])]

    def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs == ["y"]
        assert feed["x"].dtype == np.float32
        self.sizes.append(len(feed["x"]))
        return [self._function(feed["x"])]


SCORES = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]


@pytest.mark.parametrize("name", ["labels", "label", "y", "target", "anything"])
def test_data_evaluation_gives_the_metric(name: str) -> None:
    session = Session(lambda x: x)
    labels = np.array([0, 1, 2, 1, 0])
    evaluation = DataEvaluation({"x": SCORES.astype(float), name: labels}, batch_size=2)
    assert evaluation(session) == pytest.approx(3 / 5)
    assert session.sizes == [2, 2, 1]


def test_data_evaluation_fills_up_a_fixed_batch() -> None:
    session = Session(lambda x: x, batch=2)
    evaluation = DataEvaluation({"x": SCORES, "y": np.array([[0], [1], [2], [0], [0]])})
    assert evaluation(session) == pytest.approx(4 / 5)
    assert session.sizes == [2, 2, 2]


def test_data_evaluation_reads_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=SCORES, y=np.array([0, 1, 2, 0, 1]), mean=np.float32(3))
    assert DataEvaluation(tmp_path / "data.npz")(Session(lambda x: x)) == 1.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"z": SCORES, "y": [0] * 5}, "Input 'x' is missing in the evaluation data"),
        ({"x": SCORES}, r"one array of labels in the evaluation data.*there are: x\."),
        ({"x": SCORES, "a": [0] * 5, "b": [0] * 5}, "one array of labels"),
        ({"x": SCORES, "y": [0] * 4}, "same number of samples.*x: 5, the labels: 4"),
        ({"x": SCORES, "y": 3}, "same number of samples.*the labels: none"),
        ({"x": SCORES[:, :2], "y": [0] * 5}, r"Input 'x'.*\(5, 2\)"),
        ({"x": SCORES.astype(int), "y": [0] * 5}, "Input 'x'.*int64"),
    ],
)
def test_data_evaluation_says_what_does_not_fit(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataEvaluation(data).check(Session(lambda x: x))


def test_data_evaluation_refuses() -> None:
    with pytest.raises(ValueError, match="no metric 'wer'. The metrics are: accuracy, top5"):
        DataEvaluation({}, "wer")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        DataEvaluation({}, batch_size=0)


def test_accuracy_finds_the_axis_of_the_classes() -> None:
    scores = np.arange(24.0).reshape(2, 3, 4)
    assert accuracy(scores, np.full((2, 3), 3)).tolist() == [1, 1]  # (samples, ..., classes)
    assert accuracy(scores, np.full((2, 4), 2)).tolist() == [1, 1]  # (samples, classes, ...)
    half = np.array([[3, 3, 0], [3, 0, 0]])
    assert accuracy(scores, half) == pytest.approx([2 / 3, 1 / 3])
    assert accuracy(np.array([1, 2]), np.array([1, 1])).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and the labels \(2, 5\)"):
        accuracy(scores, np.zeros((2, 5)))


def test_other_metrics_against_plain_arithmetic() -> None:
    scores = np.arange(20.0).reshape(2, 10)
    assert top5(scores, np.array([5, 4])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="top5 needs"):
        top5(scores, np.zeros((2, 10)))
    output, labels = np.array([[1.0, 2], [3, 4]]), np.array([[1, 0], [0, 0]])
    assert mse(output, labels).tolist() == [2, 12.5]
    assert mae(output, labels).tolist() == [1, 3.5]
    assert mse(np.array([[1.0], [3.0]]), np.array([0, 0])).tolist() == [1, 9]
    with pytest.raises(ValueError, match="these have the shapes"):
        mse(output, labels[:, :1])


# What Optuna logs, and names of others.


@pytest.mark.parametrize("show_progress", [False, True])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_lines_of_optuna_are_dropped_for_this_study_alone(
    show_progress: bool, n_jobs: int, optuna_log: pytest.LogCaptureFixture
) -> None:
    def studying(model: FakeModel) -> float:
        """An evaluation that runs a study of its own, with trials of the same numbers."""
        own = optuna.create_study()
        own.optimize(lambda trial: trial.suggest_float("mine", 0, 1), n_trials=2)
        if not model.config.fallback_ops:
            raise RuntimeError("not this one")
        return model.accuracy

    result = tune_fake(evaluate=studying, show_progress=show_progress, n_jobs=n_jobs)
    lines = [entry.getMessage() for entry in optuna_log.records if "Trial" in entry.getMessage()]
    own = [line for line in lines if "{'mine': " in line]
    evaluated = [trial for trial in result.study.trials if trial.state.is_finished()]
    assert len(evaluated) > 2
    assert len(own) >= 2 * 2
    assert not [line for line in lines if "quant.op:" in line]
    # For the call only.
    optuna_log.clear()
    optuna.create_study().optimize(lambda trial: 1.0, n_trials=1)
    assert "Trial 0 finished" in optuna_log.text
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("eval_func", "evaluate"),
        ("calib_dataloader", "calibration_data"),
        ("eval_dataloader", "data"),
        ("eval_metric", "metric"),
    ],
)
def test_names_of_neural_compressor_are_known(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"no option '{name}'. Did you mean '{meant}'"):
        tune_fake(**{name: None})


def test_no_line_of_optuna_names_the_study_that_is_created(
    optuna_log: pytest.LogCaptureFixture,
) -> None:
    tune_fake()
    assert "A new study created" not in optuna_log.text
    optuna.create_study()  # One of somebody else's is still named.
    assert "A new study created" in optuna_log.text
