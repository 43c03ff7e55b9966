from __future__ import annotations

import numpy as np
import onnx
from onnx_models import convnet
import pytest

from optuna_quant._common.bounded_cache import BoundedCache
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.weights import WeightStore
from optuna_quant.space.config import TensorConfig


def test_cache_forgets_what_was_used_longest_ago() -> None:
    cache = BoundedCache(max_bytes=30)
    for name in "abc":
        cache[name] = np.zeros(10, np.uint8)
    assert "a" in cache
    cache["a"]
    cache["d"] = (np.zeros(5, np.uint8), np.zeros(5, np.uint8))
    assert list(cache) == ["c", "a", "d"]
    assert cache.nbytes == 30
    cache["e"] = np.zeros(100, np.uint8)
    assert list(cache) == ["e"]
    cache["e"] = np.zeros(1, np.uint8)
    assert cache.nbytes == 1
    del cache["e"]
    assert cache.nbytes == 0
    with pytest.raises(KeyError):
        cache["e"]


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("kind", ["int8/sym", "int8/asym", "uint8/sym", "uint8/asym"])
def test_weights_are_near_the_originals(kind: str, axis: int | None, reduce_range: bool) -> None:
    graph = normalize(load_model(convnet()))
    dtype, scheme = kind.split("/")
    granularity = "per_tensor" if axis is None else "per_channel"
    store = WeightStore(graph, reduce_range=reduce_range)
    config = TensorConfig(dtype, scheme, granularity, "minmax")
    weight = store.get("c0", config, axis)
    assert store.get("c0", config, axis) is weight
    original = onnx.numpy_helper.to_array(convnet().graph.initializer[0])
    shape = (-1, 1, 1, 1) if axis == 0 else ()
    scale, zero_point = (a.reshape(shape) for a in (weight.scale, weight.zero_point))
    assert weight.values.dtype == weight.zero_point.dtype == np.dtype(dtype)
    restored = (weight.values.astype(np.float64) - zero_point) * scale
    # The outermost value may be off by a whole step, where the zero point was rounded.
    assert np.all(np.abs(restored - original) <= scale * 1.01)
    assert np.mean(np.abs(restored - original) <= scale * 0.501) > 0.95


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("kind", ["int8/sym", "uint8/asym"])
def test_a_grid_quantizes_floats_and_gives_them_back(kind: str, axis: int | None) -> None:
    graph = normalize(load_model(convnet()))
    dtype, scheme = kind.split("/")
    granularity = "per_tensor" if axis is None else "per_channel"
    store = WeightStore(graph)
    weight = store.get("c0", TensorConfig(dtype, scheme, granularity, "minmax"), axis)
    np.testing.assert_array_equal(weight.quantize(graph.array("c0")), weight.values)
    floats = weight.to_floats()
    assert np.abs(floats - graph.array("c0")).max() <= 1.01 * weight.scale.max()
    np.testing.assert_array_equal(weight.quantize(floats.astype(np.float32)), weight.values)
    # What is made of a weight is made once.
    made = [store.cached("other", lambda: store.get("c2", weight_config(), None)) for _ in "ab"]
    assert made[0] is made[1]


def weight_config() -> TensorConfig:
    return TensorConfig("int8", "sym", "per_tensor", "minmax")
