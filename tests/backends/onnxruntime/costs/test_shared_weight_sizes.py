"""Sizes of models in which several ops read one weight, as steps of a recurrent layer do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
import pytest

import optuna_quant
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


STEPS, UNITS = 4, 64


def unrolled() -> onnx.ModelProto:
    """A recurrent layer of four steps with one weight, and a layer behind it."""
    m = Maker()
    h = m.input("x", ["N", UNITS])
    weight = m.weight(UNITS, UNITS, name="recurrent")
    for _ in range(STEPS):
        h = m.node("Tanh", [m.node("MatMul", [h, weight])])
    return m.model([m.node("MatMul", [h, m.weight(UNITS, 10)])])


def inputs() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(200, UNITS)).astype(np.float32)


@pytest.mark.parametrize("approach", ["static", "dynamic", "weight_only"])
def test_every_option_has_the_size_that_the_table_says(approach: str) -> None:
    backend = OnnxRuntimeBackend(unrolled(), calibration_data={"x": inputs()}, approach=approach)
    space = backend.tuning_space()
    assert [len(tunable.ops) for tunable in space.tunables] == [STEPS, 1]
    table = backend.counted_costs(space).table("size")
    for tunable in space.tunables:
        for option in tunable.options:
            config = tunable.set(space.default(), option)
            # Of GPTQ and AWQ, too, all ops have one form.
            assert table.cost(config) == pytest.approx(backend.quantize(config).nbytes, abs=300)


@pytest.mark.parametrize("approach", ["dynamic", "weight_only"])
def test_the_smallest_model_is_no_larger_than_the_plain_one(approach: str) -> None:
    model, x = unrolled(), inputs()
    backend = OnnxRuntimeBackend(model, calibration_data={"x": x}, approach=approach)
    plain = backend.quantize(backend.tuning_space().default()).nbytes
    result = optuna_quant.tune(
        backend=backend,
        data={"x": x},
        metric="cosine",
        tolerable_loss=0.5,
        objective="size",
        measure_gain=False,
        show_progress=False,
    )
    assert result.met
    assert result.model().nbytes <= plain
    gained = result.report()["bytes_gained"].sum()
    saved = backend.quantize(backend.tuning_space().fp32()).nbytes - result.model().nbytes
    assert gained == pytest.approx(saved, abs=600)
