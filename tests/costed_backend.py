"""The backend without a model, which knows what its ops cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fake_backend import FP32_BYTES
from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np

from optuna_quant.costs import Boundary
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.costs import Validation
from optuna_quant.space.config import FP32
from optuna_quant.space.space import TuningSpace


GOOD = Validation((1.0, 2.0), (1.0, 2.0), 0.0, 1.0)
BAD = Validation((1.0, 2.0), (2.0, 1.0), 0.0, 0.2)


def table(
    space: TuningSpace,
    quantized: Mapping[str, float],
    *,
    measure: str = "latency",
    fixed: float = 0.0,
    boundaries: tuple[Boundary, ...] = (),
) -> CostTable:
    """In FP32 each op costs 1 ms (or 100 bytes), quantized what is given."""
    unit = 1e-3 if measure == "latency" else 100.0
    ops = {
        op: {FP32.label: unit}
        | {o.label: unit * quantized[op] for o in t.options if o.is_quantized}
        for t in space.tunables
        for op in t.ops
    }
    return CostTable(measure, "s" if measure == "latency" else "bytes", ops, boundaries, fixed)


class CostedBackend(FakeBackend):
    """Measures the given costs, and counts how often.

    Args:
        damage:
            What quantizing each op costs of the accuracy.
        quantized:
            The milliseconds of each op when it is quantized; in FP32 it is 1.
        sizes:
            Its hundreds of bytes when it is quantized; in FP32 it is 1.
        validation:
            How the table agrees with whole models.
        error:
            Raised instead of measuring.
    """

    def __init__(
        self,
        damage: Mapping[str, float],
        quantized: Mapping[str, float],
        *,
        sizes: Mapping[str, float] | None = None,
        validation: Validation | None = GOOD,
        error: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(damage, **kwargs)
        self.quantized = quantized
        self.sizes = sizes
        self.validation = validation
        self.error = error

    def costs(self, space: TuningSpace) -> Costs:
        self.calls["costs"] += 1
        if self.error is not None:
            raise self.error
        tables = {"latency": table(space, self.quantized)}
        if self.sizes is not None:
            rest = FP32_BYTES - 100 * len(self.sizes)
            tables["size"] = table(space, self.sizes, measure="size", fixed=rest)
        return Costs(tables, {"batch": "1", "threads": "1"}, self.validation)


class RunsBackend(CostedBackend):
    """Its models run, and count their runs; it has a sample to run them on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ran: list[str] = []

    def quantize(self, config: Any) -> Any:
        model = super().quantize(config)
        return RunningModel(model, self.ran)

    def calibration_preview(self, samples: int) -> tuple[int, list[dict[str, Any]]]:
        return samples, [{"x": np.zeros((samples, 1))}]


class RunningModel:
    """A fake model that runs."""

    def __init__(self, model: FakeModel, ran: list[str]) -> None:
        self._model = model
        self._ran = ran

    def run(self, feed: Mapping[str, Any], outputs: object = None) -> None:
        assert set(feed) == {"x"}
        self._ran.append(self._model.fingerprint)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
