"""The batch whose time counts: in the costs, in the gain, and when a search goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_models
from onnx_models import samples
import optuna
import pytest

from optuna_quant import tune
from optuna_quant.backends.base import ChoosesLatencyFeed
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.costs.study_costs import recorded_costs
from optuna_quant.tuning.result import TuningResult


def go(storage: Any, **options: Any) -> TuningResult:
    """A search by latency in which any model meets the criterion."""
    return tune(
        onnx_models.convnet(),
        calibration_data=samples(8, 2, 8, 8),
        evaluate=lambda session: 1.0,
        op_types="all",
        objective="latency",
        storage=storage,
        study_name="s",
        max_trials=3,
        show_progress=False,
        **options,
    )


def backend_of(**options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        onnx_models.convnet(), calibration_data=samples(8, 2, 8, 8), **options
    )


@pytest.mark.parametrize("size", [1, 5, 20])
def test_costs_are_those_of_the_batch(size: int) -> None:
    backend = backend_of(latency_batch_size=size)
    assert isinstance(backend, ChoosesLatencyFeed)
    found = backend.latency_feed()
    assert found is not None
    count, feed = found
    data = samples(8, 2, 8, 8)
    np.testing.assert_array_equal(feed["x"], data[np.arange(size) % 8])
    assert count == size
    counted = backend.counted_costs(backend.tuning_space())
    assert counted.conditions["batch"] == backend.cost_conditions()["batch"] == str(size)
    # Operations are those of one sample all the same.
    space = backend.tuning_space()
    of_one = backend_of().counted_costs(space).table("multiply_adds").cost(space.fp32())
    assert counted.table("multiply_adds").cost(space.fp32()) == pytest.approx(of_one)


def test_a_search_counts_and_measures_the_batch() -> None:
    storage = optuna.storages.InMemoryStorage()
    result = go(storage, latency_batch_size=6)
    costs = recorded_costs(result.study)
    assert costs is not None
    assert costs.conditions["batch"] == "6"
    if result.gain is not None:
        assert result.gain.batch == 6
    with pytest.raises(ValueError, match=r"by the times of batches of 6 samples, .* of 1: give"):
        go(storage)
    with pytest.raises(ValueError, match=r"by the times of batches of 6 samples, .* of 2: give"):
        go(storage, latency_batch_size=2)
    again = go(storage, latency_batch_size=6)
    assert len(again.study.trials) == len(result.study.trials)


@pytest.mark.parametrize(
    ("size", "error", "match"),
    [
        (0, ValueError, "latency_batch_size must be at least 1, but got 0"),
        (2.0, TypeError, "latency_batch_size must be an integer, but got 2.0"),
        (True, TypeError, "latency_batch_size must be an integer, but got True"),
    ],
)
def test_no_batch_is_refused(size: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        backend_of(latency_batch_size=size)
    with pytest.raises(error, match=match):
        go(None, latency_batch_size=size)


def test_a_batch_belongs_to_the_backend_that_is_given() -> None:
    with pytest.raises(ValueError, match="latency_batch_size: this belongs to the backend"):
        tune(backend=backend_of(), evaluate=lambda session: 1.0, latency_batch_size=2)
