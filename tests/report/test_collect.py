"""The facts of a report are those of the result: nothing is judged again, no kind is blurred."""

from __future__ import annotations

from dataclasses import replace
import json

from fake_backend import FP32_BYTES
import pytest
from report.kinds import FAST
from report.kinds import KINDS
from report.kinds import accuracy
from report.kinds import sampled
from report.kinds import search

from optuna_quant import _optuna
from optuna_quant.report import collect
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import computing_times
from optuna_quant.tuning.outcome import ResultKind
from optuna_quant.tuning.result import TuningResult


LABELS = {
    "met": "met",
    "holdout_missed": "missed on the hold-out set",
    "met_without_gain": "met, but no faster than FP32",
    "fp32": "no gain: FP32 is best",
    "nothing_evaluated": "not met: nothing was evaluated",
    "not_reproducible": "not reproducible",
    "not_fully_evaluated": "not fully evaluated",
    "not_met": "not met",
}


@pytest.mark.parametrize("kind", ResultKind)
def test_each_kind_is_called_what_it_is(kind: ResultKind) -> None:
    result = KINDS[kind]()
    assert result.kind == kind
    facts = collect(result).outcome
    assert (facts.kind, facts.label) == (kind.value, LABELS[kind])
    assert (facts.met, facts.is_better_than_fp32, facts.is_fp32) == (
        result.met,
        result.is_better_than_fp32,
        result.is_fp32,
    )
    assert facts.is_reproducible == result.is_reproducible
    assert "\n".join(facts.summary) == str(result)
    assert str(result).startswith(facts.headline.removesuffix("."))


def test_every_kind_has_its_own_words() -> None:
    found = [collect(KINDS[kind]()).outcome for kind in ResultKind]
    assert len({facts.label for facts in found}) == len({f.headline for f in found}) == len(KINDS)


def test_the_answer_is_that_of_the_result() -> None:
    result = sampled({"a": 0.2, "b": 0.05, "c": 0.3})
    report = collect(result)
    answer, trial = report.answer, result.trial
    assert answer is not None and trial is not None
    assert (answer.trial, answer.metric, answer.loss) == (trial.number, result.metric, result.loss)
    assert answer.loss_interval == result.loss_interval
    assert answer.models_compared == result.models_compared
    assert (answer.samples, answer.of_samples) == (1000, 1000)
    assert (answer.quantized_ops, answer.fallback_ops) == (1, 2)
    assert report.baseline is not None
    assert (report.baseline.metric, report.baseline.samples) == (0.9, 1000)
    assert report.criterion.threshold == pytest.approx(0.8)
    assert report.model.nbytes == FP32_BYTES
    assert report.effort.full_evaluations == result.full_evaluations
    assert report.source == "search"


def test_each_op_is_told_with_its_state() -> None:
    result = search(quantized=FAST)
    ops = {op.op: op for op in collect(result).ops}
    assert result.config is not None
    assert list(ops) == list(result.config.ops)
    assert {name: op.state for name, op in ops.items()} == {
        "a": "fallback",
        "b": "quantized",
        "c": "fallback",
    }
    assert (ops["b"].precision, ops["a"].precision) == ("INT8", "FP32")
    assert ops["b"].seconds_gained == pytest.approx(0.8e-3)
    assert {name: op.why for name, op in ops.items()} == {n: result.explain(n) for n in ops}


def test_trials_and_stages_are_those_of_the_study() -> None:
    result = sampled()
    found = collect(result).search
    assert [trial.number for trial in found.trials] == [t.number for t in result.study.trials]
    assert sum(stage.trials for stage in found.stages) == len(result.study.trials)
    outcomes = {trial.outcome for trial in found.trials}
    assert "baseline" in outcomes and "met" in outcomes and "given up" in outcomes
    assert sum(stage.evaluations for stage in found.stages) == pytest.approx(
        result.full_evaluations, abs=0.1
    )
    assert (found.stopped_because, found.message) == (result.stopped_because, result.message)
    assert found.strategy == "auto"


def test_a_changed_tolerance_judges_the_trials_as_well() -> None:
    chosen = search(timeout=None, max_trials=20).choose(tolerable_loss=0.26)
    judged = [t for t in collect(chosen).search.trials if t.outcome in ("met", "missed")]
    assert any(0.1 < trial.loss < 0.26 for trial in judged if trial.loss is not None)
    for trial in judged:
        assert trial.loss is not None
        assert trial.outcome == ("met" if trial.loss <= 0.26 else "missed")


def keep_time(result: TuningResult, name: str, second: int, seconds: float, worker: str) -> None:
    kept = {"at": f"2026-01-01T00:00:{second:02d}", "seconds": seconds, "worker": worker}
    _optuna.set_study_system_attr(result.study, f"optuna_quant.seconds:{name}", kept)


def test_time_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing_times, "_LEAST_SECONDS", float("inf"))  # None but those below.
    result = search()
    keep_time(result, "costs:1", 0, 10.0, "one")
    keep_time(result, "calibration:1", 1, 4.0, "one")  # In the course of measuring.
    keep_time(result, "option_scores:1", 2, 3.0, "other")
    time = collect(result).time
    parts = {part.name: part.seconds for part in time.parts}
    assert (parts["measuring costs"], parts["calibration"], parts["sensitivities"]) == (6, 4, 3)
    assert time.worker_seconds == pytest.approx(sum(parts.values()))
    assert [part.seconds for part in time.parts] == sorted(parts.values(), reverse=True)


def test_a_time_that_was_edited_is_left_out() -> None:
    result = search()
    _optuna.set_study_system_attr(result.study, "optuna_quant.seconds:costs:1", {"at": "now"})
    assert "measuring costs" not in {part.name for part in collect(result).time.parts}


def test_the_call_is_told_with_its_seed() -> None:
    found = collect(search(seed=7)).reproduce
    assert (found.language, found.seed) == ("python", 7)
    assert found.code is not None
    assert "    evaluate=...,  # accuracy\n" in found.code
    assert "    seed=7,\n" in found.code
    assert found.models_depend_on["model"]
    assert found.metrics_depend_on["function"].startswith(accuracy.__qualname__)


def test_the_configuration_can_be_used_again() -> None:
    result = search()
    stored = collect(result).reproduce.config
    assert QuantConfig.from_json(json.dumps(stored)) == result.config


def test_the_same_record_gives_the_same_report() -> None:
    result = sampled()
    assert collect(result) == collect(result)
    assert collect(result).to_json() == collect(replace(result)).to_json()


def test_a_failing_runtime_is_no_error() -> None:
    result = search()

    def refuse(config: QuantConfig) -> None:
        raise RuntimeError("no runtime")

    result.backend.before_build = refuse  # type: ignore[attr-defined]
    result.backend.executed = refuse  # type: ignore[method-assign,assignment]
    report = collect(replace(result))
    assert report.model.inputs == ()
    assert [op.runs for op in report.ops] == ["", "", ""]
