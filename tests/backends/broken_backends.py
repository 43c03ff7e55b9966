"""Backends that break a promise each, under the tests that any backend can run.

They are run by ``test_conformance_finds.py``, which says which tests fail.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from costed_backend import CostedBackend
from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from telling_backend import MoreData
from telling_backend import TellingBackend
from telling_backend import TellingModel
from telling_backend import told
from whole_backend import DAMAGE
from whole_backend import Scores
from whole_backend import WholeBackend

from optuna_quant import testing
from optuna_quant.backends.base import Backend
from optuna_quant.backends.base import MissingRange
from optuna_quant.backends.base import OpRuns
from optuna_quant.backends.base import Sensitivity
from optuna_quant.backends.base import SharesCalibration
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.left_out import LeftOut
from optuna_quant.space.space import TuningSpace


class WithoutDynamic(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        if DYNAMIC in config.ops.values():
            raise KeyError("dynamic")
        return super().quantize(config)


class WrongSizes(WholeBackend):
    def __init__(self, data: str = "the data") -> None:
        super().__init__(data)
        self.sizes = dict.fromkeys(DAMAGE, 9.0)


class _Brief(Scores):
    def score_with_weights(self, configs: Any, ops: Any) -> Any:
        return [], {"nonsense": 7.0}

    def with_samples(self, samples: int) -> Any:
        return self if samples <= 2 else None


class WrongScores(WholeBackend):
    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        return _Brief()


class NegativeScores(WholeBackend):
    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        return lambda config, ops: dict.fromkeys(ops, -1.0)


class FloatsScored(WholeBackend):
    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        return lambda config, ops: dict.fromkeys(ops, 1.0)


class BuildsAnything(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        known = {op: STATIC if o.is_quantized else FP32 for op, o in config.ops.items()}
        built = super().quantize(QuantConfig(known))
        return replace(built, fingerprint=self.fingerprint(config))


class TellsNothing(WholeBackend):
    def executed(self, config: QuantConfig) -> dict[str, OpRuns]:
        return {}


class SaysNothingOfData(WholeBackend):
    def signature(self) -> Mapping[str, str]:
        return {}

    def calibration_key(self) -> str:
        return "constant"


class SaysNothingOfWeights(SaysNothingOfData):
    """Another model of the same ops has the same fingerprints."""

    def __init__(self, data: str = "the data") -> None:
        super().__init__("the data")
        self._less = 0.0 if data == "the data" else 0.01

    def quantize(self, config: QuantConfig) -> FakeModel:
        built = super().quantize(config)
        return replace(built, accuracy=built.accuracy - self._less)


class TakesAnyCalibration(WholeBackend):
    def import_calibration(self, data: bytes) -> None:
        if len(data) < 34:
            raise ValueError("Damaged.")
        self._statistics = data[32:]


class NoSuchInput(WholeBackend):
    def calibration_preview(self, samples: int) -> tuple[int, Sequence[Mapping[str, Any]]]:
        count, feeds = super().calibration_preview(samples)
        return count, [{"input": feeds[0]["x"]}]


class _Truncating(FakeModel):
    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.config.to_json())


class WritesOver(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return _Truncating(**vars(super().quantize(config)))


class _Centred(FakeModel):
    depends_on_batch = False

    def run(self, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Any:
        return [y - y.mean(0) for y in super().run(feed, outputs)]


class BatchDependent(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return _Centred(**vars(super().quantize(config)))


class WrongFingerprint(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return replace(super().quantize(config), fingerprint=config.key)


class OneOp(CostedBackend):
    def __init__(self, data: str = "the data") -> None:
        super().__init__({"a": 0.1}, {"a": 0.5})


class OneFingerprint(WholeBackend):
    """It ignores how an op is quantized, which decides what the models compute."""

    def quantize(self, config: QuantConfig) -> FakeModel:
        built = super().quantize(config)
        dynamic = sum(option == DYNAMIC for option in config.ops.values())
        return replace(built, accuracy=built.accuracy - 0.01 * dynamic)

    def fingerprint(self, config: QuantConfig) -> str:
        return super().fingerprint(QuantConfig(dict.fromkeys(config.quantized_ops, STATIC)))


class _Smaller(FakeModel):
    @property
    def nbytes(self) -> int:
        return super().nbytes - sum(option == DYNAMIC for option in self.config.ops.values())


class OneFingerprintOfSizes(WholeBackend):
    """It ignores how an op is quantized, which decides how large the models are."""

    def quantize(self, config: QuantConfig) -> FakeModel:
        return _Smaller(**vars(super().quantize(config)))

    def fingerprint(self, config: QuantConfig) -> str:
        return super().fingerprint(QuantConfig(dict.fromkeys(config.quantized_ops, STATIC)))


class OtherScoresUntold(WholeBackend):
    def signature(self) -> Mapping[str, str]:
        return {}

    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        scale = len(self._data)
        return lambda config, ops: {op: s * scale for op, s in Scores()(config, ops).items()}


class NumpySize(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return _NumpySize(**vars(super().quantize(config)))


class _NumpySize(FakeModel):
    @property
    def nbytes(self) -> Any:
        return np.int64(super().nbytes)


class FloatsNotScored(WholeBackend):
    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        return lambda config, ops: {op: DAMAGE[op] for op in ops if config.ops[op].is_quantized}


class AllZero(WholeBackend):
    def scores(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        return lambda config, ops: dict.fromkeys(ops, 0.0)


class TakesAnyRecipe(WholeBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return super().quantize(QuantConfig(config.ops))


class SizesOfModes(FakeBackend):
    """Its table of sizes names options by their modes alone."""

    def __init__(self, data: str = "the data") -> None:
        super().__init__(DAMAGE)

    def counted_costs(self, space: TuningSpace) -> Costs:
        sizes = {op: {"fp32": 100, "static": 0} for op in DAMAGE}
        return Costs({"size": CostTable("size", "bytes", sizes)})


class NoName(TellingBackend):
    original = ""


class SizesOfOf(TellingBackend):
    sizes_are_of = "of weights"


class OtherTargets(TellingBackend):
    """It simulates another device in every process."""

    made = 0

    def __init__(self, data: str = "the data") -> None:
        super().__init__(data)
        OtherTargets.made += 1
        self.simulated_target = f"device {OtherTargets.made}"


class EndingWithoutDot(TellingBackend):
    file_endings = ("fake",)


class LeavesOutAll(TellingBackend):
    def ops_left_out(self, space: TuningSpace) -> Sequence[LeftOut]:
        return [LeftOut(op.name, op.op_type, "why not") for op in self.capability().ops]


class LeavesOutNothing(TellingBackend):
    def ops_left_out(self, space: TuningSpace) -> Sequence[LeftOut]:
        return []


class RangesOfNoOp(TellingBackend):
    def missing_ranges(self) -> Mapping[str, MissingRange]:
        return {"nowhere": MissingRange("its input is zero")}


class RecipeWithoutName(TellingBackend):
    def other_recipes(self) -> Sequence[str]:
        return ["smooth_quant", ""]


class WrongCalibrationBytes(TellingBackend):
    def calibration_bytes(self) -> int:
        return 10**9


class _Forgotten(MoreData):
    def import_calibration(self, data: bytes) -> None:
        pass


class ForgetsMoreData(TellingBackend):
    def calibrations_for(self, config: QuantConfig) -> Iterator[SharesCalibration]:
        if config.quantized_ops:
            yield _Forgotten(self)


class _Silent(TellingModel):
    @contextmanager
    def showing_inputs(self, watch: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
        yield


class ShowsNothing(TellingBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return told(super().quantize(config), _Silent)


class _OtherCompiled(TellingModel):
    def compiled(self) -> TellingModel:
        return replace(self, accuracy=self.accuracy / 2)


class CompilesAnother(TellingBackend):
    def quantize(self, config: QuantConfig) -> FakeModel:
        return told(super().quantize(config), _OtherCompiled)


class SimulatesAnother(TellingBackend):
    def simulated(self, config: QuantConfig) -> FakeModel:
        found = super().simulated(config)
        return replace(found, accuracy=0.5) if config.quantized_ops else found


class ForgetsRate(TellingBackend):
    """What it builds from the record is what it would build without training."""

    def quantize_trained(
        self, config: QuantConfig, hyperparameters: Mapping[str, Any]
    ) -> FakeModel:
        return self.quantize(config)


_CASES = (
    testing.BackendTestCase,
    testing.ModelTestCase,
    testing.CalibrationTestCase,
    testing.SensitivityTestCase,
    testing.CostsTestCase,
)
_TELLING_CASES = (
    testing.BackendTestCase,
    testing.ModelTestCase,
    testing.CalibrationTestCase,
    testing.CompilingTestCase,
    testing.SimulationTestCase,
    testing.TrainingTestCase,
)


def _tested(broken: Callable[..., Backend], cases: tuple[type, ...]) -> type:
    def make_backend(self: object) -> Callable[[], Backend]:
        return broken

    def make_other_backend(self: object) -> Callable[[], Backend]:
        return lambda: broken("other data")

    def call_native(self: object) -> Callable[[Any, Mapping[str, Any]], object]:
        return lambda session, feed: session.run(feed)

    def hyperparameters(self: object) -> Mapping[str, float]:
        return {"lr": 0.5}

    given = (make_backend, make_other_backend, call_native, hyperparameters)
    fixtures = {each.__name__: pytest.fixture(each) for each in given}
    return type(f"Test{broken.__name__}", cases, fixtures)  # type: ignore[attr-defined]


for _broken in (
    WithoutDynamic,
    WrongSizes,
    WrongScores,
    NegativeScores,
    FloatsScored,
    BuildsAnything,
    TellsNothing,
    SaysNothingOfData,
    SaysNothingOfWeights,
    TakesAnyCalibration,
    NoSuchInput,
    WritesOver,
    BatchDependent,
    WrongFingerprint,
    OneFingerprint,
    OneFingerprintOfSizes,
    OtherScoresUntold,
    NumpySize,
    FloatsNotScored,
    AllZero,
    TakesAnyRecipe,
):
    globals()[f"Test{_broken.__name__}"] = _tested(_broken, _CASES)
for _broken in (
    NoName,
    SizesOfOf,
    OtherTargets,
    EndingWithoutDot,
    LeavesOutAll,
    LeavesOutNothing,
    RangesOfNoOp,
    RecipeWithoutName,
    WrongCalibrationBytes,
    ForgetsMoreData,
    ShowsNothing,
    CompilesAnother,
    SimulatesAnother,
    ForgetsRate,
):
    globals()[f"Test{_broken.__name__}"] = _tested(_broken, _TELLING_CASES)
TestOneOp = _tested(OneOp, (testing.BackendTestCase,))
TestSizesOfModes = _tested(SizesOfModes, (testing.TuningTestCase,))
