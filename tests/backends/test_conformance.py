"""The tests that any backend can run, for ours and for one that knows nothing of ONNX."""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
import re
import subprocess
import sys
from typing import Any

from fake_backend import FakeBackend
from fake_backend import fake_data
import numpy as np
import onnx_models
import pytest
from telling_backend import TellingBackend
from whole_backend import DAMAGE
from whole_backend import WholeBackend
from whole_backend import size_table

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import testing
from optuna_quant import tune
from optuna_quant.backends.base import Backend
from optuna_quant.backends.base import Sensitivity
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs import Costs
from optuna_quant.evaluation.half_written import OF_BACKENDS
from optuna_quant.evaluation.half_written import OF_MODELS
from optuna_quant.evaluation.half_written import OF_SENSITIVITIES
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.testing import BackendTestCase
from optuna_quant.testing import BlocksTestCase
from optuna_quant.testing import CalibrationTestCase
from optuna_quant.testing import CompilingTestCase
from optuna_quant.testing import CostsTestCase
from optuna_quant.testing import ModelTestCase
from optuna_quant.testing import PartsTestCase
from optuna_quant.testing import SensitivityTestCase
from optuna_quant.testing import SimulationTestCase
from optuna_quant.testing import TrainingTestCase
from optuna_quant.testing import TuningTestCase


class _OnnxRuntime:
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        model, x = onnx_models.convnet(), onnx_models.samples(40, 2, 8, 8)
        return lambda: OnnxRuntimeBackend(model, calibration_data={"x": x})

    @pytest.fixture
    def make_other_backend(self) -> Callable[[], Backend]:
        model, x = onnx_models.convnet(), 2 * onnx_models.samples(30, 2, 8, 8)
        return lambda: OnnxRuntimeBackend(model, calibration_data={"x": x})

    @pytest.fixture
    def call_native(self) -> Callable[[Any, Mapping[str, Any]], object]:
        return lambda session, feed: session.run(None, feed)


class _Fake:
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        return WholeBackend

    @pytest.fixture
    def make_other_backend(self) -> Callable[[], Backend]:
        return lambda: WholeBackend("other data")


class TestOnnxRuntime(_OnnxRuntime, BackendTestCase, ModelTestCase, CalibrationTestCase):
    pass


class TestOnnxRuntimeForADevice(BackendTestCase):
    """Models for another device than this one."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        model, x = onnx_models.convnet(), onnx_models.samples(40, 2, 8, 8)
        return lambda: OnnxRuntimeBackend(model, calibration_data={"x": x}, target="qnn")


class TestOnnxRuntimeSensitivities(_OnnxRuntime, SensitivityTestCase):
    pass


class TestOnnxRuntimeCosts(_OnnxRuntime, CostsTestCase):
    @pytest.fixture(scope="class")
    def measured(self) -> Costs:
        """Measured once: it takes seconds."""
        x = onnx_models.samples(40, 2, 8, 8)
        backend = OnnxRuntimeBackend(onnx_models.convnet(), calibration_data={"x": x})
        return backend.costs(backend.tuning_space())

    @pytest.fixture
    def costs(self, measured: Costs) -> Costs:
        return measured


class TestOnnxRuntimeTuning(_OnnxRuntime, TuningTestCase):
    pass


class TestOnnxRuntimeDynamic(BackendTestCase, ModelTestCase):
    """Models whose results depend on the batch, and with an axis that may have any size."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        model = onnx_models.attention()
        return lambda: OnnxRuntimeBackend(model, approach="dynamic")

    @pytest.fixture
    def feed(self) -> Mapping[str, Any]:
        return {"x": onnx_models.samples(2, 5, 8)}


class TestFake(
    _Fake,
    BackendTestCase,
    ModelTestCase,
    CalibrationTestCase,
    SensitivityTestCase,
    CostsTestCase,
    TuningTestCase,
):
    pass


class TestTelling(
    BackendTestCase,
    ModelTestCase,
    CalibrationTestCase,
    CompilingTestCase,
    SimulationTestCase,
    TrainingTestCase,
):
    """What a backend may tell of itself, simulate and train."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        return TellingBackend

    @pytest.fixture
    def call_native(self) -> Callable[[Any, Mapping[str, Any]], object]:
        return lambda session, feed: session.run(feed)

    @pytest.fixture
    def hyperparameters(self) -> Mapping[str, float]:
        return {"lr": 0.5}


class CountingBackend(FakeBackend):
    """It counts costs, and measures none."""

    def counted_costs(self, space: TuningSpace) -> Costs:
        return Costs({"size": size_table(space)})

    def calibration_preview(self, samples: int) -> None:
        return None

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        return {
            SensitivityKind.BEST: SensitivityFactory(lambda outputs: None),
            SensitivityKind.OP_ERROR: SensitivityFactory(self._no_data),
        }

    def _no_data(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        raise ValueError("There are no data to score with.")


class TestWithoutData(CostsTestCase, SensitivityTestCase):
    """What counts costs alone, and has nothing to score with, is a backend."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        return lambda: CountingBackend(DAMAGE)


class TestSmallest(BackendTestCase, ModelTestCase, TuningTestCase):
    """What a backend must have is enough."""

    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        return lambda: FakeBackend(DAMAGE)


def test_data_decide_what_is_quantized_of_a_model_that_is_no_onnx_model() -> None:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)
    result = tune(
        backend=FakeBackend(DAMAGE),
        data=fake_data(1000),
        accuracy_criterion=criterion,
        early_stopping="off",
    )
    assert result.met
    assert result.config is not None
    assert set(result.config.quantized_ops) == {"a", "b"}
    assert result.baseline == pytest.approx(0.9)
    assert result.metric == pytest.approx(0.89)


def test_it_works_where_onnx_runtime_is_not_installed() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('onnx', 'onnxruntime'))\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from fake_backend import FakeBackend, fake_data\n"
        "from optuna_quant import tune\n"
        "print(tune(backend=FakeBackend(3), data=fake_data(50)).met)\n"
        "tune('model.onnx', data=fake_data(50))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True"
    assert 'pip install "optuna_quant[onnx]"' in done.stderr


def test_options_of_a_sensitivity_are_those_that_its_backend_names() -> None:
    class Optional(WholeBackend):
        def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
            return {SensitivityKind.OP_ERROR: SensitivityFactory(self.scale, ("factor",))}

        def scale(self, *, outputs: Sequence[str] | None, factor: float) -> Sensitivity:
            def score(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
                factors.append(factor)
                return {op: factor * DAMAGE[op] for op in ops}

            return score

    factors: list[float] = []
    tuning = TuningCriterion(strategy="mse", strategy_kwargs={"factor": 2.0})
    tune(backend=Optional(), evaluate=lambda model: model.accuracy, tuning_criterion=tuning)
    assert set(factors) == {2.0}
    with pytest.raises(ValueError, match=r"'mse' has no option 'factor'"):
        tune(
            backend=WholeBackend(),
            evaluate=lambda model: model.accuracy,
            tuning_criterion=tuning,
        )


def test_the_kind_of_sensitivity_that_is_missing_is_named() -> None:
    tuning = TuningCriterion(strategy="mse_v2")
    with pytest.raises(ValueError, match=r"kind 'output_error'.*it has 'best', 'op_error'"):
        tune(
            backend=WholeBackend(),
            evaluate=lambda model: model.accuracy,
            tuning_criterion=tuning,
        )


def test_every_protocol_has_its_tests() -> None:
    folder = Path(testing.__file__).parent
    tests = "\n".join(path.read_text() for path in folder.glob("[a-z]*.py"))
    every = (*OF_BACKENDS, *OF_MODELS, *OF_SENSITIVITIES)
    assert {each.__name__ for each in every if f"import {each.__name__}\n" not in tests} == set()


def examples_of_the_documentation() -> dict[str, Any]:
    """The classes that the page defines."""
    text = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()
    names: dict[str, Any] = {"QuantConfig": QuantConfig}
    for block in re.findall(r"<!-- run -->\n```python\n(.*?)```", text, re.DOTALL):
        kept = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.Assign)
        tree = ast.parse(block)
        if any(isinstance(node, ast.ClassDef) for node in tree.body):
            # What comes behind a class uses it.
            last = max(i for i, n in enumerate(tree.body) if isinstance(n, ast.ClassDef))
            tree.body = [node for node in tree.body[: last + 1] if isinstance(node, kept)]
            exec(compile(tree, "backends.md", "exec"), names)
    return names


def random_weights(seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(8, 8)).astype(np.float32) for _ in range(3)]


class TestExampleOfTheDocumentation(BackendTestCase, ModelTestCase, TuningTestCase):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        backend = examples_of_the_documentation()["NumpyBackend"]
        return lambda: backend(random_weights())


class TestScoringExampleOfTheDocumentation(SensitivityTestCase):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        backend = examples_of_the_documentation()["ScoringBackend"]
        return lambda: backend(random_weights(), random_weights(1)[0])

    @pytest.fixture
    def make_other_backend(self) -> Callable[[], Backend]:
        backend = examples_of_the_documentation()["ScoringBackend"]
        return lambda: backend(random_weights(), random_weights(2)[0])


class TestOnnxRuntimeParts(PartsTestCase, CalibrationTestCase):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        maker = onnx_models.Maker()
        h = maker.node("MatMul", [maker.input("x", ["N", 40]), maker.weight(40, 6)])
        model, x = maker.model([h]), onnx_models.samples(20, 40)
        return lambda: OnnxRuntimeBackend(model, approach="weight_only", calibration_data={"x": x})


class TestOnnxRuntimeBlocks(BlocksTestCase):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        maker = onnx_models.Maker()
        h = maker.input("x", ["N", 4])
        for _ in range(3):
            inner = maker.node("Relu", [maker.node("MatMul", [h, maker.weight(4, 6)])])
            h = maker.node("Add", [h, maker.node("MatMul", [inner, maker.weight(6, 4)])])
        model, x = maker.model([h]), onnx_models.samples(20, 4)
        return lambda: OnnxRuntimeBackend(model, calibration_data={"x": x})
