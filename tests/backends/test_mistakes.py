"""What a search, and the tests for backends, say of a backend that is not quite right."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import inspect
from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
from fake_backend import fake_data
import numpy as np
import pytest
from whole_backend import DAMAGE
from whole_backend import Scores
from whole_backend import WholeBackend

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.backends.base import Sensitivity
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.data.inputs import InputSpec
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study.errors import BaselineError
from optuna_quant.testing import BackendTestCase
from optuna_quant.testing import CalibrationTestCase
from optuna_quant.testing import CostsTestCase
from optuna_quant.testing import ModelTestCase
from optuna_quant.testing.sensitivity import SensitivityTestCase


def searched(backend: Any, **options: Any) -> TuningResult:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
    tuning = TuningCriterion(objective="ops", max_trials=5)
    return tune(
        backend=backend,
        accuracy_criterion=criterion,
        tuning_criterion=tuning,
        early_stopping="off",
        **{"data": fake_data(1000), **options},
    )


class Scored(WholeBackend):
    """A backend with a sensitivity of the test's."""

    def __init__(self, make: Callable[..., Sensitivity | None]) -> None:
        super().__init__()
        self._make = make

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        return {SensitivityKind.BEST: SensitivityFactory(self._make)}


def fails(*, outputs: Sequence[str] | None) -> Sensitivity:
    raise ValueError("The samples have another shape.")


def scores_of(**changed: float | None) -> Sensitivity:
    """The scores of the fake ops but for some; those that are None are missing."""

    def score(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        found = {**Scores()(config, ops), **changed}
        return {op: score for op, score in found.items() if score is not None}

    return score


def test_search_warns_that_the_best_sensitivity_cannot_be_made() -> None:
    with pytest.warns(UserWarning, match="learns from trials alone: The samples have another"):
        assert searched(Scored(fails)).met


def test_best_sensitivity_that_raises_fails_its_tests() -> None:
    case = SensitivityTestCase()
    configs = {"default": WholeBackend().tuning_space().default()}
    with pytest.raises(pytest.fail.Exception, match=r"another shape.*must be None"):
        make = inspect.unwrap(SensitivityTestCase.make_sensitivity)(
            case, SensitivityKind.BEST, lambda: Scored(fails)
        )
        case.test_each_op_has_a_score(make, configs)


@pytest.mark.parametrize("wrong", [float("nan"), None])
def test_score_that_is_no_number_is_an_error(wrong: float | None) -> None:
    sensitivity = scores_of(b=wrong)
    with pytest.raises(ValueError, match=r"must give a number for each op.*'b'"):
        searched(Scored(lambda outputs: sensitivity))
    configs = {"default": WholeBackend().tuning_space().default()}
    with pytest.raises(AssertionError, match="b"):
        SensitivityTestCase().test_each_op_has_a_score(lambda: sensitivity, configs)


def test_negative_score_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    searched(Scored(lambda outputs: scores_of(b=-1.0)))
    said = [entry.getMessage() for entry in caplog.records if "negative" in entry.getMessage()]
    assert len(said) == 1
    assert "least -1, of 'b'" in said[0]


class Signed(FakeBackend):
    def signature(self) -> Mapping[str, Any]:
        return {"seed": 3}


def test_signature_that_is_no_text_is_named() -> None:
    with pytest.raises(TypeError, match=r"Signed.signature\(\).*'seed' is of the type int: 3"):
        searched(Signed(DAMAGE))
    with pytest.raises(AssertionError, match=r"must have strings.*'seed': 'int'"):
        BackendTestCase().test_signature_is_the_same_each_time(lambda: Signed(DAMAGE))


class Appends:
    """A model whose file has another name than it was told."""

    def save(self, path: str | Path) -> None:
        np.savez(path, x=np.zeros(3))


def test_file_of_another_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exactly this path"):
        ModelTestCase().test_it_is_saved(Appends(), tmp_path)  # type: ignore[arg-type]


def test_table_of_sizes_that_is_off_is_told_the_recipe() -> None:
    class Larger(WholeBackend):
        def quantize(self, config: QuantConfig) -> Any:
            model = super().quantize(config)
            return type("Larger", (), {"nbytes": 2 * model.nbytes})

    backend = Larger()
    space = backend.tuning_space()
    with pytest.raises(AssertionError, match="plus the bytes of the op in FP32"):
        CostsTestCase().test_sizes_are_those_of_the_models(
            backend.costs(space), backend, {"FP32": space.fp32()}
        )


class Built(FakeBackend):
    """A backend with a model of the test's."""

    def __init__(self, **members: Any) -> None:
        super().__init__(DAMAGE)
        self._members = members

    def quantize(self, config: QuantConfig) -> Any:
        model = super().quantize(config)
        kind = type("Own", (type(model),), self._members)
        return kind(model.config, model.accuracy, model.fingerprint)


def test_inputs_may_be_described_as_numpy_reads_them() -> None:
    spec = InputSpec("x", np.float64, [None, 1])  # type: ignore[arg-type]
    assert spec == InputSpec("x", np.dtype(np.float64), (None, 1))
    assert searched(Built(inputs=(spec,))).met


def one_array(self: FakeModel, feed: Mapping[str, Any], outputs: Any = None) -> Any:
    return np.ones((len(feed["x"]), 2))


def by_name(self: FakeModel, feed: Mapping[str, Any], outputs: Any = None) -> Any:
    return {"logits": np.ones((len(feed["x"]), 2))}


@pytest.mark.parametrize(("run", "given"), [(one_array, "ndarray"), (by_name, "dict")])
def test_run_of_another_form_is_named(run: Callable[..., Any], given: str) -> None:
    with pytest.raises(Exception, match=rf"{run.__name__}\(\) must return a list.*a {given}"):
        searched(Built(run=run))


def test_outputs_that_are_a_string_are_named() -> None:
    with pytest.raises(TypeError, match=r"Own.outputs must be a sequence of names"):
        searched(Built(outputs="logits"))
    model = Built(outputs="logits").quantize(QuantConfig({}))
    with pytest.raises(AssertionError, match="not the string"):
        ModelTestCase().test_outputs_have_names(model)


def test_inputs_of_another_form_are_named() -> None:
    with pytest.raises(TypeError, match=r"Own.inputs must be .*InputSpec, but has a str"):
        searched(Built(inputs=("x",)))


class Runtime(FakeBackend):
    """A backend that gives its runtime's own object in the place of a model."""

    def quantize(self, config: QuantConfig) -> Any:
        return lambda x: x


def test_the_runtimes_own_model_is_refused() -> None:
    said = r"Runtime.quantize\(\) must return .*Model, but returned a function, which lacks inputs"
    with pytest.raises(TypeError, match=said):
        searched(Runtime(DAMAGE))
    with pytest.raises(BaselineError, match=said):
        searched(Runtime(DAMAGE), data=None, evaluate=lambda model: 1.0)


def test_costs_of_another_form_are_named(caplog: pytest.LogCaptureFixture) -> None:
    class Counts(FakeBackend):
        def counted_costs(self, space: TuningSpace) -> Any:
            return {"size": {}}

    tuning = TuningCriterion(objective="size")
    tune(backend=Counts(DAMAGE), data=fake_data(100), tuning_criterion=tuning)
    assert (
        "counted_costs() must return optuna_quant.costs.Costs, but returned a dict" in caplog.text
    )


def test_executed_of_another_form_is_named() -> None:
    class Tells(FakeBackend):
        def executed(self, config: QuantConfig) -> Any:
            return dict.fromkeys(config.ops, "kernel")

    with pytest.raises(TypeError, match=r"Tells.executed\(\) must return .*OpRuns, but has a str"):
        searched(Tells(DAMAGE)).report()


class Half(FakeBackend):
    """It shares its calibration in part."""

    def is_calibrated(self) -> bool:
        return True


def test_half_of_a_protocol_is_told() -> None:
    missing = "calibration_key, export_calibration, import_calibration"
    with pytest.warns(UserWarning, match=rf"Half has is_calibrated, calibrate but not {missing}"):
        searched(Half(DAMAGE))
    with pytest.raises(AssertionError, match=rf"is no SharesCalibration: it lacks {missing}"):
        inspect.unwrap(CalibrationTestCase.sharing)(CalibrationTestCase(), lambda: Half(DAMAGE))()


def test_what_is_always_calibrated_fails_its_tests() -> None:
    class Always(WholeBackend):
        def is_calibrated(self) -> bool:
            return True

    with pytest.raises(AssertionError, match="calibrated from the start"):
        CalibrationTestCase().test_it_says_that_it_is_not_calibrated(Always)


def test_outputs_of_another_type_than_in_fp32_fail() -> None:
    def run(self: FakeModel, feed: Mapping[str, Any], outputs: Any = None) -> Any:
        kind = np.float64 if self.config.quantized_ops else np.float32
        return [np.ones((len(feed["x"]), 2), kind)]

    backend = Built(run=run)
    space = backend.tuning_space()
    configs = {"FP32": space.fp32(), "default": space.default()}
    with pytest.raises(AssertionError, match="other types than in FP32"):
        ModelTestCase().test_models_of_all_options_run(backend, configs, {"x": np.ones((2, 1))})
