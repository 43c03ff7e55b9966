"""Which op each node that runs belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_models
from onnx_models import Maker
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.costs.attribution import BEFORE
from optuna_quant.backends.onnxruntime.costs.attribution import OWN
from optuna_quant.backends.onnxruntime.costs.attribution import Share
from optuna_quant.backends.onnxruntime.costs.attribution import attribute
from optuna_quant.backends.onnxruntime.costs.classes import classes_of
from optuna_quant.backends.onnxruntime.costs.classes import design
from optuna_quant.backends.onnxruntime.costs.classes import option_class
from optuna_quant.backends.onnxruntime.costs.classes import random_configs
from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
from optuna_quant.backends.onnxruntime.costs.neighbours import find_neighbours
from optuna_quant.backends.onnxruntime.costs.profiling import Profile
from optuna_quant.backends.onnxruntime.costs.profiling import ProfiledModel
from optuna_quant.backends.onnxruntime.costs.profiling import read_profile
from optuna_quant.backends.onnxruntime.model.graph import Graph
from optuna_quant.backends.onnxruntime.model.model import load_model
from optuna_quant.backends.onnxruntime.model.normalize import normalize
from optuna_quant.backends.onnxruntime.model.session_maker import SessionMaker
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


def hard_swish() -> onnx.ModelProto:
    """Convolutions with hard-swish between them, which is fused in floats only."""
    m = Maker()
    x = m.input("x", ["N", 8, 6, 6])
    h = x
    for _ in range(3):
        h = m.conv(h, 8, 8, kernel=(1, 1))
        three = m.node("Add", [h, m.const(np.float32(3))])
        limits = [m.const(np.float32(0)), m.const(onnx_models.np.float32(6))]
        h = m.node("Mul", [h, m.node("Clip", [three, *limits])])
    return m.model([h])


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    "convnet": (onnx_models.convnet, (2, 8, 8)),
    "residual": (onnx_models.residual, (3, 6, 6)),
    "attention": (onnx_models.attention, (5, 8)),
    "hard_swish": (hard_swish, (8, 6, 6)),
}


def graph_of(model: onnx.ModelProto) -> Graph:
    return normalize(load_model(model))


def setup(name: str, **options: Any) -> tuple[OnnxRuntimeBackend, TuningSpace, Graph, Neighbours]:
    make, shape = MODELS[name]
    backend = OnnxRuntimeBackend(make(), calibration_data=samples(8, *shape))
    space = backend.tuning_space(**options)
    graph = graph_of(make())
    ops = [op for tunable in space.tunables for op in tunable.ops]
    return backend, space, graph, find_neighbours(graph, ops)


def profiled(
    backend: OnnxRuntimeBackend, config: QuantConfig, neighbours: Neighbours, graph: Graph, x: Any
) -> tuple[dict[str, list[Share]], Profile, dict[str, str]]:
    proto = backend.quantize(config).proto
    model = ProfiledModel(proto, SessionMaker(["CPUExecutionProvider"], None), None)
    assert model.graph is not None
    outputs = {n.name: n.output[0] for n in graph.nodes if n.name in neighbours.position}
    shares = attribute(proto.graph, model.graph, outputs, neighbours)
    kinds = {node.name: node.op_type for node in model.graph.node}
    for _ in range(4):
        model.run({"x": x})
    return shares, model.finish(skip=1), kinds


@pytest.mark.parametrize("op_types", ["default", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_every_node_that_runs_is_attributed(name: str, op_types: str) -> None:
    backend, space, graph, neighbours = setup(name, op_types=op_types)
    x = samples(1, *MODELS[name][1])
    for config in [space.fp32(), space.default(), *random_configs(space, 4, seed=0)]:
        shares, profile, _ = profiled(backend, config, neighbours, graph, x)
        assert profile.nodes
        assert set(profile.nodes) <= set(shares)
        for found in shares.values():
            assert sum(share.share for share in found) == pytest.approx(1.0)
            assert all(share.op in neighbours.position or not share.op for share in found)
        assert all(len(times) == 3 for times in profile.runs.values())
        whole = sum(profile.nodes.values())
        parts = [
            share.share * profile.nodes[node]
            for node, found in shares.items()
            if node in profile.nodes
            for share in found
        ]
        assert sum(parts) == pytest.approx(whole)


def test_kernels_belong_to_their_ops() -> None:
    backend, space, graph, neighbours = setup("convnet")
    for config in (space.fp32(), space.default(), space.default().with_fallback("Conv1")):
        shares, _, kinds = profiled(backend, config, neighbours, graph, samples(1, 2, 8, 8))
        kernels = {
            share.op: kinds[node]
            for node, found in shares.items()
            for share in found
            if share.part == OWN and ("Conv" in kinds[node] or "Gemm" in kinds[node])
        }
        assert set(kernels) == {"Conv0", "Conv1", "Gemm0"}
        for op, kernel in kernels.items():
            assert kernel.startswith("Q") == config.ops[op].is_quantized


def test_quantization_belongs_to_the_op_that_wants_it() -> None:
    backend, space, graph, neighbours = setup("residual")
    ops = list(neighbours.position)
    config = space.default().with_fallback(*ops[:2])
    shares, _, kinds = profiled(backend, config, neighbours, graph, samples(1, 3, 6, 6))
    quantizing = [
        share for node, kind in kinds.items() if kind == "QuantizeLinear" for share in shares[node]
    ]
    assert quantizing
    assert all(share.part == BEFORE for share in quantizing)
    assert all(config.ops[share.op].is_quantized for share in quantizing)


def test_a_lost_fusion_belongs_to_the_op_before_it() -> None:
    backend, space, graph, neighbours = setup("hard_swish")
    config = space.default()
    shares, _, kinds = profiled(backend, config, neighbours, graph, samples(1, 8, 6, 6))
    behind = [
        share
        for node, kind in kinds.items()
        if kind in ("Add", "Clip", "Mul", "HardSigmoid")
        for share in shares[node]
    ]
    assert behind
    assert {share.part for share in behind} == {OWN}
    assert {share.op for share in behind} == {"Conv0", "Conv1", "Conv2"}


def test_neighbours_meet_through_other_nodes() -> None:
    graph = graph_of(hard_swish())
    found = find_neighbours(graph, ["Conv0", "Conv1", "Conv2"])
    assert found.before == {"Conv0": (), "Conv1": ("Conv0",), "Conv2": ("Conv1",)}
    assert found.behind == {"Conv0": ("Conv1",), "Conv1": ("Conv2",), "Conv2": ()}
    assert found.anchor["Mul1"] == "Conv1"
    assert found.makers["Mul0_out"] == ("Conv0",)


def test_what_is_brought_together_is_beside() -> None:
    graph = graph_of(onnx_models.residual())
    found = find_neighbours(graph, [n.name for n in graph.nodes if n.op_type == "Conv"])
    assert found.beside["Conv2"] == ("Conv0",)
    assert set(found.behind["Conv0"]) == {"Conv1", "Conv3"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(5))
def test_the_design_shows_neighbours_in_all_combinations(name: str, seed: int) -> None:
    _, space, _, neighbours = setup(name)
    configs = design(space, neighbours, mixtures=4, seed=seed)
    assert configs[0] == space.fp32()
    seen = {
        (producer, consumer, config.ops[producer].is_quantized, config.ops[consumer].is_quantized)
        for config in configs
        for consumer, before in neighbours.before.items()
        for producer in before[:1]
    }
    pairs = {(producer, consumer) for producer, consumer, _, _ in seen}
    assert len(seen) == 4 * len(pairs)


def test_the_design_has_every_class_of_every_op() -> None:
    _, space, _, neighbours = setup("convnet")
    configs = design(space, neighbours, mixtures=2, seed=0)
    for tunable in space.tunables:
        shown = {option_class(config.ops[tunable.name]) for config in configs}
        assert shown == {"fp32", *classes_of(tunable)}


@pytest.mark.parametrize("make", [random_configs, None])
def test_a_seed_gives_the_same_configurations(make: Any) -> None:
    _, space, _, neighbours = setup("convnet")

    def chosen(seed: int) -> list[str]:
        if make is None:
            return [c.key for c in design(space, neighbours, mixtures=3, seed=seed)]
        return [c.key for c in make(space, 5, seed=seed)]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def event(name: str, start: int, duration: int, category: str = "Node") -> dict[str, Any]:
    return {"cat": category, "name": name, "ts": start, "dur": duration, "args": {}}


def test_a_profile_is_read_run_by_run() -> None:
    events = [
        event("session_initialization", 0, 5, "Session"),
        event("model_run", 100, 50, "Session"),
        event("a_kernel_time", 110, 10),
        event("model_run", 200, 50, "Session"),
        event("a_kernel_time", 210, 20),
        # In a loop, twice.
        event("b_kernel_time", 230, 4),
        event("b_kernel_time", 235, 5),
        event("a_fence_before", 209, 1),
    ]
    profile = read_profile(events, skip=1)
    assert profile.runs == {"a": pytest.approx((20e-6,)), "b": pytest.approx((9e-6,))}
    profile = read_profile(events)
    assert profile.runs["a"] == pytest.approx((10e-6, 20e-6))
    assert profile.runs["b"] == pytest.approx((0.0, 9e-6))
    assert profile.nodes["a"] == pytest.approx(10e-6)
