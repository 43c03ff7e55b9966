"""A record alone gives the same answer; what it does not hold is not known, and not guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fake_backend import FakeBackend
import optuna
import pytest
from report.kinds import DAMAGE
from report.kinds import FAST
from report.kinds import SLOW
from report.kinds import TOLERANT
from report.kinds import not_met
from report.kinds import sampled
from report.kinds import search

import optuna_quant._optuna
from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Gain
from optuna_quant.report import collect
from optuna_quant.report import collect_recorded
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.selection.answer import candidates
from optuna_quant.study import record
from optuna_quant.tuning.findings import find_findings
from optuna_quant.tuning.findings import keep_findings
from optuna_quant.tuning.recorded_outcome import recorded_outcome
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.status import status_of


SEARCHES: dict[str, Callable[[], TuningResult]] = {
    "met": search,
    "by latency": lambda: search(quantized=FAST),
    "samples": sampled,
    "staged": lambda: sampled(strategy="basic"),
    "not met": not_met,
    "fp32": lambda: search(quantized=SLOW),
    "by a function": lambda: search(objective=lambda config: float(len(config.fallback_ops))),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_answer_is_that_of_the_search(name: str) -> None:
    result = SEARCHES[name]()
    live, recorded = collect(result), collect_recorded(result.study)
    assert recorded.source == "record"
    assert recorded.outcome.kind == live.outcome.kind
    assert recorded.outcome.headline == live.outcome.headline
    assert recorded.answer is not None and live.answer is not None
    for field in ("trial", "metric", "loss", "loss_interval", "models_compared", "nbytes"):
        assert getattr(recorded.answer, field) == getattr(live.answer, field)
    assert {op.op: op.state for op in recorded.ops} == {op.op: op.state for op in live.ops}
    assert recorded.search.trials == live.search.trials
    assert recorded.effort == live.effort
    assert recorded.baseline == live.baseline


def test_what_the_search_has_found_at_its_end_is_in_the_record() -> None:
    result = sampled(holdout=0.3, strategy="basic", seed=3)
    live, recorded = collect(result), collect_recorded(result.study)
    assert live.answer is not None and recorded.answer is not None
    assert recorded.answer.holdout == live.answer.holdout is not None
    assert recorded.search.strategy == "basic"
    assert recorded.reproduce == live.reproduce
    assert recorded.reproduce.seed == 3 and "tune(" in str(recorded.reproduce.code)


def test_the_measured_answer_and_its_gain_are_in_the_record() -> None:
    study = search().study
    gain = Gain(
        seconds=1.0,
        fp32_seconds=2.0,
        time_ratio=Ratio(0.5, 0.4, 0.6),
        nbytes=10,
        fp32_bytes=40,
        batch=1,
        threads=2,
        runs=50,
    )
    outcome = recorded_outcome(study)
    assert outcome.trial is not None
    keep_findings(replace(outcome, gain=gain))
    assert recorded_outcome(study).gain == gain
    known = find_findings(study)
    assert known is not None
    first, second, *_ = candidates(study, TOLERANT)
    measured = replace(known, trial=second.trial.number)
    assert measured.measured([first, second]) == (second, gain)
    assert measured.measured([first]) == (first, None)
    # What comes after it may be better.
    study.add_trial(outcome.trial)
    assert recorded_outcome(study).gain is None


def test_a_record_that_cannot_be_written_to_costs_no_result(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*given: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("optuna_quant.tuning.findings.write_text", full)
    optuna.logging.enable_propagation()
    try:
        assert search().met
    finally:
        optuna.logging.disable_propagation()
    assert "the disk is full" in caplog.text


def test_other_parameters_of_an_objective_of_ones_own_are_told() -> None:
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()

    def objective(trial: optuna.Trial) -> float:
        temperature = trial.suggest_float("temperature", 0.5, 2.0)
        return backend.quantize(space.suggest(trial)).accuracy - 0.001 * temperature

    sampler = BasicQuantSampler(space, criterion=TOLERANT)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=8)
    report = collect_recorded(study)
    assert report.answer is not None
    best = study.trials[report.answer.trial]
    value = best.params["temperature"]
    assert report.answer.other_params == {"temperature": value}
    assert report.search.trials[best.number].other_params == {"temperature": value}
    assert f"other parameters: temperature={value}" in report.outcome.summary
    assert "Other parameters of the trial" in report.to_html()
    status = status_of(study)
    assert status.other_params == {"temperature": value}
    assert f"its other parameters: temperature={value}" in str(status)


def test_what_is_not_in_the_record_is_not_known() -> None:
    result = sampled(holdout=0.3)
    # As a search of an earlier version, or one that was killed, has left it.
    optuna_quant._optuna.set_study_system_attr(
        result.study, f"optuna_quant:{record.FINDINGS}", None
    )
    report = collect_recorded(result.study)
    assert (report.gain, report.model.inputs, report.model.file) == (None, (), None)
    assert report.search.strategy is None and report.reproduce.code is None
    assert {op.runs for op in report.ops} == {""} and {op.as_asked for op in report.ops} == {None}
    assert report.answer is not None and report.answer.holdout is not None
    assert report.answer.holdout.missing == "its result is not in the record"
    page = report.to_html()
    assert "made from the record of the study alone" in page
    assert "nor what was measured at the end of the search, nor the result on the hold-out" in page
    known = collect_recorded(sampled(holdout=0.3).study).to_html()
    assert "does not have what the runtime executes" in known
    assert "nor the result on the hold-out" not in known
    assert list(report.environment.versions) == ["optuna_quant"]


def test_the_study_is_only_read() -> None:
    result = sampled()
    study = result.study
    sampler, trials, attrs = study.sampler, study.trials, dict(study.user_attrs)
    system = study._storage.get_study_system_attrs(study._study_id)
    collect_recorded(study)
    assert study.sampler is sampler
    assert (study.trials, study.user_attrs) == (trials, attrs)
    assert study._storage.get_study_system_attrs(study._study_id) == system
    assert isinstance(sampler, SurrogateQuantSampler)


def test_a_search_that_has_not_ended_says_so() -> None:
    stopped = sampled().study.user_attrs["optuna_quant:stopped_because"]
    assert stopped  # This is what such a search has not written yet.
    study = optuna.create_study(direction="maximize")
    with pytest.raises(ValueError, match="holds no tuning space"):
        collect_recorded(study)


def test_a_second_evaluation_that_failed_is_remembered() -> None:
    calls: list[int] = []

    def lucky(model: object) -> float:
        calls.append(1)
        accuracy = float(model.accuracy)  # type: ignore[attr-defined]
        return accuracy if len(calls) < 7 else accuracy - 0.01 * len(calls)

    result = search(DAMAGE, evaluate=lucky, accuracy_criterion=TOLERANT)
    assert collect_recorded(result.study).outcome.kind == collect(result).outcome.kind
