"""Where no quantized model is better than FP32 by the cost table: FP32 is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import subprocess
import sys
import threading
from typing import Any

from child_paths import python_path
from costed_backend import CostedBackend
from costed_backend import table
from fake_backend import CountingEvaluation
from fake_backend import FakeModel
import no_gain_worker
import optuna
import pytest

from optuna_quant.costs import Boundary
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs import KnownObjective
from optuna_quant.costs import Validation
from optuna_quant.costs.no_gain import NoGain
from optuna_quant.costs.objective import as_objective
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.study import record
from optuna_quant.study.errors import BaselineError
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.errors import TuningInterrupted
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


TOLERANT = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
# "c" costs nothing of the accuracy; all three may not be quantized.
DAMAGE = {"a": 0.06, "b": 0.06, "c": 0.0}
SLOW = {"a": 2.0, "b": 1.5, "c": 1.2}
SMALL = {"a": 0.2, "b": 0.8, "c": 0.9}
SPACE = CostedBackend(DAMAGE, SLOW).tuning_space()
EVERYTHING = SPACE.params_of(SPACE.default())
ONLY_C = SPACE.params_of(SPACE.default().with_fallback("a", "b"))


class Searches:
    """Searches in one study, which count what they evaluate."""

    def __init__(self) -> None:
        self.storage = optuna.storages.InMemoryStorage()
        self.evaluate = CountingEvaluation()

    def run(self, objective: Any = None, **options: Any) -> TuningResult:
        given: dict[str, Any] = {
            "backend": CostedBackend(DAMAGE, SLOW, sizes=SMALL),
            "evaluate": self.evaluate,
            "storage": self.storage,
            "study_name": "mine",
            "accuracy_criterion": TOLERANT,
            "tuning_criterion": TuningCriterion(
                timeout=None, objective=objective, strategy="basic"
            ),
        }
        return tune(**given | options)

    def study(self) -> optuna.Study:
        return optuna.create_study(
            storage=self.storage, study_name="mine", direction="maximize", load_if_exists=True
        )

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [SPACE.params_of(model.config) for model in self.evaluate.seen]


FP32 = SPACE.params_of(SPACE.fp32())


# The answer.


def test_fp32_is_evaluated_once_and_is_the_answer(tmp_path: Path) -> None:
    searches, output = Searches(), tmp_path / "out"
    for _ in range(2):
        result = searches.run(output=output)
        assert searches.seen == [FP32]
        assert result.stopped_because == "no_gain"
        assert (result.met, result.is_better_than_fp32, result.is_fp32) == (False, False, True)
        assert (result.metric, result.baseline, result.loss) == (0.9, 0.9, 0.0)
        assert result.trial is not None
        assert [trial.number for trial in result.study.trials] == [result.trial.number]
        assert result.trial.params == FP32
        assert result.config == SPACE.fp32()
        assert set(result.fallback_ops) == {"a", "b", "c"}
        assert result.model().fingerprint == searches.evaluate.seen[0].fingerprint
        assert result.models_compared == 0
        assert result.full_evaluations == 1
        assert not output.exists()


def test_what_is_said() -> None:
    result = Searches().run()
    first, second, last = str(result).splitlines()
    assert first.startswith("NO GAIN: FP32 itself is the best model here")
    assert second.startswith("metric 0.9 (FP32), criterion: ")
    assert last == f"stopped: {result.message}"
    assert result.message == (
        "By the cost table no quantized model is faster than FP32 (objective 'latency'): "
        "predicted 3.2 ms for the fastest one (6.7% slower), 4.7 ms with everything "
        "quantized, against 3 ms in FP32. For the smallest model (up to 3% smaller) use "
        "objective='size' (--objective size); "
        "for the times of batches use latency_batch_size=64 (--latency-batch-size 64); "
        "for another device give what ops cost there: costs= (--costs)."
    )
    assert result.study.user_attrs[record.STOPPED_BECAUSE]["message"] == result.message
    assert list(result.report()["mode"]) == ["fp32"] * 3


def test_the_explanation_says_why() -> None:
    result = Searches().run()
    explanation = result.explanation
    assert explanation is not None
    assert str(explanation) == (
        "By the cost table no quantized model is faster than FP32 (objective 'latency'): "
        "predicted 3.2 ms for the fastest one (6.7% slower), 4.7 ms with everything quantized, "
        "against 3 ms in FP32."
    )
    assert (explanation.met, explanation.config) == (False, SPACE.fp32())
    assert {each.op for each in explanation.fallback} == {"a", "b", "c"}
    assert all(each.saving is not None and each.saving < 0 for each in explanation.fallback)
    assert str(result).count("By the cost table") == 1


def test_no_quantized_model_is_saved(tmp_path: Path) -> None:
    result, path = Searches().run(), tmp_path / "out"
    with pytest.raises(ValueError, match=r"FP32 itself is the best .* objective='size'"):
        result.save(path)
    assert not path.exists()
    result.save(path, closest=True)
    assert path.read_text() == SPACE.fp32().to_json()


def test_it_is_no_obstacle_to_asking_for_something_else() -> None:
    searches = Searches()
    searches.run()
    result = searches.run("size")
    assert (result.met, result.is_fp32) == (True, False)
    assert searches.seen.count(FP32) == 1
    assert result.study.trials[0].params == FP32
    # What the search has found is an answer by the latency as well, though one that does not pay.
    again = searches.run()
    assert (again.met, again.is_better_than_fp32) == (True, False)
    assert "no faster than FP32" in str(again)


def test_costs_of_another_device_begin_the_search() -> None:
    searches = Searches()
    searches.run()
    result = searches.run(costs=table(SPACE, {"a": 0.5, "b": 0.8, "c": 0.9}), verify=False)
    assert (result.met, result.is_better_than_fp32) == (True, True)
    assert result.fallback_ops == ("b",)
    assert searches.seen.count(FP32) == 1


def test_the_front_is_fp32() -> None:
    front = Searches().run().front()
    assert list(front["trial"]) == [0]
    assert list(front["fallback_ops"]) == [3]


def test_other_ops_may_be_asked_for_next(caplog: pytest.LogCaptureFixture) -> None:
    searches = Searches()
    searches.run()
    result = searches.run(op_name_dict={"b": {"mode": ["fp32"]}})
    assert "it is started over" in caplog.text
    assert (result.met, result.is_better_than_fp32) == (True, False)
    # A study with results is not given up for that.
    with pytest.raises(ValueError, match="another tuning space"):
        searches.run()


def test_the_hold_out_set_is_not_evaluated() -> None:
    def holdout(model: FakeModel) -> float:
        raise AssertionError

    result = Searches().run(holdout=holdout)
    assert result.holdout is None
    assert "hold-out: not evaluated (the answer is the FP32 model itself)" in str(result)


def test_another_choice_from_the_record_is_fp32_as_well() -> None:
    result = Searches().run().choose(tolerable_loss=0.5)
    assert (result.is_fp32, result.met, result.is_better_than_fp32) == (True, False, False)
    assert (
        str(result)
        .splitlines()[-1]
        .startswith(
            "Chosen from the record of a search that stopped: By the cost table no quantized model"
        )
    )
    smaller = result.choose(objective="size")
    assert smaller.is_fp32
    assert str(smaller).splitlines()[-1] == (
        "The record holds only FP32, because no quantized model is better by the objective of its "
        "search; search with objective='size' to have others."
    )


# What goes wrong.


def test_fp32_that_cannot_be_evaluated_is_an_error() -> None:
    def evaluate(model: FakeModel) -> float:
        raise RuntimeError("no labels")

    with pytest.raises(BaselineError, match="no labels"):
        Searches().run(evaluate=evaluate)


def test_an_interrupted_evaluation_is_no_answer() -> None:
    def evaluate(model: FakeModel) -> float:
        raise KeyboardInterrupt

    searches = Searches()
    with pytest.raises(TuningInterrupted) as raised:
        searches.run(evaluate=evaluate)
    assert raised.value.result.trial is None
    assert not raised.value.result.is_fp32
    assert searches.run().is_fp32


# The queue.


@pytest.mark.parametrize("first", [True, False])
def test_what_is_enqueued_is_evaluated_once(first: bool) -> None:
    searches = Searches()
    if not first:
        searches.run()
    searches.study().enqueue_trial(EVERYTHING)
    for _ in range(2):
        result = searches.run()
        assert sorted(map(str, searches.seen)) == sorted(map(str, [FP32, EVERYTHING]))
        assert {trial.state.name for trial in result.study.trials} == {"COMPLETE"}
        assert len(result.study.trials) == 2
        assert (result.stopped_because, result.is_fp32) == ("no_gain", True)
        assert result.trial is not None
        assert result.trial.params == FP32
        assert result.full_evaluations == 2


def test_of_what_is_partly_fixed_the_rest_is_fp32() -> None:
    searches = Searches()
    name, value = next((n, v) for n, v in EVERYTHING.items() if v != ONLY_C[n])
    searches.study().enqueue_trial({name: value})
    searches.run(verify=False)
    assert searches.seen == [FP32, FP32 | {name: value}]


def test_an_enqueued_one_that_meets_the_criterion_is_the_answer(tmp_path: Path) -> None:
    searches, output = Searches(), tmp_path / "out"
    searches.run()
    searches.study().enqueue_trial(ONLY_C)
    result = searches.run(output=output, verify=False)
    assert searches.seen == [FP32, ONLY_C]
    assert (result.met, result.is_better_than_fp32, result.is_fp32) == (True, False, False)
    assert str(result).startswith(
        "A quantized model meets the criterion, but it is no faster than FP32."
    )
    assert output.exists()


def test_enqueued_nonsense_changes_nothing() -> None:
    searches = Searches()
    searches.study().enqueue_trial({next(iter(FP32)): "int3"})
    result = searches.run()
    assert searches.seen == [FP32]
    assert [trial.state.name for trial in result.study.trials] == ["FAIL", "COMPLETE"]
    assert result.is_fp32


# Workers.


def test_jobs_evaluate_it_once() -> None:
    searches = Searches()
    result = searches.run(n_jobs=4)
    assert searches.seen == [FP32]
    assert len(result.study.trials) == 1


def test_threads_evaluate_it_once() -> None:
    searches, count = Searches(), 4
    together = threading.Barrier(count)

    def run(_: int) -> TuningResult:
        together.wait()
        return searches.run()

    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(run, range(count)))
    assert searches.seen == [FP32]
    assert all(result.is_fp32 and result.metric == 0.9 for result in results)
    assert len({result.trial.number for result in results if result.trial is not None}) == 1


@pytest.mark.slow
def test_processes_evaluate_it_once(tmp_path: Path) -> None:
    worker = [sys.executable, no_gain_worker.__file__, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": python_path(Path(no_gain_worker.__file__).parent)}
    processes = [
        subprocess.Popen(worker, stdout=subprocess.PIPE, text=True, env=env) for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert said == ["no_gain True 0.9"] * 3
    assert len((tmp_path / "log").read_text().splitlines()) == 1


# The message.


def shown(
    quantized: Mapping[str, float],
    *,
    objective: Any = "latency",
    noise: float | None = None,
    sizes: Mapping[str, float] | None = None,
    is_given: bool = False,
) -> str:
    tables = {"latency": table(SPACE, quantized)}
    if sizes is not None:
        tables["size"] = table(SPACE, sizes, measure="size")
    validation = None if noise is None else Validation((1.0,), (1.0,), noise, None)
    given = Costs(tables, validation=validation, is_given=is_given)
    known = KnownObjective(as_objective(objective), SPACE, given)
    costs = known.table
    assert costs is not None
    return str(NoGain(known, costs))


@pytest.mark.parametrize(
    ("quantized", "noise", "compared"),
    [
        ({"a": 3.0, "b": 4.0, "c": 5.0}, None, "5 ms for the fastest one (1.7 times slower)"),
        ({"a": 1.6, "b": 4.0, "c": 5.0}, 5e-4, "3.6 ms for the fastest one (1.2 times slower)"),
        ({"a": 1.6, "b": 4.0, "c": 5.0}, 7e-4, "(no difference beyond noise, 0.7 ms)"),
        ({"a": 0.99, "b": 4.0, "c": 5.0}, 1e-4, "(no difference beyond noise, 0.1 ms)"),
        ({"a": 1.0, "b": 4.0, "c": 5.0}, None, "3 ms for the fastest one (no difference)"),
    ],
)
def test_it_claims_no_more_than_the_noise_allows(
    quantized: Mapping[str, float], noise: float | None, compared: str
) -> None:
    text = shown(quantized, noise=noise)
    assert compared in text
    is_noise = "beyond noise" in compared
    assert ("is faster than FP32 by more than noise" in text) == is_noise
    assert ("op_types='all'" in text) == is_noise


def test_size_is_advised_where_it_helps() -> None:
    slow = {"a": 3.0, "b": 4.0, "c": 5.0}
    assert "objective='size' (--objective size); for another" in shown(slow)
    assert "(up to 75% smaller)" in shown(slow, sizes=dict.fromkeys("abc", 0.25))
    larger = shown(slow, sizes=dict.fromkeys("abc", 1.5))
    assert "objective='size'" not in larger
    assert larger.endswith(
        "in FP32. For another device give what ops cost there: costs= (--costs)."
    )
    # What counts is the smallest one, not that with everything quantized.
    assert "(up to 25% smaller)" in shown(slow, sizes={"a": 0.25, "b": 1.9, "c": 1.9})


def test_costs_are_not_asked_for_where_they_are_given_or_say_nothing() -> None:
    slow = {"a": 3.0, "b": 4.0, "c": 5.0}
    assert "costs=" not in shown(slow, is_given=True)
    text = shown(slow, objective="size", sizes=slow)
    assert "costs=" not in text
    assert text.endswith(" in FP32.")


def test_a_model_that_is_quantized_already_is_not_called_fp32(tmp_path: Path) -> None:
    class Quantized(CostedBackend):
        original = "the model as given"

    result = Searches().run(backend=Quantized(DAMAGE, SLOW, sizes=SMALL))
    lines = str(result).splitlines()
    assert lines[0].startswith("NO GAIN: the model as given is the best one here, as far as")
    assert lines[1].startswith("metric 0.9 (the model as given), ")
    assert "is faster than the model as given (objective" in lines[-1]
    assert "against 3 ms of the model as given." in lines[-1]
    with pytest.raises(ValueError, match="The model as given is the best one here, so none is"):
        result.save(tmp_path / "model.onnx")


def test_other_objectives_have_their_words() -> None:
    larger = {"a": 1.5, "b": 2.0, "c": 2.0}
    assert "is smaller than FP32 (objective 'size')" in shown(
        larger, objective="size", sizes=larger
    )
    both = shown(larger, objective={"latency": 1, "size": 1}, sizes=larger)
    assert "1.17 of FP32 for the best one, 1.83 of FP32 with everything quantized." in both
    assert "objective='size'" not in both


def test_the_fastest_quantized_one_may_be_several_ops_together() -> None:
    # Each alone bears the cost of its boundaries; together they bear half.
    price = {"quantize": 2e-3, "dequantize": 2e-3}
    boundaries = (Boundary("a", ("b",), **price), Boundary("b", ("c",), **price))
    costs = CostTable(
        "latency",
        "s",
        table(SPACE, {"a": 1.2, "b": 1.2, "c": 9.0}).ops,
        (Boundary("outside", ("a",), **price), *boundaries),
    )
    known = KnownObjective(as_objective("latency"), SPACE, Costs({"latency": costs}))
    by_hand = min(
        costs.cost(config)
        for config in map(SPACE.config_at, range(SPACE.size))
        if config.quantized_ops
    )
    assert known.show(by_hand) in str(NoGain(known, costs))
