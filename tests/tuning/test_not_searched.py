"""What a search did not look at is said, and data that look wrong are in its result."""

from __future__ import annotations

from collections import UserList
from dataclasses import replace
from pathlib import Path
from typing import Any

from costed_backend import CostedBackend
from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import residual
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.report import collect
from optuna_quant.report import collect_recorded
from optuna_quant.space.left_out import LeftOut
from optuna_quant.space.space import TuningSpace
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.result import TuningResult


CRITERION = AccuracyCriterion(criterion="absolute", tolerable_loss=0.1)
DAMAGE = {"a": 0.2, "b": 0.0, "c": 0.3}
LEFT = (
    LeftOut("add1", "Add", "it is rarely worth it", 'op_types="all" or --op-types all'),
    LeftOut("mean", "ReduceMean", "it has no kernel"),
    LeftOut("add2", "Add", "it is rarely worth it", 'op_types="all" or --op-types all'),
)


class Tells(CostedBackend):
    """Tells what is not in its space."""

    def ops_left_out(self, space: TuningSpace) -> tuple[LeftOut, ...]:
        return LEFT

    def other_recipes(self) -> tuple[str, ...]:
        return ("equalization", "smooth_quant")


def accuracy(model: FakeModel) -> float:
    return model.accuracy


def search(
    damage: dict[str, float], backend: type[CostedBackend] = Tells, **times: float
) -> TuningResult:
    return tune(
        backend=backend(damage, dict.fromkeys(damage, 0.2) | times),
        evaluate=accuracy,
        accuracy_criterion=CRITERION,
        measure_gain=False,
    )


# Recipes.

NOT_SEARCHED = (
    "not searched: recipes equalization, smooth_quant; try recipes='all' (--recipes all)"
)


def test_recipes_are_named_where_ops_are_in_fallback_for_their_error() -> None:
    result = search(DAMAGE)
    assert result.met
    assert result.fallback_ops
    assert NOT_SEARCHED in str(result).splitlines()
    assert collect(result).outcome.other_recipes == ("equalization", "smooth_quant")


def test_recipes_are_named_where_the_criterion_is_not_met() -> None:
    result = search({"a": 0.3, "b": 0.3, "c": 0.3})
    assert not result.met
    assert NOT_SEARCHED in str(result).splitlines()


def test_recipes_are_not_named_where_another_answer_is_chosen_or_fp32_is_best() -> None:
    assert NOT_SEARCHED not in str(search(DAMAGE).choose(tolerable_loss=0.5))
    slow = dict.fromkeys(DAMAGE, 3.0)
    assert "recipes" not in str(search(DAMAGE, **slow))


def test_recipes_are_not_named_where_nothing_is_lost_or_none_is_known() -> None:
    result = search({"a": 0.0, "b": 0.0, "c": 0.0})
    assert result.met
    assert not result.fallback_ops
    assert "recipes" not in str(result)
    assert collect(result).outcome.other_recipes == ()
    assert "recipes" not in str(search(DAMAGE, CostedBackend))


def test_an_op_that_is_in_fallback_for_its_cost_needs_no_recipe() -> None:
    result = search({"a": 0.0, "b": 0.0, "c": 0.0})
    assert result.explanation is not None
    in_vain = replace(result.explanation, fallback=())
    fallback = result.config.with_fallback("a") if result.config else None
    assert not replace(result, config=fallback, explanation=in_vain).recipes_may_help
    assert replace(result, config=fallback, explanation=None).recipes_may_help


def test_the_backend_names_recipes_that_it_was_not_asked_for() -> None:
    backend = OnnxRuntimeBackend(residual(), calibration_data={"x": samples(4, 3, 6, 6)})
    assert "weight_correction" in backend.other_recipes()
    # What would change nothing is no recipe for this model.
    assert "gemm_to_matmul" not in backend.other_recipes()
    asked = OnnxRuntimeBackend(
        residual(), calibration_data={"x": samples(4, 3, 6, 6)}, recipes=["weight_correction"]
    )
    assert "weight_correction" not in asked.other_recipes()
    everything = OnnxRuntimeBackend(
        residual(), calibration_data={"x": samples(4, 3, 6, 6)}, recipes="all"
    )
    assert everything.other_recipes() == ()


# Ops.


def test_ops_that_are_not_searched_are_counted_and_explained() -> None:
    result = search(DAMAGE)
    assert [each.op for each in result.not_searched] == ["add1", "mean", "add2"]
    assert "; 3 others not searched" in str(result)
    assert "not searched: 2 Add (it is rarely worth it: op_types=" in str(result.explanation)
    assert "1 ReduceMean (it has no kernel)" in str(result.explanation)
    assert result.explain("add1") == (
        'in FP32, not searched: it is rarely worth it: op_types="all" or --op-types all'
    )
    assert result.explain("mean") == "in FP32, not searched: it has no kernel"
    with pytest.raises(ValueError, match=r"the 3 others of the model. Did you mean 'add1'"):
        result.explain("ad1")


def test_reports_have_the_ops_that_were_not_searched(tmp_path: Path) -> None:
    result = search(DAMAGE)
    frame = result.report().set_index("op")
    assert frame.loc["mean", "note"] == "not searched: it has no kernel"
    assert frame.loc["mean", "mode"] == "fp32"
    facts = collect(result)
    assert {each.op for each in facts.ops} == set(DAMAGE)
    first, second = facts.not_searched
    assert (first.op_types, first.ops) == ({"Add": 2}, ("add1", "add2"))
    assert (second.reason, second.remedy, second.ops) == ("it has no kernel", "", ("mean",))
    result.save_report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Left in FP32, not searched" in page
    assert "1 ReduceMean" in page


def test_the_explanation_names_what_was_left_out_where_all_else_is_quantized() -> None:
    result = search({"a": 0.0, "b": 0.0, "c": 0.0}, CostedBackend, c=3.0)
    assert list(result.left_out) == ["c"]
    assert not result.fallback_ops
    said = "1 op was left in FP32 as slower quantized here"
    assert said in str(result.explanation)
    assert str(result).count(said) == 1


def test_every_node_of_a_model_is_explained() -> None:
    make = Maker()
    x = make.node("Relu", [make.conv(make.input("x", ["N", 3, 8, 8]), 3, 4)])
    x = make.node("Flatten", [make.node("GlobalAveragePool", [x])])
    y = make.node("Gemm", [x, make.weight(4, 5)])
    result = tune(
        make.model([y]),
        calibration_data={"x": samples(8, 3, 8, 8)},
        data={"x": samples(8, 3, 8, 8)},
        metric="cosine",
        objective="ops",
        tolerable_loss=0.4,
        measure_gain=False,
    )
    assert result.explain("GlobalAveragePool0").startswith("in FP32, not searched: it is rarely")
    assert result.explain("Flatten0").startswith("not searched: Flatten has no quantized form")
    assert "; 1 other not searched" in str(result)


# Data that look wrong.


def test_a_report_from_the_record_alone_names_the_ops_that_were_not_searched() -> None:
    result = search({"a": 0.0, "b": 0.0})
    live, recorded = collect(result), collect_recorded(result.study)
    assert recorded.not_searched == live.not_searched
    assert len(recorded.not_searched) == 2


def classifier() -> onnx.ModelProto:
    make = Maker()
    make.node("MatMul", [make.input("x", ["N", 8]), make.weight(8, 4)], outputs=["y"])
    return make.model(["y"])


def by_chance(**given: Any) -> TuningResult:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8)).astype(np.float32)
    return tune(
        classifier(),
        calibration_data={"x": x[:50]},
        data={"x": x, "labels": rng.integers(0, 4, 200)},
        objective="size",
        measure_gain=False,
        tolerable_loss=0.4,
        **given,
    )


def test_a_model_that_is_no_better_than_chance_is_in_the_result(tmp_path: Path) -> None:
    storage = tmp_path / "study.journal"
    result = by_chance(storage=storage)
    (warning,) = result.warnings
    assert "no better than chance" in warning
    assert str(result).splitlines()[1] == f"warning: {warning}"
    assert "no better than chance" in result._repr_html_()
    assert collect(result).outcome.warnings == (warning,)
    # Nothing is evaluated again, and a report of the record has it as well.
    assert by_chance(storage=storage).warnings == (warning,)
    assert collect_recorded(result.study).outcome.warnings == (warning,)
    result.save_report(tmp_path / "r.html")
    assert "no better than chance" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("form", ["arrays", "pair", "batches", "dataset"])
def test_evaluation_data_that_are_less_precise_than_the_model_are_told_of_once(form: str) -> None:
    x, labels = samples(120, 8).astype(np.float16), np.arange(120) % 4
    pairs = list(zip(x, labels, strict=True))
    forms: dict[str, Any] = {
        "arrays": {"x": x, "labels": labels},
        "pair": (x, labels),
        "batches": [(x[i : i + 8], labels[i : i + 8]) for i in range(0, 120, 8)],
        "dataset": UserList(pairs),
    }
    with pytest.warns(UserWarning) as said:
        tune(
            classifier(),
            calibration_data={"x": x.astype(np.float32)},
            data=forms[form],
            holdout=0.2,
            accuracy_criterion=CRITERION,
            max_trials=2,
            objective="size",
        )
    texts = [str(each.message) for each in said]
    (text,) = [text for text in texts if "dtype float16" in text]
    assert text.startswith("Input 'x': the evaluation data have dtype float16 and are cast to the")


def test_a_data_set_that_seems_to_give_batches_is_told_of() -> None:
    x, labels = samples(800, 8), np.arange(800) % 4

    class Batches(UserList[Any]):
        """As data sets of other libraries; UserList is no list."""

    batches = Batches([(x[i : i + 8], labels[i : i + 8]) for i in range(0, 800, 8)])
    result = tune(
        classifier(),
        calibration_data={"x": x},
        data=batches,
        metric=lambda output, label: np.zeros(len(label)),
        accuracy_criterion=CRITERION,
        max_trials=1,
        objective="size",
    )
    (said,) = [text for text in result.warnings if "is run by itself" in text]
    assert said.startswith("An item of the evaluation data has 8 labels")


def test_few_samples_are_in_the_result() -> None:
    x = samples(20, 8)
    result = tune(
        classifier(),
        calibration_data={"x": x},
        data={"x": x, "labels": np.arange(20) % 4},
        objective="size",
        measure_gain=False,
    )
    told = "\n".join(result.warnings)
    assert "only 20 calibration samples" in told
    assert "only 20 evaluation samples" in told


def test_sound_data_have_no_warning() -> None:
    assert search(DAMAGE).warnings == ()
    assert "warning" not in str(search(DAMAGE))
    assert tune(backend=FakeBackend(DAMAGE), evaluate=accuracy).warnings == ()
