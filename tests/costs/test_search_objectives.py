"""Searches by what models cost: which one is the answer, which ops are tried, what is said."""

from __future__ import annotations

import logging
import threading
from typing import Any

from costed_backend import BAD
from costed_backend import GOOD
from costed_backend import CostedBackend
from costed_backend import RunsBackend
from costed_backend import table
from fake_backend import FakeBackend
from fake_backend import FakeModel
import optuna
import pytest
from spaces import STATIC
from spaces import STATIC_TENSOR

from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Measured
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import ranked
from optuna_quant.space.config import FP32
from optuna_quant.study import record
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.finalists import measure_finalists
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
# "a" and "b" cannot both be quantized; "b" gains more time, "a" more bytes.
DAMAGE = {"a": 0.06, "b": 0.06, "c": 0.0}
FAST = {"a": 0.8, "b": 0.5, "c": 0.9}
SMALL = {"a": 0.2, "b": 0.8, "c": 0.9}


def go(backend: FakeBackend, objective: Any = None, **kwargs: Any) -> TuningResult:
    given: dict[str, Any] = {
        "evaluate": lambda model: model.accuracy,
        "accuracy_criterion": TOLERANT,
        "tuning_criterion": TuningCriterion(
            timeout=None, objective=objective, strategy=kwargs.pop("strategy", "basic")
        ),
    }
    return tune(backend=backend, **given | kwargs)


def costed(**kwargs: Any) -> CostedBackend:
    return CostedBackend(DAMAGE, FAST, **{"sizes": SMALL, **kwargs})


# Which one is the answer.


@pytest.mark.parametrize(
    ("objective", "fallback", "cost"),
    [
        (None, ("a",), 2.4e-3),
        ("latency", ("a",), 2.4e-3),
        ({"latency": 1, "size": 1000}, ("b",), None),
        (lambda config: len(config.fallback_ops) + config["b"].is_quantized, ("b",), 1.0),
    ],
)
def test_the_answer_is_the_cheapest_that_meets_the_criterion(objective, fallback, cost):
    result = go(costed(), objective)
    assert result.met
    assert result.fallback_ops == fallback
    if cost is not None:
        assert result.cost == pytest.approx(cost)


def test_a_size_is_that_of_the_real_model():
    # The table says that "a" is the larger gain, the models that both save the same but 1 byte.
    backend = costed(sizes={"a": 0.9, "b": 0.2, "c": 0.9})
    result = go(backend, "size")
    assert (result.objective, result.fallback_ops) == ("size", ("b",))
    assert result.cost == 4000 - 201
    assert not backend.calls["costs"]  # Models tell their size themselves.


def test_without_costs_it_is_the_ops_in_fallback():
    result = go(FakeBackend(DAMAGE))
    assert (result.objective, result.cost) == ("ops", 1)
    assert result.is_better_than_fp32 is True
    with pytest.raises(ValueError, match=r"'latency' needs latency.*Give costs="):
        go(FakeBackend(DAMAGE), "latency")


@pytest.mark.parametrize("objective", ["ops", "size"])
def test_costs_are_not_measured_for_what_needs_none(objective):
    backend = costed()
    assert go(backend, objective).objective == objective
    assert not backend.calls["costs"]


@pytest.mark.parametrize("name", ["fallback_ops", "model_size"])
def test_older_names_stand_for_the_newer_ones(name):
    assert go(costed(), name).objective == {"fallback_ops": "ops", "model_size": "size"}[name]


def test_a_table_that_does_not_predict_is_not_gone_by(caplog):
    with caplog.at_level(logging.WARNING, "optuna_quant"):
        logging.getLogger("optuna_quant").propagate = True
        result = go(costed(validation=BAD))
        assert result.objective == "size"
        assert "rank correlation 0.20" in caplog.text
        caplog.clear()
        # A user who insists on it gets it, with a warning.
        assert go(costed(validation=BAD), "latency").objective == "latency"
        assert "may not be the fastest" in caplog.text


def test_a_backend_that_fails_to_measure_is_no_end_of_a_search(tmp_path):
    storage = tmp_path / "journal"
    backend = costed(error=RuntimeError("no profile"))
    result = go(backend, storage=storage)
    assert (result.met, result.objective) == (True, "size")
    again = costed(error=RuntimeError("no profile"))
    go(again, storage=storage)
    assert not again.calls["costs"]  # That it cannot be measured is in the record.
    with pytest.raises(RuntimeError, match="no profile"):
        go(costed(error=RuntimeError("no profile")), "latency")


def test_trials_record_what_they_cost():
    result = go(costed(), "latency")
    for trial in result.study.trials:
        costs = trial.user_attrs[record.COSTS]
        assert set(costs) == {"latency", "size", "ops"}
        assert costs["size"] == trial.user_attrs[record.MODEL_BYTES]
        assert costs["ops"] == trial.user_attrs[record.FALLBACK_OPS]
    # So that the study can be asked without the table.
    met = ranked(candidates(result.study, TOLERANT), "latency")
    assert result.trial is not None
    assert met[0].trial.number == result.trial.number
    assert met[0].cost("latency") == pytest.approx(2.4e-3)
    assert result.study.user_attrs[record.OBJECTIVE] == "latency"


def test_messages_and_progress_tell_the_cost(capsys):
    result = go(costed(), "latency", show_progress=True)
    assert "2.4 ms, with 1 op in fallback." in result.message
    assert (
        "0.8 of FP32's time (predicted), 2 of 3 ops in INT8"
        in capsys.readouterr().err.splitlines()[-1]
    )


# What the study keeps.


def test_costs_are_measured_once_for_a_study(tmp_path):
    storage = tmp_path / "journal"
    first = costed()
    one = go(first, storage=storage)
    assert first.calls["costs"] == 1
    # Another machine would measure other costs; the study's hold.
    other = CostedBackend(DAMAGE, {"a": 0.1, "b": 0.9, "c": 2.0}, sizes=SMALL)
    again = go(other, storage=storage)
    assert not other.calls["costs"]
    assert (again.config, again.cost) == (one.config, one.cost)


def test_workers_that_begin_at_once_measure_once(tmp_path):
    backends = [costed() for _ in range(4)]
    results: list[TuningResult] = []

    def work(backend: CostedBackend) -> None:
        results.append(go(backend, storage=tmp_path / "journal"))

    threads = [threading.Thread(target=work, args=(backend,)) for backend in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(backend.calls["costs"] for backend in backends) == 1
    assert len({result.config for result in results}) == 1


def test_other_costs_hold_for_earlier_trials_and_evaluate_nothing(tmp_path):
    storage = tmp_path / "journal"
    go(costed(), storage=storage)
    backend = costed()
    other = Costs({"latency": table(backend.tuning_space(), {"a": 0.1, "b": 0.9, "c": 0.9})})
    result = go(backend, storage=storage, costs=other, measure_gain=False, verify=False)
    assert result.fallback_ops == ("b",)
    assert result.cost == pytest.approx(2e-3)
    assert not backend.built
    # They stay, for the worker that goes on.
    assert go(costed(), storage=storage).fallback_ops == ("b",)


def test_given_costs_make_measuring_needless(tmp_path):
    backend = costed()
    costs = Costs({"latency": table(backend.tuning_space(), FAST)})
    costs.save(tmp_path / "costs.json")
    for given in (costs, tmp_path / "costs.json", lambda c: 1.0 + len(c.fallback_ops)):
        assert go(backend, costs=given).objective == "latency"
    assert not backend.calls["costs"]
    plain = go(FakeBackend(DAMAGE), costs=costs)  # A backend that knows none.
    assert (plain.objective, plain.fallback_ops) == ("latency", ("a",))


# Which ops are worth a place.


SLOW = {"a": 0.8, "b": 3.0, "c": 0.9}


def test_ops_that_make_the_model_slower_are_left_out():
    result = go(CostedBackend({"a": 0.0, "b": 0.0, "c": 0.0}, SLOW))
    assert [t.name for t in result.space.tunables] == ["a", "c"]
    assert list(result.left_out) == ["b"]
    assert result.cost == pytest.approx(2.7e-3)  # "b" runs in FP32, and counts.
    assert "1 op was left in FP32 as slower quantized here: Conv 'b' (3 ms against 1 ms)" in str(
        result
    )
    report = result.report().set_index("op")
    assert list(report.index) == ["a", "c", "b"]
    assert report["seconds_gained"]["a"] == pytest.approx(2e-4)
    assert report["mode"]["b"] == "fp32"
    assert report["note"]["b"] == "left out, slower in INT8 here: 3 ms against 1 ms"


def test_times_of_ops_that_do_not_predict_models_are_not_in_the_report():
    for validation, told in ((GOOD, True), (BAD, False)):
        report = go(costed(validation=validation)).report()
        assert ("seconds_gained" in report) is told
        assert "bytes_gained" in report


@pytest.mark.parametrize(
    "kwargs",
    [
        {"objective": "size"},
        {"objective": "ops"},
        {"op_types": "all"},
        {"op_types": ["Conv"]},
        {"op_name_dict": {"a": {"weight": {"dtype": ["int8"]}}}},
        {"op_type_dict": {"Conv": {"weight": {"dtype": ["int8"]}}}},
    ],
)
def test_they_are_not_where_the_user_has_named_ops_or_wants_something_else(kwargs):
    result = go(CostedBackend({"a": 0.0, "b": 0.0, "c": 0.0}, SLOW), **kwargs)
    assert len(result.space.tunables) == 3
    assert not result.left_out


def test_by_weights_an_op_stays_that_saves_more_bytes_than_it_costs_time():
    backend = CostedBackend({"a": 0.0, "b": 0.0}, {"a": 1.2, "b": 1.5}, sizes={"a": 0.1, "b": 1.0})
    result = go(backend, {"latency": 1, "size": 100})
    assert [t.name for t in result.space.tunables] == ["a"]


def test_a_study_keeps_its_space(tmp_path):
    storage = tmp_path / "journal"
    damage = {"a": 0.0, "b": 0.0, "c": 0.0}
    one = go(CostedBackend(damage, SLOW), storage=storage)
    for objective in (None, "size", "ops"):
        again = go(CostedBackend(damage, SLOW), objective, storage=storage)
        assert again.space == one.space
    # As with costs by which another op would be left out.
    given = table(CostedBackend(damage, SLOW).tuning_space(), {"a": 3.0, "b": 0.5, "c": 0.9})
    assert go(CostedBackend(damage, SLOW), storage=storage, costs=given).space == one.space
    # One that was started with all of them keeps them.
    other = tmp_path / "other"
    go(CostedBackend(damage, SLOW), "ops", storage=other)
    assert len(go(CostedBackend(damage, SLOW), storage=other).space.tunables) == 3


def test_a_study_with_ops_that_the_user_had_named_is_no_narrowed_one(tmp_path):
    storage = tmp_path / "journal"
    backend = CostedBackend({"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.5})
    only = {"b": {"mode": ["fp32"]}}
    go(backend, storage=storage, op_name_dict=only)
    with pytest.raises(ValueError, match="another tuning space"):
        go(backend, storage=storage)


# What is not worth starting.


def test_ops_that_are_named_are_there_with_a_warning():
    backend = CostedBackend(DAMAGE, {"a": 2.0, "b": 1.5, "c": 1.2})
    result = go(backend, "latency", op_types="all")
    assert (result.met, result.is_better_than_fp32) == (True, False)
    assert str(result).startswith(
        "A quantized model meets the criterion, but it is no faster than FP32."
    )
    not_met = go(CostedBackend({"a": 0.5}, {"a": 2.0}), "latency", op_types="all")
    assert (not_met.met, not_met.is_better_than_fp32) == (False, None)
    assert str(not_met).startswith("NOT MET")


def test_where_nothing_meets_and_nothing_else_is_faster_fp32_is_the_answer():
    """The search by costs ends there because nothing else is worth an evaluation."""
    backend = CostedBackend({"a": 0.5, "b": 0.5}, {"a": 2.0, "b": 1.5})
    given: dict[str, Any] = {
        "strategy": "auto",
        "op_types": "all",
        "storage": optuna.storages.InMemoryStorage(),
        "study_name": "mine",
    }
    result = go(backend, "latency", **given)
    assert (result.met, result.is_better_than_fp32, result.is_fp32) == (False, False, True)
    assert result.stopped_because == "exhausted"
    assert str(result.explanation) == (
        "By the cost table no quantized model is faster than FP32 (objective 'latency'): "
        "predicted 2.5 ms for the fastest one (1.2 times slower), 3.5 ms with everything "
        "quantized, against 2 ms in FP32."
    )
    rest = "meets the criterion, and every other one is predicted to be no faster than FP32."
    assert str(result).splitlines() == [
        f"NO GAIN: the model that was tried does not {rest.replace('meets', 'meet')}",
        "metric 0.9 (FP32), criterion: at most 0.1 absolute loss, higher is better",
        "stopped: The strategy sees nothing left that is worth a trial after 1 model. By the cost "
        "table no quantized model is faster than FP32 (objective 'latency'): predicted 2.5 ms for "
        "the fastest one "
        "(1.2 times slower), 3.5 ms with everything quantized, against 2 ms in FP32. For the "
        "smallest model use objective='size' (--objective size); for as many quantized ops as the "
        "criterion allows, though the model is no faster, use objective='ops' (--objective ops); "
        "for the times of batches use latency_batch_size=64 (--latency-batch-size 64); "
        "for another device give what ops cost there: costs= (--costs).",
    ]
    with pytest.raises(ValueError, match="FP32 itself is the best model here"):
        result.save("model.onnx")
    space = result.space
    result.study.enqueue_trial(space.params_of(space.default().with_fallback("a")))
    said = str(go(backend, "latency", **given)).splitlines()
    assert said[0] == f"NO GAIN: none of the 2 models that were tried {rest}"


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("latency", "it is useful only if it is faster"),
        ("size", 'it is useful only if it is faster (objective="latency" looks for that)'),
        (
            "ops",
            'it is useful only if it is faster (objective="latency" looks for that, '
            'objective="size" for a smaller one)',
        ),
    ],
)
def test_model_that_is_no_smaller_is_told_in_the_words_of_the_objective(
    objective: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = property(lambda model: 5000 if model.config.quantized_ops else 4000)
    monkeypatch.setattr(FakeModel, "nbytes", sizes)
    result = go(costed(), objective, measure_gain=False)
    assert f"no smaller than FP32, which has 4 kB: {told}" in str(result).splitlines()


def test_a_size_that_is_known_to_grow_is_no_gain():
    backend = CostedBackend(DAMAGE, FAST)
    costs = Costs(
        {"size": table(backend.tuning_space(), dict.fromkeys("abc", 1.5), measure="size")}
    )
    result = go(backend, "size", costs=costs)
    assert result.stopped_because == "no_gain"
    assert "smaller than FP32" in result.message


# What the answer is worth.


def measured(fp32: float, *seconds: float, noise: float = 0.0) -> Any:
    def measure(run: Any, others: Any, *, seconds_: Any = None, **kwargs: Any) -> Measured:
        run()
        for other in others:
            other()
        found = seconds[: len(others)]
        ratios = [Ratio(s / fp32, (s - noise) / fp32, (s + noise) / fp32) for s in found]
        return Measured(fp32, found, ratios, 5)

    return measure


def test_models_that_are_predicted_to_be_as_fast_are_measured(monkeypatch):
    # By the table "a" and "b" gain the same, but for 1 of 1000; measured, the other is faster.
    backend = RunsBackend({"a": 0.06, "b": 0.06}, {"a": 0.5, "b": 0.499})
    monkeypatch.setattr(
        "optuna_quant.tuning.finish.measure_finalists",
        lambda found, **kw: measure_finalists(
            found, **kw, measure_against=measured(2.1e-3, 1.6e-3, 1.5e-3)
        ),
    )
    result = go(backend, "latency")
    assert result.fallback_ops == ("b",)
    assert result.cost == pytest.approx(1.5e-3, rel=1e-2)  # As predicted.
    assert result.gain is not None
    assert (result.gain.seconds, result.gain.fp32_seconds) == (1.5e-3, 2.1e-3)
    assert result.is_better_than_fp32 is True
    assert (
        "1.5 ms against FP32 2.1 ms (1.4 times faster), batch 1; 3.9 kB against 4 kB"
        in str(result).splitlines()
    )
    # Of what is to be small the first one is measured alone.
    ran = len(backend.ran)
    smallest = go(backend, "size")
    assert len(backend.ran) - ran == 2
    assert smallest.is_better_than_fp32 is True  # It is smaller.
    assert str(smallest).splitlines()[0] == (
        "A quantized model meets the criterion, but it is only 2.5% smaller than FP32."
    )


@pytest.mark.parametrize(
    ("seconds", "noise", "better", "said"),
    [
        (4.6e-3, 1e-4, False, "(2.2 times slower)"),
        (2.08e-3, 5e-5, False, "(no difference beyond noise)"),
        (1.9e-3, 2e-5, True, "(1.1 times faster)"),
        (1.6e-3, 2e-4, True, "(1.3 times faster, 95% interval 0.67 to 0.86 of its time)"),
        (3e-3, 2e-4, False, "(1.4 times slower, 95% interval 1.3 to 1.5 of its time)"),
        # It may be either; then it is as the table says.
        (2.2e-3, 1e-3, True, "(no difference beyond noise, 95% interval 0.57 to 1.5 of its time)"),
        (2.05e-3, 0.0, True, "(2% faster)"),
    ],
)
def test_a_model_is_better_if_it_is_faster_by_more_than_noise(
    monkeypatch, seconds, noise, better, said
):
    monkeypatch.setattr(
        "optuna_quant.tuning.finish.measure_finalists",
        lambda found, **kw: measure_finalists(
            found, **kw, measure_against=measured(2.1e-3, seconds, seconds, noise=noise)
        ),
    )
    result = go(RunsBackend({"a": 0.0}, {"a": 0.5}), "latency")
    assert result.met
    assert result.is_better_than_fp32 is better
    assert said in str(result)
    assert ("no faster than FP32" in str(result).splitlines()[0]) != better


@pytest.mark.parametrize(
    ("seconds", "noise", "is_said"),
    [
        (1.1e-3, 0.0, False),  # About what is predicted.
        (1.9e-3, 0.0, True),
        (0.5e-3, 0.0, True),
        (1.9e-3, 1.5e-3, False),  # It may be what is predicted.
    ],
)
def test_a_prediction_that_was_far_off_is_told(monkeypatch, seconds, noise, is_said):
    monkeypatch.setattr(
        "optuna_quant.tuning.finish.measure_finalists",
        lambda found, **kw: measure_finalists(
            found, **kw, measure_against=measured(2e-3, seconds, seconds, noise=noise)
        ),
    )
    result = go(RunsBackend({"a": 0.0}, {"a": 0.5}), "latency")
    assert result.known_objective is not None and result.cost is not None
    predicted = result.cost / result.known_objective.fp32_cost
    told = f"a prediction of {predicted:.2g} of FP32's time, but {seconds / 2e-3:.2g} was measured"
    assert (told in str(result)) == is_said


def test_it_is_measured_in_turn_with_fp32_on_calibration_data():
    backend = RunsBackend({"a": 0.0}, {"a": 0.5})
    result = go(backend, "latency")
    gain = result.gain
    assert gain is not None
    assert gain.batch == 1
    assert gain.runs >= 5
    assert gain.seconds is not None
    # Warm-up, and then FP32 and the answer by turns.
    fp32 = backend.fingerprint(result.space.fp32())
    mine = backend.fingerprint(result.config)
    assert backend.ran[:4] == [fp32, mine] * 2
    assert backend.ran == [fp32, mine] * (len(backend.ran) // 2)


@pytest.mark.parametrize("seconds", [4e-3, 1e-3])
def test_given_costs_go_over_what_is_measured_here(monkeypatch, tmp_path, seconds):
    monkeypatch.setattr(
        "optuna_quant.tuning.finish.measure_finalists",
        lambda found, **kw: measure_finalists(
            found, **kw, measure_against=measured(2e-3, seconds, 1e-4)
        ),
    )
    backend = RunsBackend({"a": 0.06, "b": 0.06}, {"a": 2.0, "b": 2.0})
    space = backend.tuning_space()
    given = table(space, {"a": 0.5, "b": 0.499})
    result = go(backend, "latency", costs=given, storage=tmp_path / "journal")
    # The faster one by the costs is the answer, and nothing else is run beside it.
    assert result.fallback_ops == ("a",)
    assert result.is_better_than_fp32 is True
    assert str(result).startswith("A quantized model meets the criterion.\n")
    assert any(line.startswith("on this machine: ") for line in str(result).splitlines())
    chosen = result.choose(tolerable_loss=0.09)
    assert chosen.is_better_than_fp32 is True
    # They hold when the search is continued without them.
    again = go(backend, "latency", storage=tmp_path / "journal")
    assert again.is_better_than_fp32 is True
    slower = table(space, {"a": 1.5, "b": 1.25})
    worse = go(backend, "latency", costs=slower, op_types="all")
    assert worse.is_better_than_fp32 is False
    assert str(worse).startswith(
        "A quantized model meets the criterion, but it is no faster than FP32 by the given costs."
    )


def test_it_need_not_be_measured():
    backend = RunsBackend({"a": 0.0}, {"a": 0.5})
    result = go(backend, "latency", measure_gain=False)
    assert result.gain is None
    assert not backend.ran
    assert result.is_better_than_fp32 is True  # By the table.


def test_a_model_that_does_not_run_is_an_answer_all_the_same(caplog):
    class Broken(RunsBackend):
        def calibration_preview(self, samples: int) -> Any:
            return samples, [{"y": 1}]

    logging.getLogger("optuna_quant").propagate = True
    result = go(Broken({"a": 0.0}, {"a": 0.5}), "latency")
    assert result.met
    assert result.gain is None
    assert "could not be compared with FP32" in caplog.text


def test_equal_costs_leave_the_choice_to_the_metric():
    # Two ways to quantize that take equally long: the one that loses less is the better.
    class Two(CostedBackend):
        def accuracy(self, config: Any) -> float:
            worse = sum(o == STATIC for o in config.ops.values())
            return round(self.fp32 - 0.01 * worse, 10)

    backend = Two(
        {"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, options=(STATIC, STATIC_TENSOR, FP32)
    )
    result = go(backend, "latency")
    assert set(result.config.ops.values()) == {STATIC_TENSOR}


def test_a_strategy_that_takes_costs_gets_the_table_of_the_objective(monkeypatch):
    seen: list[CostTable] = []

    class Planner(BasicQuantSampler):
        def __init__(self, space: Any, *, costs: CostTable | None = None, **kwargs: Any) -> None:
            super().__init__(space, **kwargs)
            if costs is not None:
                seen.append(costs)

    monkeypatch.setattr("optuna_quant.tuning.strategies.strategies", lambda: {"planner": Planner})
    go(costed(), {"latency": 1, "size": 1}, strategy="planner")
    assert [found.measure for found in seen] == ["latency=1,size=1"]


# What needs no measurement.


class CountingBackend(FakeBackend):
    """It counts sizes and operations, and has no samples."""

    def __init__(
        self,
        error: Exception | None = None,
        names: tuple[str, ...] = ("size", "bit_operations"),
    ) -> None:
        super().__init__(DAMAGE)
        self.error = error
        self.names = names

    def calibration_preview(self, samples: int) -> None:
        return None

    def counted_costs(self, space: Any) -> Costs:
        if self.error is not None:
            raise self.error
        return Costs({name: table(space, SMALL, measure=name) for name in self.names})


def test_costs_are_counted_without_samples():
    result = go(CountingBackend(), "bit_operations", strategy="auto")
    assert result.met
    assert set(result.fallback_ops) == {"b"}


def test_what_only_counts_sizes_is_searched_for_the_smallest():
    by_default = go(CountingBackend(), strategy="auto")
    assert by_default.objective == "size"
    assert by_default.config == go(CountingBackend(), "size", strategy="auto").config


def test_without_sizes_what_is_counted_decides_nothing():
    backend = CountingBackend(names=("bit_operations",))
    assert go(backend).objective == "ops"


@pytest.mark.parametrize(("objective", "chosen"), [(None, "ops"), ("size", "size")])
def test_a_search_that_can_do_without_counted_costs_warns(objective, chosen, caplog):
    class Broken(FakeBackend):
        def counted_costs(self, space: Any) -> Costs:
            raise KeyError("my bug")

    with caplog.at_level(logging.WARNING, "optuna_quant"):
        logging.getLogger("optuna_quant").propagate = True
        assert go(Broken(DAMAGE), objective).objective == chosen
    assert caplog.text.count("could not count costs") == 1
    assert "KeyError: 'my bug'" in caplog.text


def test_a_backend_without_counted_costs_is_nothing_to_warn_of(caplog):
    with caplog.at_level(logging.WARNING, "optuna_quant"):
        logging.getLogger("optuna_quant").propagate = True
        go(FakeBackend(DAMAGE), "size")
    assert "could not count costs" not in caplog.text


def test_without_samples_costs_that_cannot_be_counted_are_no_warning(caplog):
    with caplog.at_level(logging.WARNING, "optuna_quant"):
        logging.getLogger("optuna_quant").propagate = True
        go(CountingBackend(ValueError("no data")), "size")
    assert "could not count costs" not in caplog.text


def test_why_costs_could_not_be_counted_is_told_where_others_are_measured():
    class Both(CostedBackend):
        def counted_costs(self, space: Any) -> Costs:
            raise RuntimeError("no shapes here")

    with pytest.raises(ValueError, match=r"needs bit_operations.*RuntimeError: no shapes here"):
        go(Both(DAMAGE, FAST), "bit_operations")


def test_why_costs_could_not_be_counted_is_told():
    with pytest.raises(ValueError, match="RuntimeError: no shapes here"):
        go(CountingBackend(RuntimeError("no shapes here")), "bit_operations")


@pytest.mark.parametrize(
    ("backend", "objective", "said"),
    [
        (CountingBackend(), "latency", r"known are bit_operations and size alone.*the seconds"),
        (CountingBackend(), "multiply_adds", r"use objective='size' or 'ops' or 'bit_operations'"),
        (FakeBackend(DAMAGE), "bit_operations", "the backend does not know them"),
    ],
)
def test_an_objective_that_cannot_be_known_is_refused_before_there_is_a_study(
    backend, objective, said, tmp_path
):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(ValueError, match=said):
        go(backend, objective, storage=storage, study_name="one")
    assert optuna.get_all_study_names(storage) == []


def test_a_study_goes_on_with_the_costs_that_it_was_given(tmp_path):
    kept = {"storage": f"sqlite:///{tmp_path / 'study.db'}", "study_name": "one"}
    backend = FakeBackend(DAMAGE)
    costs = Costs({"latency": table(backend.tuning_space(), FAST)})
    first = go(backend, "latency", costs=costs, **kept)
    assert go(backend, "latency", **kept).cost == first.cost
