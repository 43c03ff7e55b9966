"""The costs of a real model on this machine; no time is a promise, but what is in a table is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import logging
import math
from typing import Any

import numpy as np
import onnx
import onnx_models
from onnx_models import Maker
from onnx_models import samples
import onnxruntime
import pytest

from optuna_quant.backends.base import ModelLoadError
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.costs import runs
from optuna_quant.backends.onnxruntime.costs.classes import option_class
from optuna_quant.backends.onnxruntime.costs.classes import random_configs
from optuna_quant.backends.onnxruntime.costs.runs import find_refused
from optuna_quant.costs import Costs
from optuna_quant.costs import MeasuresCosts
from optuna_quant.space.config import QuantConfig


def shared_weight() -> onnx.ModelProto:
    """Two products with the same weight, and one with another."""
    m = Maker()
    x = m.input("x", ["N", 16])
    weight = m.weight(16, 16)
    h = m.node("Relu", [m.node("MatMul", [x, weight])])
    h = m.node("Relu", [m.node("MatMul", [h, weight])])
    return m.model([m.node("MatMul", [h, m.weight(16, 64)])])


def backend_of(model: onnx.ModelProto, *shape: int, **options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, calibration_data=samples(8, *shape), **options)


MODELS = {
    "convnet": (onnx_models.convnet, (2, 8, 8)),
    "residual": (onnx_models.residual, (3, 6, 6)),
    "attention": (onnx_models.attention, (5, 8)),
    "shared_weight": (shared_weight, (16,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_predicted_to_a_few_nodes(name: str) -> None:
    make, shape = MODELS[name]
    backend = backend_of(make(), *shape)
    # Ops that quantize one weight, or read one tensor, differently have more than one copy of it.
    same = {
        "attention": {"MatMul": {"activation": {"algorithm": ["minmax"]}}},
        "shared_weight": {"MatMul": {"weight": {"granularity": ["per_tensor"]}}},
    }
    space = backend.tuning_space(op_type_dict=same.get(name))
    table = backend.costs(space, seconds=0.1, checks=0).table("size")
    assert table.unit == "bytes"
    for config in [space.fp32(), space.default(), *random_configs(space, 20, seed=5)]:
        # A pair of nodes has some 200 bytes.
        assert abs(table.cost(config) - backend.quantize(config).nbytes) <= 400
    assert table.cost(space.fp32()) == pytest.approx(backend.quantize(space.fp32()).nbytes)


def test_the_size_of_a_large_model_is_its_weights() -> None:
    m = Maker()
    h = m.input("x", ["N", 64])
    for _ in range(4):
        h = m.node("Relu", [m.node("Gemm", [h, m.weight(64, 64), m.weight(64)])])
    backend = backend_of(m.model([h]), 64)
    space = backend.tuning_space()
    table = backend.costs(space, seconds=0.1, checks=0).table("size")
    for config in random_configs(space, 20, seed=5):
        size = backend.quantize(config).nbytes
        assert abs(table.cost(config) - size) <= 0.005 * size


@pytest.mark.parametrize("approach", ["static", "auto", "dynamic"])
def test_every_option_has_a_cost(approach: str) -> None:
    backend = backend_of(onnx_models.attention(), 5, 8, approach=approach)
    space = backend.tuning_space(op_types="all")
    costs = backend.costs(space, seconds=0.1, checks=3)
    assert isinstance(backend, MeasuresCosts)
    costs.check(space)
    assert set(costs.tables) == {"latency", "size", "multiply_adds", "bit_operations"}
    assert Costs.loads(costs.dumps()) == costs
    latency = costs.table("latency")
    assert all(b.quantize >= 0 and b.dequantize >= 0 for b in latency.boundaries)
    for config in (space.fp32(), space.default(), *random_configs(space, 3, seed=1)):
        assert 0 < latency.cost(config) < 1
    assert costs.validation is not None
    assert len(costs.validation.measured) == 3
    assert costs.conditions["batch"] == "1"


def test_fp32_has_a_cost_where_the_space_does_not_offer_it() -> None:
    backend = backend_of(onnx_models.convnet(), 2, 8, 8)
    static = {"activation": {"algorithm": ["minmax"]}}
    space = backend.tuning_space(op_type_dict={"Conv": static})
    costs = backend.costs(space, seconds=0.1, checks=0)
    assert math.isfinite(costs.table("latency").cost(space.fp32()))
    assert costs.validation is None


def test_models_are_chosen_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(onnx_models.convnet(), 2, 8, 8)
    space = backend.tuning_space()
    built: list[str] = []
    quantize = backend.quantize

    def noted(config: QuantConfig) -> Any:
        built.append(config.key)
        return quantize(config)

    monkeypatch.setattr(backend, "quantize", noted)

    def chosen(seed: int) -> list[str]:
        built.clear()
        backend.costs(space, seed=seed, seconds=0.1, checks=2)
        return list(built)

    assert chosen(3) == chosen(3)
    assert chosen(3) != chosen(4)


def test_threads_may_ask_at_the_same_time() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    backend = backend_of(onnx_models.convnet(), 2, 8, 8, session_options=options)
    space = backend.tuning_space()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: backend.costs(space, seconds=0.1, checks=3), range(3)))
    for costs in found:
        costs.check(space)
        assert costs.table("size") == found[0].table("size")
    # What is changed for a while is as before.
    assert not options.enable_profiling
    assert options.optimized_model_filepath == ""
    assert found[0].conditions["clock"] == "processor time"


def test_without_data_the_error_says_what_to_give() -> None:
    backend = OnnxRuntimeBackend(onnx_models.attention(), approach="dynamic")
    space = backend.tuning_space()
    with pytest.raises(ValueError, match=r"Measuring costs needs samples.*pass data="):
        backend.costs(space)
    backend.costs(space, data=samples(2, 5, 8), seconds=0.1, checks=0).check(space)


def test_large_models_are_measured_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_LOADED_BYTES", 1)  # Two at a time.
    backend = backend_of(onnx_models.convnet(), 2, 8, 8)
    space = backend.tuning_space()
    costs = backend.costs(space, seconds=0.1, checks=3)
    costs.check(space)
    assert costs.validation is not None
    assert len(costs.validation.measured) == 3
    size = costs.table("size")
    assert size.cost(space.fp32()) == backend.quantize(space.fp32()).nbytes


def test_ops_that_do_not_load_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = backend_of(onnx_models.convnet(), 2, 8, 8)
    space = backend.tuning_space()
    quantize = backend.quantize

    def refuses(config: QuantConfig) -> Any:
        if config.ops["Conv1"].is_quantized:
            raise ModelLoadError("no such kernel")
        return quantize(config)

    monkeypatch.setattr(backend, "quantize", refuses)
    logger = logging.getLogger("optuna_quant")
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.WARNING):
        costs = backend.costs(space, seconds=0.1, checks=3)
    assert "'Conv1' as static" in caplog.text
    assert "'Conv0'" not in caplog.text
    costs.check(space)
    latency = costs.table("latency")
    whole = latency.cost(space.fp32())
    for option in space.tunables[1].options:
        if option.is_quantized:
            extra = latency.option_cost("Conv1", option.label)
            assert extra > latency.option_cost("Conv1", "fp32") + 0.2 * whole


@pytest.mark.parametrize("bad", [{"a"}, {"d"}, {"a", "g"}, set("abcdefgh")])
def test_what_does_not_load_is_found_by_halves(bad: set[str]) -> None:
    backend = backend_of(onnx_models.convnet(), 2, 8, 8)
    option = backend.tuning_space().tunables[0].default
    config = QuantConfig(dict.fromkeys("abcdefgh", option))
    tried = []

    def loads(config: QuantConfig) -> bool:
        tried.append(config)
        return not bad & set(config.quantized_ops)

    assert find_refused(config, loads) == {(op, option_class(option)) for op in bad}
    assert len(tried) <= 26


def test_ops_that_do_not_load_together_are_all_named() -> None:
    backend = backend_of(onnx_models.convnet(), 2, 8, 8)
    option = backend.tuning_space().tunables[0].default
    config = QuantConfig(dict.fromkeys("abcd", option))
    found = find_refused(config, lambda config: not {"a", "d"} <= set(config.quantized_ops))
    assert {op for op, _ in found} == set("abcd")


def test_a_model_whose_batch_is_fixed_is_run_on_a_batch() -> None:
    m = Maker()
    x = m.input("x", [4, 16])
    model = m.model([m.node("MatMul", [x, m.weight(16, 4)])])
    backend = OnnxRuntimeBackend(model, calibration_data=samples(8, 16))
    space = backend.tuning_space()
    costs = backend.costs(space, seconds=0.1, checks=0)
    assert costs.conditions["batch"] == "4"
    assert costs.table("multiply_adds").cost(space.fp32()) == 16 * 4
    assert np.isfinite(costs.table("latency").fixed)
