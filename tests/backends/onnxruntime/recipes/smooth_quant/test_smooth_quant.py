from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import exact_options
from onnx_models import run
from onnx_models import samples
import pytest

from optuna_quant.backends.calibration.samples import SampleReader
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.backend import load_model
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.input_specs import input_specs
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.backends.onnxruntime.recipes.recipe import RunsGraphs
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.factors import smooth_factors
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import AutoAlpha
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.settings import SmoothQuantSettings
from optuna_quant.backends.onnxruntime.recipes.smooth_quant.smooth import smoothed
from optuna_quant.space.config import QuantConfig


WIDTH = 8


def outliers() -> NDArray[np.float32]:
    scale = np.ones(WIDTH, np.float32)
    scale[[1, 5]] = 40.0
    return scale


def transformer_like(layer_norm: bool = True) -> onnx.ModelProto:
    """A normalization with large channels, read by two MatMuls, and a Sigmoid before a third.

    Input ``x`` of (N, 4, 8).
    """
    m = Maker(seed=2)
    x = m.input("x", ["N", 4, WIDTH])
    scale, shift = m.const(outliers(), "scale"), m.weight(WIDTH, name="shift")
    if layer_norm:
        h = m.node("LayerNormalization", [x, scale, shift])
    else:
        h = m.node("Add", [m.node("Mul", [x, scale]), shift])
    first = m.node("MatMul", [h, m.weight(WIDTH, 6)])
    second = m.node("MatMul", [h, m.weight(WIDTH, 6)])
    h = m.node("Sigmoid", [m.node("Add", [first, second])])
    return m.model([m.node("MatMul", [h, m.weight(6, 3)])])


def convolutions() -> onnx.ModelProto:
    """Conv, Relu, depthwise Conv, Sigmoid, Conv: input ``x`` of (N, 3, 6, 6)."""
    m = Maker(seed=4)
    h = m.node("Relu", [m.conv(m.input("x", ["N", 3, 6, 6]), 3, 4)])
    h = m.node("Sigmoid", [m.conv(h, 4, 4, group=4)])
    return m.model([m.conv(h, 4, 2, kernel=(1, 1))])


def graph_of(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def runs_on(model: onnx.ModelProto, x: NDArray[np.float32]) -> RunsGraphs:
    sessions = SessionMaker(["CPUExecutionProvider"], None)
    reader = SampleReader(lambda: input_specs(model))
    return RunsGraphs(calibration=reader.read({"x": x}), sessions=sessions)


def smooth(model: onnx.ModelProto, x: NDArray[np.float32], **settings: Any) -> tuple[Graph, Graph]:
    graph = graph_of(model)
    return graph, smoothed(graph, SmoothQuantSettings(**settings), runs_on(model, x))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha": 0.8, "scales_per_op": False},
        {"folding": False},
        {"alpha": "auto"},
        {"alpha": "auto", "scales_per_op": False},
        {"weight_clip": False},
    ],
)
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (transformer_like, (32, 4, WIDTH)),
        (lambda: transformer_like(layer_norm=False), (32, 4, WIDTH)),
        (convolutions, (32, 3, 6, 6)),
    ],
)
def test_the_function_and_the_names_of_nodes_stay(
    make: Callable[[], onnx.ModelProto], shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    model, x = make(), samples(*shape)
    graph, changed = smooth(model, x, **settings)
    (before,), (after,) = (run(g.to_model(), {"x": x}) for g in (graph, changed))
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4 * float(np.abs(before).max()))
    old = {node.name: node.output[0] for node in graph.nodes}
    new = {node.name: node.output[0] for node in changed.nodes}
    assert old.items() <= new.items()


def test_factors_are_those_of_the_paper() -> None:
    x, w = np.array([4.0, 0.5, 1.0, 0.0, 2.0]), np.array([1.0, 2.0, 1e-9, 3.0, 0.0])
    found = smooth_factors(x, w, 0.5)
    expected = [2.0, 0.5, 1 / np.sqrt(1e-5), 0.0, np.sqrt(2 / 1e-5)]
    expected[3] = (expected[0] + expected[2]) / 2  # The median of the others.
    np.testing.assert_allclose(found, expected)
    bare = smooth_factors(x, w, 0.5, weight_clip=False)
    np.testing.assert_allclose(bare, [2.0, 0.5, 1 / np.sqrt(1e-9), 2.0, 2.0])
    np.testing.assert_allclose(smooth_factors(x, w, 1.0)[:2], x[:2])
    np.testing.assert_allclose(smooth_factors(x, w, 0.0)[:2], 1 / w[:2])


def test_what_is_folded_is_what_numpy_computes() -> None:
    model, x = transformer_like(), samples(64, 4, WIDTH)
    graph, changed = smooth(model, x, scales_per_op=False, alpha=0.6)
    norm = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    scale, shift = graph.array("scale"), graph.array("shift")
    activations = norm * scale + shift
    weights = [graph.array(graph.nodes[i].input[1]) for i in (1, 2)]
    largest = np.abs(np.concatenate(weights, axis=1)).max(axis=1)
    factors = np.abs(activations).max(axis=(0, 1)) ** 0.6 / largest**0.4
    nodes = changed.nodes
    np.testing.assert_allclose(changed.array(nodes[0].input[1]), scale / factors, rtol=1e-4)
    np.testing.assert_allclose(changed.array(nodes[0].input[2]), shift / factors, rtol=1e-4)
    for i, weight in zip((1, 2), weights, strict=True):
        new = changed.array(nodes[i].input[1])
        np.testing.assert_allclose(new, weight * factors[:, None], rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "products"),
    [
        ({"scales_per_op": False}, 1),  # Behind the Sigmoid nothing takes factors in.
        ({}, 3),  # Two ops read the same tensor, each with factors of its own.
        ({"folding": False, "scales_per_op": False}, 2),
        ({"op_types": ("Conv",)}, 0),
    ],
)
def test_where_a_mul_is_inserted(settings: dict[str, Any], products: int) -> None:
    _, changed = smooth(transformer_like(), samples(16, 4, WIDTH), **settings)
    assert sum(node.op_type == "Mul" for node in changed.nodes) == products


@pytest.mark.parametrize(("folding", "products"), [(True, 0), (False, 3)])
def test_before_a_conv_there_is_a_mul_only_without_folding(folding: bool, products: int) -> None:
    _, changed = smooth(convolutions(), samples(16, 3, 6, 6), folding=folding)
    assert sum(node.op_type == "Mul" for node in changed.nodes) == products


def test_a_single_channel_is_left_alone() -> None:
    m = Maker()
    model = m.model([m.conv(m.input("x", ["N", 1, 6, 6]), 1, 3)])
    graph, changed = smooth(model, samples(8, 1, 6, 6))
    assert changed.to_model() == graph.to_model()


def test_auto_is_no_worse_than_any_alpha_or_none() -> None:
    model, x = transformer_like(layer_norm=False), samples(128, 4, WIDTH)
    backend = OnnxRuntimeBackend(
        model, calibration_data={"x": x}, recipes="all", session_options=exact_options()
    )
    space = backend.tuning_space()
    exact = backend.quantize(space.fp32()).run({"x": x})[0]

    def error(value: str) -> float:
        config = space.default().with_recipe("smooth_quant", value)
        return float(np.square(backend.quantize(config).run({"x": x})[0] - exact).mean())

    errors = {value: error(value) for value in space.recipes["smooth_quant"]}
    assert errors["alpha=0.5"] < 0.3 * errors["off"]
    others = [error(f"alpha={alpha}") for alpha in ("0", "0.3", "0.5", "0.75", "1")]
    assert errors["alpha=auto"] < 1.3 * min(*others, errors["off"])


def test_infinite_activations_are_left_alone() -> None:
    m = Maker()
    h = m.node("Add", [m.input("x", ["N", 3]), m.const(np.array([0, -np.inf, 0], np.float32))])
    model = m.model([m.node("MatMul", [h, m.weight(3, 2)])])
    graph, changed = smooth(model, samples(8, 3))
    assert changed.to_model() == graph.to_model()


# Values of the recipe.


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha": 0.25},
        {"alpha": 1 / 3},
        {"alpha": "auto"},
        {"folding": False, "scales_per_op": False, "weight_clip": False},
        {"op_types": ("MatMul", "Gemm")},
        {"alpha": "auto", "auto": AutoAlpha(alpha_min=0.2, alpha_max=0.8, alpha_step=0.2)},
        {"alpha": "auto", "auto": AutoAlpha(shared_criterion="max")},
    ],
)
def test_a_label_says_all(settings: dict[str, Any]) -> None:
    first = SmoothQuantSettings(**settings)
    again = SmoothQuantSettings.from_label(first.label)
    assert again.label == first.label
    assert again == SmoothQuantSettings.from_label(again.label)
    assert "e" not in first.label.partition("alpha=")[2].partition(",")[0].replace("true", "")


def test_alphas_of_auto() -> None:
    assert AutoAlpha().alphas == tuple(round(0.1 * i, 1) for i in range(11))
    assert AutoAlpha(alpha_min=0.3, alpha_max=0.3).alphas == (0.3,)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("smooth_quant", ("off", "alpha=0.5", "alpha=0.75", "alpha=auto")),
        ({"smooth_quant": True}, ("alpha=0.5",)),
        ({"smooth_quant": False}, ("off",)),
        ({"smooth_quant": [False, True]}, ("off", "alpha=0.5")),
        ({"smooth_quant": "alpha=0.7"}, ("alpha=0.7",)),
        (
            {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.4, 0.5, "auto"]}},
            ("alpha=0.4", "alpha=0.5", "alpha=auto"),
        ),
        (
            {"smooth_quant": True, "smooth_quant_args": {"alpha": 0.4, "folding": False}},
            ("alpha=0.4, folding=false",),
        ),
        (
            {
                "smooth_quant": True,
                "smooth_quant_args": {"alpha": "auto", "auto_alpha_args": {"alpha_step": 0.25}},
            },
            ("alpha=auto, alpha_step=0.25",),
        ),
        (
            {"smooth_quant": True, "smooth_quant_args": {"op_types": ["Gemm", "MatMul"]}},
            ("alpha=0.5, op_types=MatMul+Gemm",),
        ),
        (
            {"smooth_quant": [False, True], "smooth_quant_args": {"folding": False}},
            ("off", "alpha=0.5, folding=false"),
        ),
        (
            {"smooth_quant": True, "smooth_quant_args": {"alpha": [0.1234567891, 0.1234567892]}},
            ("alpha=0.1234567891", "alpha=0.1234567892"),
        ),
        (
            {"smooth_quant": True, "smooth_quant_args": {"alpha": [1e-7, 1]}},
            ("alpha=1e-07", "alpha=1"),
        ),
    ],
)
def test_what_the_user_asks_for(given: Any, values: tuple[str, ...]) -> None:
    assert requested_recipes(given).values["smooth_quant"] == values


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"smooth_quant": "alpha=2"}, "alpha must be a number from 0 to 1 or 'auto'"),
        ({"smooth_quant": "beta=2"}, "there is no setting 'beta'"),
        ({"smooth_quant": "on"}, "its values are 'off', 'alpha=0.5', 'alpha=auto'"),
        ({"smooth_quant": "alpha=0.50"}, "it is written as 'alpha=0.5'"),
        ({"smooth_quant": True, "smooth_quant_args": {"alpha": 2}}, "smooth_quant: alpha must be"),
        ({"smooth_quant": True, "smooth_quant_args": {"alpha": []}}, "list of alphas is empty"),
        ({"smooth_quant": True, "smooth_quant_args": {"alpa": 0.5}}, "Did you mean 'alpha'?"),
        ({"smooth_quant": True, "smooth_quant_args": {"folding": 1}}, "folding must be true or"),
        ({"smooth_quant": True, "smooth_quant_args": {"op_types": ["LSTM"]}}, "has ['LSTM']"),
        (
            {"smooth_quant": True, "smooth_quant_args": {"auto_alpha_args": {"alpha_stop": 1}}},
            "auto_alpha_args has no setting 'alpha_stop'",
        ),
        (
            {
                "smooth_quant": True,
                "smooth_quant_args": {"alpha": "auto", "auto_alpha_args": {"alpha_step": 0}},
            },
            "alpha_step must be above 0",
        ),
        # Settings that no value would have.
        (
            {"smooth_quant": "alpha=0.6", "smooth_quant_args": {"folding": False}},
            "'alpha=0.6' has its settings in the label",
        ),
        (
            {"smooth_quant": [True, "alpha=0.6"], "smooth_quant_args": {"folding": False}},
            "'alpha=0.6' has its settings in the label",
        ),
        (
            {"smooth_quant": False, "smooth_quant_args": {"folding": False}},
            "smooth_quant_args says nothing where the recipe is off",
        ),
        (
            {"smooth_quant": ["off"], "smooth_quant_args": {"folding": False}},
            "smooth_quant_args says nothing where the recipe is off",
        ),
        (
            {"smooth_quant": True, "smooth_quant_args": {"auto_alpha_args": {"alpha_min": 0.3}}},
            "auto_alpha_args is for alpha='auto', but alpha is the default",
        ),
        (
            {
                "smooth_quant": True,
                "smooth_quant_args": {"alpha": [0.3, 0.5], "auto_alpha_args": {"alpha_min": 0.3}},
            },
            "auto_alpha_args is for alpha='auto', but alpha is 0.3, 0.5",
        ),
    ],
)
def test_errors_name_what_is_wrong(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match="smooth_quant") as caught:
        requested_recipes(given)
    assert words in str(caught.value)


# In the backend.


def make_backend(**options: Any) -> OnnxRuntimeBackend:
    x = samples(64, 4, WIDTH)
    return OnnxRuntimeBackend(transformer_like(), calibration_data={"x": x}, **options)


def test_each_alpha_is_another_model_made_in_two_passes(tmp_path: Any) -> None:
    backend = make_backend(recipes="all", cache_dir=tmp_path)
    space = backend.tuning_space()
    values = space.recipes["smooth_quant"]
    configs = [space.default().with_recipe("smooth_quant", value) for value in values]
    prints = [backend.fingerprint(config) for config in configs]
    assert len(set(prints)) == len(values)
    assert len(list(tmp_path.glob("calibration-*.npz"))) == len(values)
    again = make_backend(recipes="all", cache_dir=tmp_path)
    assert [again.fingerprint(config) for config in reversed(configs)] == prints[::-1]


def test_a_fixed_alpha_depends_on_the_calibration_size() -> None:
    backend = make_backend(recipes={"smooth_quant": True}, calibration_sizes=[4, 64])
    space = backend.tuning_space()
    config = QuantConfig({}, {"smooth_quant": "alpha=0.5"}, 4)
    assert space.default().recipes == config.recipes
    small, large = (space.default().with_calibration_size(size) for size in (4, 64))
    assert backend.fingerprint(small) != backend.fingerprint(large)


def test_without_data_it_is_not_offered() -> None:
    backend = OnnxRuntimeBackend(transformer_like(), approach="dynamic", recipes="all")
    assert "smooth_quant" not in backend.capability().recipes


def test_sensitivities_costs_and_what_runs_are_known() -> None:
    backend = make_backend(recipes={"smooth_quant": True})
    space = backend.tuning_space()
    plain = make_backend().tuning_space()
    ops = list(space.default().ops)
    scores = backend.mse_sensitivity()(space.default(), ops)
    before = make_backend().mse_sensitivity()(plain.default(), ops)
    assert sum(scores.values()) < 0.7 * sum(before.values())
    ran = backend.executed(space.default())
    assert all(found.integer for found in ran.values())
    size = backend.counted_costs(space).table("size").cost(space.default())
    assert size == pytest.approx(backend.quantize(space.default()).nbytes, rel=0.1)
    assert backend.float_weights(space.default()).nbytes > 0


def test_channel_without_values_does_not_stick_out_before() -> None:
    factors = smooth_factors(np.array([0.0, 4.0, 100.0, 1.0]), np.ones(4), 1.0)
    assert factors.tolist() == [4.0, 4.0, 100.0, 1.0]
    assert smooth_factors(np.zeros(3), np.ones(3), 0.5).tolist() == [1.0, 1.0, 1.0]


def test_data_of_recipes_are_in_the_signature() -> None:
    model, x = transformer_like(), samples(24, 4, WIDTH)
    options = {"approach": "dynamic", "recipes": {"smooth_quant": True}}
    one, other = (
        OnnxRuntimeBackend(model, calibration_data={"x": data}, **options) for data in (x, 3 * x)
    )
    config = one.tuning_space().default()
    assert one.fingerprint(config) != other.fingerprint(config)
    assert one.signature()["calibration data"] != other.signature()["calibration data"]
    plain = OnnxRuntimeBackend(model, calibration_data={"x": x}, approach="dynamic")
    assert plain.signature()["calibration data"] == "none"
