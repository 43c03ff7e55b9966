"""Every op of an answer has its reason in words, and each says only what is known."""

from __future__ import annotations

from dataclasses import replace

from costed_backend import CostedBackend
from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import pytest

from optuna_quant.costs.comparison import Ratio
from optuna_quant.costs.gain import Gain
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.samplers import Explanation
from optuna_quant.samplers import FallbackOp
from optuna_quant.samplers import OpError
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.result import TuningResult


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.05, "c": 0.3}
FAST = {"a": 0.2, "b": 0.2, "c": 0.2}


def accuracy(model: FakeModel) -> float:
    return model.accuracy


def search(quantized: dict[str, float] | None = None, **given: object) -> TuningResult:
    backend = FakeBackend(DAMAGE) if quantized is None else CostedBackend(DAMAGE, quantized)
    usual = {"evaluate": accuracy, "accuracy_criterion": CRITERION, "measure_gain": False}
    return tune(backend=backend, **{**usual, **given})  # type: ignore[arg-type]


def explained(result: TuningResult, op: str, **known: object) -> str:
    """The words for an op in fallback if this is known of it."""
    option = result.space.default()[op]
    error = OpError(op, 0.4, 0.9, option, (), 0.03)
    values = {"saving": 0.2, "in_cheapest": False, "probability": 0.1, "error": error}
    found = FallbackOp(op, **{**values, **known})  # type: ignore[arg-type]
    explanation = Explanation(
        True, result.config, 1.0, {op: error}, (found,), None, None, None, 1000
    )
    return replace(result, explanation=explanation).explain(op)


def test_fallback_says_what_the_op_would_lose_and_save() -> None:
    result = search(FAST)
    words = explained(result, "a")
    assert words.startswith(
        "in FP32: alone it is expected to bring a loss of 0.03 (40% of the error of quantizing "
        "every op, most of it from its activations), and it would save 20% of the time"
    )


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"saving": 0.0, "in_cheapest": True}, "with it quantized the model would be no faster"),
        ({"saving": 0.001, "in_cheapest": True}, "the model would be hardly faster"),
        ({"probability": 0.6}, "to meet the criterion with a probability of about 60%"),
        ({"saving": None}, "nothing else is allowed for it"),
        ({"error": None}, "it would save 20% of the time"),
    ],
)
def test_each_cause_has_its_words(known: dict[str, object], words: str) -> None:
    assert words in explained(search(FAST), "a", **known)


def test_a_trial_with_one_more_op_is_a_reason() -> None:
    # The default has all quantized; then each op is tried in fallback, and pairs of them.
    result = search(strategy="basic", timeout=None, max_trials=30)
    assert result.fallback_ops == ("a", "c")
    trial = next(
        t
        for t in result.study.trials
        if t.params["quant.op:a"] != "fp32"
        and t.params["quant.op:b"] != "fp32"
        and t.params["quant.op:c"] == "fp32"
    )
    assert result.explain("a") == (
        f"in FP32: with it quantized as well trial {trial.number} lost 0.25, which misses the "
        "criterion"
    )
    priced = search(FAST, strategy="basic", timeout=None, max_trials=30).explain("a")
    assert priced.endswith("which misses the criterion; it would save 36% of the time")


def test_every_op_has_words() -> None:
    for strategy in ("auto", "basic", "random", "conservative"):
        result = search(FAST, strategy=strategy, max_trials=4)
        for op in result.space.default().ops:
            place, _, reason = result.explain(op).partition(": ")
            assert place in ("in FP32", "in INT8") and reason
    # No trial of this search differs from its answer in this op alone.
    assert search().explain("c") == "in FP32: no better model was found with it quantized"


def test_without_such_a_trial_nothing_is_claimed() -> None:
    result = search(
        FAST, strategy="random", max_trials=1, op_name_dict={"a|c": {"mode": ["fp32"]}}
    )
    assert result.explain("a") == "in FP32: nothing else is allowed for it"


def test_quantized_ops_say_what_they_save() -> None:
    assert search(FAST).explain("b") == "in INT8: it saves 0.8 ms (27% of FP32's time)"


def test_ops_that_save_alone_do_not_sum_up_where_the_model_saves_nothing() -> None:
    result = search({"a": 0.9, "b": 0.9, "c": 0.9})
    slower = replace(
        result, gain=Gain(seconds=2.0, fp32_seconds=1.0, time_ratio=Ratio(2, 1.9, 2.1))
    )
    assert slower.kind == "met_without_gain"
    assert slower.explain("b").endswith(
        "(3.3% of FP32's time) beside the others as they are, and all of them together save "
        "nothing"
    )


def test_a_loss_within_the_interval_of_the_answer_is_noise() -> None:
    result = tune(
        backend=FakeBackend(DAMAGE),
        data=fake_data(200),
        accuracy_criterion=CRITERION,
    )
    assert result.loss_interval is not None
    noise = (result.loss_interval[1] - result.loss_interval[0]) / 2
    option = result.space.default()["b"]

    def words(loss: float) -> str:
        error = OpError("b", 0.2, None, option, (), loss)
        found = Explanation(True, result.config, 1.0, {"b": error}, (), None, None, None, 200)
        return replace(result, explanation=found).explain("b")

    assert words(0.9 * noise) == ("in INT8: the loss it adds is below the noise of the evaluation")
    assert words(1.1 * noise).startswith("in INT8: alone it is expected to bring a loss of")


def test_what_was_left_out_says_what_it_costs() -> None:
    result = search({"a": 0.2, "b": 0.2, "c": 3.0}, objective="latency")
    assert list(result.left_out) == ["c"]
    assert result.explain("c") == (
        "left out of the search: slower in INT8 on this machine (3 ms against 1 ms in FP32)"
    )


def test_fp32_as_the_answer_explains_each_op() -> None:
    result = search({"a": 3.0, "b": 4.0, "c": 5.0})
    assert result.is_fp32
    assert result.explain("a") == (
        "in FP32: no quantized model is better here by latency (it alone in INT8 with the "
        "conversions around it: 3 ms against 1 ms in FP32)"
    )


def test_an_op_that_runs_otherwise_says_so() -> None:
    from optuna_quant.backends.base import OpRuns

    result = search()
    result.backend.executed = lambda config: {  # type: ignore[method-assign]
        op: OpRuns("Conv", False, "no kernel for it") for op in config.ops
    }
    assert result.explain("b") == (
        "asked for INT8, but the runtime computes it in floats (Conv): no kernel for it"
    )


def test_an_unknown_op_is_one_error_with_the_near_ones() -> None:
    names = {"block1/conv": 0.0, "block2/conv": 0.0, "head": 0.0}
    result = tune(backend=FakeBackend(names), evaluate=accuracy, accuracy_criterion=CRITERION)
    with pytest.raises(ValueError) as error:
        result.explain("block1/conf")
    assert str(error.value) == (
        "explain: there is no op 'block1/conf' among the 3 ops of this search. Did you mean "
        "'block1/conv' or 'block2/conv'?"
    )
    with pytest.raises(ValueError, match=r"Did you mean 'block1/conv' or 'block2/conv'\?"):
        result.explain("conv")  # The name that it has within its block.
    with pytest.raises(ValueError, match="There are: block1/conv, block2/conv, head"):
        result.explain("zzz")
    nothing = replace(result, config=None, trial=None)
    with pytest.raises(ValueError, match="nothing is known of 'head', as no model was evaluated"):
        nothing.explain("head")
