from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.recipes.equalization.equalize import equalized
from optuna_quant.backends.onnxruntime.recipes.scaling.groups import ScaleGroups
from optuna_quant.space.config import QuantConfig


def graph_of(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def unequal(rng: np.random.Generator, channels: int) -> NDArray[np.float32]:
    return np.exp(rng.normal(0, 1.5, channels)).astype(np.float32)


def depthwise_net(activation: str = "Relu") -> onnx.ModelProto:
    """Convolutions with a depthwise one between and a residual connection, channels rescaled.

    Input ``x`` of (N, 2, 8, 8).
    """
    m = Maker(seed=3)
    x = m.input("x", ["N", 2, 8, 8])

    def active(h: str) -> str:
        if activation == "Clip":
            return m.node("Clip", [h, m.const(np.float32(0)), m.const(np.float32(6))])
        return m.node(activation, [h])

    def conv(h: str, inputs: int, outputs: int, group: int = 1) -> str:
        kernel = (3, 3) if group > 1 else (1, 1)
        weight = m.rng.standard_normal((outputs, inputs // group, *kernel)) * 0.4
        weight *= unequal(m.rng, outputs).reshape(-1, 1, 1, 1)
        bias = m.rng.standard_normal(outputs)
        names = [h, m.const(weight.astype(np.float32)), m.const(bias.astype(np.float32))]
        pads = [kernel[0] // 2] * 4
        return m.node("Conv", names, group=group, pads=pads)

    stem = active(conv(x, 2, 4))
    h = active(conv(stem, 4, 6))
    h = active(conv(h, 6, 6, group=6))
    h = m.node("Add", [stem, conv(h, 6, 4)])
    h = m.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2])
    h = m.node("ReduceMean", [h], axes=[2, 3], keepdims=0)
    return m.model([m.node("Gemm", [h, m.weight(4, 3), m.weight(3)])])


def flat_net() -> onnx.ModelProto:
    """A Conv before a Flatten and a Gemm, then MatMul, Add, LeakyRelu and MatMul."""
    m = Maker(seed=5)
    x = m.input("x", ["N", 2, 4, 4])
    h = m.node("LeakyRelu", [m.conv(x, 2, 3, kernel=(1, 1))])
    h = m.node("Gemm", [m.node("Flatten", [h]), m.weight(5, 48), m.weight(5)], transB=1)
    h = m.node("Add", [m.node("MatMul", [h, m.weight(5, 7)]), m.weight(7)])
    return m.model([m.node("MatMul", [m.node("LeakyRelu", [h]), m.weight(7, 2)])])


@pytest.mark.parametrize(
    ("make", "shape"), [(depthwise_net, (16, 2, 8, 8)), (flat_net, (16, 2, 4, 4))]
)
def test_the_function_and_all_names_stay(
    make: Callable[[], onnx.ModelProto], shape: tuple[int, ...]
) -> None:
    feed = {"x": samples(*shape)}
    graph = graph_of(make())
    before = run(graph.to_model(), feed)
    changed = equalized(graph)
    after = run(changed.to_model(), feed)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(a).max()))
    assert [node.name for node in changed.nodes] == [node.name for node in graph.nodes]
    assert [node.output[0] for node in changed.nodes] == [node.output[0] for node in graph.nodes]


def test_the_groups_of_a_net_with_a_residual_connection() -> None:
    groups = ScaleGroups(graph_of(depthwise_net())).all()
    members = [
        ([source.index for source in group.sources], [reader.index for reader in group.readers])
        for group in groups
    ]
    # Nodes: Conv0 Relu0 Conv1 Relu1 Conv2 Relu2 Conv3 Add MaxPool ReduceMean Gemm.
    assert members == [([0, 6], [2, 10]), ([2], [4]), ([4], [6])]


def test_each_channel_is_equally_large_on_both_sides() -> None:
    graph = equalized(graph_of(depthwise_net()))
    for group in ScaleGroups(graph).all()[1:]:
        (source,), (reader,) = group.sources, group.readers
        before = source.layout.output_maxima(graph.array(graph.nodes[source.index].input[1]))
        behind = reader.layout.input_maxima(graph.array(graph.nodes[reader.index].input[1]))
        np.testing.assert_allclose(before / before.max(), behind / behind.max(), rtol=0.01)


def test_a_pair_of_layers_gets_the_factors_of_the_paper() -> None:
    m = Maker()
    h = m.node("Relu", [m.conv(m.input("x", ["N", 2, 4, 4]), 2, 3)])
    graph = graph_of(m.model([m.conv(h, 3, 2)]))
    first, second = (graph.array(graph.nodes[i].input[1]) for i in (0, 2))
    r1, r2 = np.abs(first).max(axis=(1, 2, 3)), np.abs(second).max(axis=(0, 2, 3))
    factors = np.sqrt(r1 / r2)  # (1 / r2) * sqrt(r1 * r2), equation 11
    factors *= np.sqrt(r2.max() / r1.max())
    changed = equalized(graph)
    new = [changed.array(changed.nodes[i].input[j]) for i, j in [(0, 1), (0, 2), (2, 1)]]
    np.testing.assert_allclose(new[0], first / factors.reshape(-1, 1, 1, 1), rtol=1e-5)
    bias = graph.array(graph.nodes[0].input[2])
    np.testing.assert_allclose(new[1], bias / factors, rtol=1e-5)
    np.testing.assert_allclose(new[2], second * factors.reshape(1, -1, 1, 1), rtol=1e-5)


def clipped(high: float | None) -> onnx.ModelProto:
    m = Maker()
    bounds = [m.const(np.float32(0)), *([] if high is None else [m.const(np.float32(high))])]
    h = m.node("Clip", [m.conv(m.input("x", ["N", 2, 4, 4]), 2, 3), *bounds])
    return m.model([m.conv(h, 3, 2)])


def read_twice() -> onnx.ModelProto:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 4, 4]), 2, 3)
    return m.model([m.conv(h, 3, 2), m.node("Sigmoid", [h])])


def an_output() -> onnx.ModelProto:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 4, 4]), 2, 3)
    return m.model([m.conv(h, 3, 2), h])


@pytest.mark.parametrize("make", [lambda: clipped(6.0), read_twice, an_output])
def test_what_cannot_be_scaled_is_left_alone(make: Callable[[], onnx.ModelProto]) -> None:
    graph = graph_of(make())
    assert ScaleGroups(graph).all() == []
    assert equalized(graph).to_model() == graph.to_model()


def test_a_clip_at_zero_alone_passes_factors_on() -> None:
    assert len(ScaleGroups(graph_of(clipped(None))).all()) == 1


def test_layers_that_share_a_weight_get_their_own() -> None:
    m = Maker()
    shared = m.weight(3, 3, 1, 1)
    h = m.input("x", ["N", 3, 4, 4])
    for _ in range(3):
        h = m.node("Relu", [m.node("Conv", [h, shared])])
    graph = graph_of(m.model([h]))
    changed = equalized(graph)
    feed = {"x": samples(4, 3, 4, 4)}
    (before,), (after,) = run(graph.to_model(), feed), run(changed.to_model(), feed)
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)
    assert len({node.input[1] for node in changed.nodes if node.op_type == "Conv"}) == 3


def test_a_channel_without_a_use_does_no_harm() -> None:
    m = Maker()
    weight = np.ones((3, 2, 1, 1), np.float32)
    weight[1] = 0.0
    h = m.node("Conv", [m.input("x", ["N", 2, 4, 4]), m.const(weight), m.weight(3)])
    graph = graph_of(m.model([m.conv(m.node("Relu", [h]), 3, 2)]))
    feed = {"x": samples(4, 2, 4, 4)}
    (before,), (after,) = run(graph.to_model(), feed), run(equalized(graph).to_model(), feed)
    assert np.isfinite(after).all()
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)


DATA = samples(64, 2, 8, 8)


def make_backend(**options: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(depthwise_net(), calibration_data=DATA, **options)


def test_it_makes_an_8_bit_model_of_unequal_channels_accurate() -> None:
    backend = make_backend(recipes="all")
    space = backend.tuning_space()
    assert space.recipes["equalization"] == ("off", "on")
    feed = {"x": DATA}
    exact = backend.quantize(space.fp32()).run(feed)[0]
    errors = {}
    for value in ("off", "on"):
        config = space.default().with_recipe("equalization", value)
        actual = backend.quantize(config).run(feed)[0]
        errors[value] = float(np.square(actual - exact).mean() / exact.var())
    assert errors["on"] < 0.4 * errors["off"]


def test_a_variant_is_another_model_and_the_floats_are_the_users() -> None:
    backend = make_backend(recipes=["equalization"])
    space = backend.tuning_space()
    off, on = (space.default().with_recipe("equalization", value) for value in ("off", "on"))
    assert backend.fingerprint(off) != backend.fingerprint(on)
    assert backend.fingerprint(on) == make_backend().fingerprint(on)
    floats = backend.quantize(space.fp32().with_recipe("equalization", "on"))
    assert floats.fingerprint == backend.quantize(QuantConfig({})).fingerprint
    integer = {op: found.integer for op, found in backend.executed(on).items()}
    assert integer == {op: found.integer for op, found in backend.executed(off).items()}
    assert integer["Conv1"]


def test_a_fixed_recipe_has_no_parameter() -> None:
    backend = make_backend(recipes={"equalization": True})
    space = backend.tuning_space()
    assert dict(space.recipes) == {"equalization": ("on",)}
    assert not [name for name in space.distributions() if "recipe" in name]
    other = make_backend(recipes="all")
    config = other.tuning_space().default().with_recipe("equalization", "on")
    assert backend.fingerprint(space.default()) == other.fingerprint(config)


def test_the_calibration_of_a_fixed_recipe_is_that_of_its_graph() -> None:
    keys = {
        make_backend(recipes={"equalization": each}).calibration_key() for each in (True, False)
    }
    assert len(keys) == 2
    assert make_backend().calibration_key() in keys


def test_without_asking_there_is_no_recipe() -> None:
    assert not make_backend().capability().recipes


def test_a_model_without_such_layers_has_no_such_recipe() -> None:
    m = Maker()
    h = m.node("Sigmoid", [m.conv(m.input("x", ["N", 2, 8, 8]), 2, 3)])
    model = m.model([m.conv(h, 3, 2)])
    backend = OnnxRuntimeBackend(model, calibration_data=DATA, recipes=["equalization"])
    assert not backend.capability().recipes


def test_an_unknown_recipe_is_refused_before_the_model_is_read() -> None:
    with pytest.raises(ValueError, match="no recipe 'equalise'. Did you mean 'equalization'"):
        OnnxRuntimeBackend("no_such_file.onnx", calibration_data=DATA, recipes=["equalise"])
