"""The fake backend with the rest of what a backend and its models may offer.

It simulates candidates and trains them, so searches with it take another course.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from fake_backend import FakeModel
from numpy.typing import NDArray
from whole_backend import WholeBackend

from optuna_quant.backends.base import MissingRange
from optuna_quant.backends.base import SharesCalibration
from optuna_quant.backends.base import TrainingTrial
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.left_out import LeftOut
from optuna_quant.space.space import TuningSpace


class Session:
    """What a runtime would call its model."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        self.watch: Callable[[Mapping[str, Any]], None] | None = None

    def run(self, feed: Mapping[str, Any]) -> list[NDArray[Any]]:
        if self.watch is not None:
            self.watch(feed)
        return self._model.run(feed)


@dataclass(frozen=True)
class TellingModel(FakeModel):
    """A fake model with a session of its own, which can be compiled."""

    def native(self) -> Session:
        return vars(self).setdefault("session", Session(self))

    @contextmanager
    def showing_inputs(self, watch: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
        self.native().watch = watch
        try:
            yield
        finally:
            self.native().watch = None

    def compiled(self) -> TellingModel:
        return self


def told(model: FakeModel, kind: type[TellingModel] = TellingModel) -> TellingModel:
    return kind(model.config, model.accuracy, model.fingerprint)


class MoreData:
    """What configurations in which all ops are quantized need besides."""

    def __init__(self, backend: TellingBackend) -> None:
        self._backend = backend

    def calibrate(self) -> None:
        self._backend.more = self.calibration_key().encode()

    def is_calibrated(self) -> bool:
        return self._backend.more is not None

    def calibration_key(self) -> str:
        return f"more of {self._backend.calibration_key()}"

    def calibration_bytes(self) -> int:
        return len(self.calibration_key())

    def export_calibration(self) -> bytes:
        self.calibrate()
        assert self._backend.more is not None
        return self._backend.more

    def import_calibration(self, data: bytes) -> None:
        if data != self.calibration_key().encode():
            raise ValueError("These are the statistics of other data.")
        self._backend.more = data


class TellingBackend(WholeBackend):
    """A backend that tells all that one may, for a device elsewhere."""

    original = "the model as given"
    sizes_are_of = "weights"
    simulated_target: str | None = "a device"
    file_endings: Sequence[str] = (".fake",)

    def __init__(self, data: str = "the data") -> None:
        super().__init__(data)
        self.more: bytes | None = None

    def quantize(self, config: QuantConfig) -> FakeModel:
        return told(super().quantize(config))

    def simulated(self, config: QuantConfig) -> FakeModel:
        return super().quantize(config)

    def ops_left_out(self, space: TuningSpace) -> Sequence[LeftOut]:
        inside = {op for tunable in space.tunables for op in tunable.ops}
        return [
            LeftOut(op.name, op.op_type, "it was not asked for")
            for op in self.capability().ops
            if op.name not in inside
        ]

    def missing_ranges(self) -> Mapping[str, MissingRange]:
        return {self.capability().ops[0].name: MissingRange("its input is zero")}

    def other_recipes(self) -> Sequence[str]:
        return ["smooth_quant"]

    def calibration_bytes(self) -> int:
        return 32 + len(self.calibration_key())

    def calibrations_for(self, config: QuantConfig) -> Iterator[SharesCalibration]:
        if len(config.quantized_ops) == len(self.damage):
            yield MoreData(self)

    def trains(self, config: QuantConfig) -> bool:
        return bool(config.quantized_ops)

    def trained(self, config: QuantConfig, trial: TrainingTrial) -> FakeModel:
        rate = trial.trial.suggest_float("lr", 0.0, 1.0)
        trial.report(rate, 1)
        return self._with_rate(config, rate)

    def quantize_trained(
        self, config: QuantConfig, hyperparameters: Mapping[str, Any]
    ) -> FakeModel:
        if "lr" not in hyperparameters:
            raise ValueError("The training asks for 'lr', which is not given.")
        return self._with_rate(config, hyperparameters["lr"])

    def _with_rate(self, config: QuantConfig, rate: float) -> FakeModel:
        model = self.quantize(config)
        found = f"{model.fingerprint} lr={rate}"
        return replace(model, accuracy=model.accuracy + rate / 100, fingerprint=found)
