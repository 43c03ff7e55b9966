"""Measuring which of several models is the fastest."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from typing import Any

from optuna.logging import get_logger

from optuna_quant import record
from optuna_quant.constant_inputs import ConstantInputs
from optuna_quant.costs.timing import measure_interleaved
from optuna_quant.rebuild import rebuild


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.selection import Candidate
    from optuna_quant.space import TuningSpace


_logger = get_logger(__name__)

_MOST_FINALISTS = 5


def find_fastest(
    met: Sequence[Candidate],
    *,
    backend: Backend,
    space: TuningSpace,
    evaluate: Callable[[Any], object],
    data: Any = None,
    inputs: Mapping[str, Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
) -> tuple[Candidate, float]:
    """Measure the models with the fewest ops in fallback, and take the fastest.

    Args:
        met:
            The candidates that meet the criterion, those with the fewest ops in fallback first.
        backend:
            Builds the models.
        space:
            The tuning space.
        evaluate:
            Evaluates a model.
        data:
            The calibration data.
        inputs:
            The inputs that are the same for all samples.
        transform:
            What makes inputs of samples.

    Returns:
        The fastest candidate, and the seconds that a run on the first batch of the calibration
        data takes; without calibration data, the seconds of an evaluation.
    """
    different: dict[object, Candidate] = {}
    for candidate in met:
        fingerprint = candidate.trial.user_attrs.get(record.FINGERPRINT, candidate.trial.number)
        different.setdefault(fingerprint, candidate)
    finalists = list(different.values())[:_MOST_FINALISTS]
    models = [rebuild(c.trial, backend=backend, space=space) for c in finalists]
    feed = (
        None if data is None else first_batch(models[0], data, inputs=inputs, transform=transform)
    )
    if feed is None:
        # A whole evaluation takes long, and few runs measure it well.
        times = measure_interleaved([partial(evaluate, m) for m in models], rounds=5, warmup=1)
    else:
        times = measure_interleaved([partial(m.run, None, feed) for m in models])
    for candidate, seconds in zip(finalists, times, strict=True):
        _logger.info(f"Trial {candidate.trial.number}: {1e3 * seconds:.3g} ms.")
    best = times.index(min(times))
    return finalists[best], times[best]


def first_batch(
    model: Any,
    data: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
) -> dict[str, Any] | None:
    """The first batch of the calibration data for an ONNX model; :obj:`None` for others."""
    if not hasattr(model, "proto"):
        return None
    from optuna_quant.backends.onnxruntime.calibration_data import CalibrationData
    from optuna_quant.backends.onnxruntime.calibration_data import input_specs
    from optuna_quant.backends.onnxruntime.calibration_data import optional_input_specs

    specs = input_specs(model.proto)
    constants = ConstantInputs(inputs).bind(specs, optional_input_specs(model.proto))
    return next(iter(CalibrationData(data, specs, constants=constants, transform=transform)))
