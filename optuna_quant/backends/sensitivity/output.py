"""Sensitivity by output error: how far the quantization of an op moves the model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from threading import Lock
import time
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.counts import check_positive
from optuna_quant.backends.sensitivity.asked_ops import quantized_ops
from optuna_quant.backends.sensitivity.relative_error import RelativeError
from optuna_quant.data.outputs import choose_outputs
from optuna_quant.space.config import QuantConfig


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.base import CandidateModel
    from optuna_quant.backends.calibration.data import CalibrationData
    from optuna_quant.backends.calibration.feeds import Feed

    Build = Callable[[QuantConfig], CandidateModel]


_logger = get_logger(__name__)

# Ops whose single errors make up so much of a model's error are ranked by them.
_EXPLAINED = 0.5


class OutputSensitivity:
    """How far the quantization of each op moves the model's outputs.

    An error is the mean squared difference to the FP32 model's outputs over their variance, summed
    over the outputs, on a few batches. The score of an op is the error that it makes alone, with
    the others in FP32. Where these errors together make up less than half of that of the
    configuration, ops matter together; then the score is how much the error falls when the op
    falls back too, which may be less than nothing.

    Both views agree where errors add up. Where they exceed what can be seen in the outputs, as in
    a model that is far off, the second is noise, and it costs a model per op each time, the first
    one only once. Ops in fallback score zero.

    FP32 outputs are computed once, models that are the same once, and all are built from the
    calibration statistics that the backend has. Labels among the outputs (and everything that is
    not floating-point) count by how many are wrong.

    Args:
        build:
            Builds the model of a configuration.
        data:
            The samples.
        batches:
            How many batches are used, from the start of the data.
        batch_size:
            The most samples in a batch, where the model allows to cut the data.
        outputs:
            The names of the outputs that are looked at; None for all.

    Raises:
        ValueError:
            If ``batches`` or ``batch_size`` is not a positive number.
    """

    def __init__(
        self,
        build: Build,
        data: CalibrationData,
        *,
        batches: int = 2,
        batch_size: int = 32,
        outputs: Sequence[str] | None = None,
    ) -> None:
        check_positive("batches", batches)
        check_positive("batch_size", batch_size)
        self._build = build
        self._data = data
        self._batch_size = batch_size
        self._outputs = None if outputs is None else tuple(outputs)
        self.key = f"batches={batches}, batch_size={batch_size}"
        if self._outputs is not None:
            self.key += f", outputs={list(self._outputs)}"
        self._sizes = range(batch_size, batch_size * batches + 1, batch_size)
        self._lock = Lock()
        self._reference: list[tuple[Feed, dict[str, NDArray[Any]]]] = []
        self._by_config: dict[str, float] = {}
        self._by_model: dict[str, float] = {}

    def with_batches(self, batches: int) -> OutputSensitivity:
        """The same sensitivity with another number of batches.

        Args:
            batches:
                How many batches are used, from the start of the data.
        """
        return OutputSensitivity(
            self._build,
            self._data,
            batches=batches,
            batch_size=self._batch_size,
            outputs=self._outputs,
        )

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> dict[str, float]:
        """Score ops of a configuration.

        Args:
            config:
                The configuration.
            ops:
                Their names.

        Raises:
            ValueError:
                If an op is not in the configuration, or the model has no output that is an array.
        """
        started = time.perf_counter()
        scores = dict.fromkeys(ops, 0.0)
        quantized = quantized_ops(config, scores)
        with self._lock:
            runs = len(self._by_model)
            error = self._error(config) if quantized else 0.0
            for op in quantized:
                scores[op] = self._error(
                    QuantConfig({op: config.ops[op]}, config.recipes, config.calibration_size)
                )
            if sum(scores.values()) < _EXPLAINED * error:
                for op in quantized:
                    scores[op] = error - self._error(config.with_fallback(op))
            runs = len(self._by_model) - runs
        _logger.info(
            f"Scored {len(scores)} ops by the error of the model's outputs, {error:.3g}, with "
            f"{runs} models in {time.perf_counter() - started:.1f} s."
        )
        return scores

    def _error(self, config: QuantConfig) -> float:
        if config.key not in self._by_config:
            model = self._build(config)
            if model.fingerprint not in self._by_model:
                self._by_model[model.fingerprint] = self._run(model)
            self._by_config[config.key] = self._by_model[model.fingerprint]
        return self._by_config[config.key]

    def _run(self, model: CandidateModel) -> float:
        if not self._reference:
            self._reference = list(self._exact())
        errors = {name: RelativeError() for name in self._reference[0][1]}
        for feed, exact in self._reference:
            actual = model.run(feed, list(exact))
            for (name, values), output in zip(exact.items(), actual, strict=True):
                errors[name].update(values, output)
        return sum(error.whole for error in errors.values())

    def _exact(self) -> Iterator[tuple[Feed, dict[str, NDArray[Any]]]]:
        model = self._build(QuantConfig({}))
        names = list(model.outputs)
        if self._outputs is not None:
            names = list(choose_outputs(self._outputs, names))
        for piece in self._data.pieces(self._sizes):
            outputs = dict(zip(names, model.run(piece.feed, names), strict=True))
            arrays = {name: v for name, v in outputs.items() if isinstance(v, np.ndarray)}
            if not arrays:
                raise ValueError(f"None of the model's outputs {names} is an array.")
            yield piece.feed, arrays
