"""Backends that break a promise each, under the tests that any backend can run.

They are run in a process of its own by ``test_conformance_finds.py``, which says which tests fail.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from costed_backend import CostedBackend
from fake_backend import FakeModel
import pytest
from spaces import DYNAMIC
from spaces import STATIC
from whole_backend import DAMAGE
from whole_backend import Scores
from whole_backend import WholeBackend

from optuna_quant import testing
from optuna_quant.backends.base import Backend
from optuna_quant.backends.base import OpRuns
from optuna_quant.backends.base import Sensitivity
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig


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


_CASES = (
    testing.BackendTestCase,
    testing.ModelTestCase,
    testing.CalibrationTestCase,
    testing.SensitivityTestCase,
    testing.CostsTestCase,
)


def _tested(broken: Callable[..., Backend], cases: tuple[type, ...]) -> type:
    def make_backend(self: object) -> Callable[[], Backend]:
        return broken

    def make_other_backend(self: object) -> Callable[[], Backend]:
        return lambda: broken("other data")

    fixtures = {
        "make_backend": pytest.fixture(make_backend),
        "make_other_backend": pytest.fixture(make_other_backend),
    }
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
    TakesAnyCalibration,
    NoSuchInput,
    WritesOver,
    BatchDependent,
    WrongFingerprint,
):
    globals()[f"Test{_broken.__name__}"] = _tested(_broken, _CASES)
TestOneOp = _tested(OneOp, (testing.BackendTestCase,))
