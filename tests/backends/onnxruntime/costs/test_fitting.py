"""Sharing out what models cost among ops and boundaries, on costs that are made up."""

from __future__ import annotations

from dataclasses import replace
import itertools
import random

import pytest

from optuna_quant.backends.onnxruntime.costs.attribution import BEFORE
from optuna_quant.backends.onnxruntime.costs.attribution import OWN
from optuna_quant.backends.onnxruntime.costs.fitting import Fitted
from optuna_quant.backends.onnxruntime.costs.fitting import Pairing
from optuna_quant.backends.onnxruntime.costs.fitting import fit_part
from optuna_quant.backends.onnxruntime.costs.fitting import merged
from optuna_quant.backends.onnxruntime.costs.latency import Observed
from optuna_quant.backends.onnxruntime.costs.latency import latency_table
from optuna_quant.backends.onnxruntime.costs.latency import model_factors
from optuna_quant.backends.onnxruntime.costs.latency import node_overhead
from optuna_quant.backends.onnxruntime.costs.latency import session_noise
from optuna_quant.backends.onnxruntime.costs.latency import state_of
from optuna_quant.backends.onnxruntime.costs.latency import validate
from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
from optuna_quant.costs import Boundary
from optuna_quant.costs.timing import Timing
from optuna_quant.costs.timing import summarize
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.space.tunable import Tunable


INT8 = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym"))
INT8_KL = OpConfig("static", TensorConfig("uint8", algorithm="kl"), TensorConfig("int8", "sym"))
CHANNELS = OpConfig("static", TensorConfig("uint8"), TensorConfig("int8", "sym", "per_channel"))
OPS = ("a", "b", "c")
SPACE = TuningSpace(tuple(Tunable(op, "Conv", (op,), (INT8, INT8_KL, FP32)) for op in OPS))
CHAIN = Neighbours(
    before={"a": (), "b": ("a",), "c": ("b",)},
    behind={"a": ("b",), "b": ("c",), "c": ()},
    position={"a": 0, "b": 1, "c": 2},
)


def timing(seconds: float) -> Timing:
    return summarize([[seconds] * 5])[0]


def test_all_that_a_boundary_may_cost_is_found() -> None:
    states = [{"p": p, "c": c} for p in ("fp32", "static") for c in ("fp32", "static")]
    values = [1.0, 1.5, 4.25, 4.0]
    fitted = Fitted()
    fit_part(fitted, "p", [Pairing("p", ("c",))], states, values, ridge=1e-9)
    assert fitted.ops["p"] == pytest.approx({"fp32": 1.0, "static": 4.0}, abs=1e-6)
    (boundary,) = merged(fitted.boundaries)
    assert (boundary.producer, boundary.consumers) == ("p", ("c",))
    assert boundary.quantize == pytest.approx(0.5, abs=1e-6)
    assert boundary.dequantize == pytest.approx(0.25, abs=1e-6)


def test_nothing_costs_less_than_nothing() -> None:
    states = [{"p": p, "c": c} for p in ("fp32", "static") for c in ("fp32", "static")]
    fitted = Fitted()
    fit_part(fitted, "p", [Pairing("p", ("c",))], states, [2.0, 1.0, 1.0, 2.0])
    assert all(b.quantize >= 0 and b.dequantize >= 0 for b in fitted.boundaries)
    assert all(cost >= 0 for cost in fitted.ops["p"].values())


def test_boundaries_between_the_same_ops_are_one() -> None:
    found = merged([Boundary("a", ("b",), 1.0, 0.0), Boundary("a", ("b",), 0.5, 2.0)])
    assert found == (Boundary("a", ("b",), 1.5, 2.0),)


TRUE = {"a": (5e-5, 2e-5), "b": (8e-5, 3e-5), "c": (3e-5, 4e-5)}
QUANTIZE, DEQUANTIZE = 6e-6, 9e-6
PER_NODE = -1.5e-6


def observed(config: QuantConfig, *, factor: float = 1.0) -> Observed:
    """What a profile would show of a chain of three ops, each of them three nodes."""
    q = {op: option.is_quantized for op, option in config.ops.items()}
    parts = {(op, OWN): TRUE[op][q[op]] for op in OPS}
    counts = {(op, OWN): 3.0 for op in OPS}
    for producer, consumer in itertools.pairwise(OPS):
        if q[consumer] and not q[producer]:
            parts[consumer, BEFORE] = QUANTIZE
            counts[consumer, BEFORE] = 1.0
        if q[producer] and not q[consumer]:
            parts[producer, OWN] += DEQUANTIZE
            counts[producer, OWN] += 1.0
    parts["", OWN], counts["", OWN] = 4e-6, 2.0
    whole = factor * sum(parts.values())
    # The profile shows more than a node takes.
    parts = {key: value - PER_NODE * counts[key] for key, value in parts.items()}
    return Observed(state_of(config), parts, counts, timing(whole))


def configs() -> list[QuantConfig]:
    chosen = itertools.product((FP32, INT8), repeat=3)
    return [QuantConfig(dict(zip(OPS, options, strict=True))) for options in chosen]


def test_the_table_gives_back_what_profiles_were_made_from() -> None:
    # All pairs of neighbours are seen in all combinations, but not all configurations.
    shown = [observed(config) for i, config in enumerate(configs()) if i not in (3, 4)]
    table = latency_table(SPACE, shown, CHAIN)
    for config in configs():
        assert table.cost(config) == pytest.approx(observed(config).timing.seconds, rel=0.02)
    assert table.fixed == pytest.approx(4e-6, rel=0.05)


def test_how_ranges_are_found_costs_nothing() -> None:
    table = latency_table(SPACE, [observed(config) for config in configs()], CHAIN)
    for op in OPS:
        assert table.option_cost(op, INT8.label) == table.option_cost(op, INT8_KL.label)


def test_an_option_that_was_not_measured_costs_what_the_likest_does() -> None:
    space = TuningSpace(tuple(Tunable(op, "Conv", (op,), (INT8, CHANNELS, FP32)) for op in OPS))
    table = latency_table(space, [observed(config) for config in configs()], CHAIN)
    for op in OPS:
        assert table.option_cost(op, CHANNELS.label) == table.option_cost(op, INT8.label)


def test_what_does_not_load_is_no_bargain() -> None:
    shown = [observed(config) for config in configs()]
    name = state_of(configs()[-1])["b"]
    table = latency_table(SPACE, shown, CHAIN, refused={("b", name)})
    whole = shown[0].timing.seconds
    assert table.option_cost("b", INT8.label) > whole
    assert table.option_cost("b", INT8_KL.label) > whole
    assert table.option_cost("a", INT8.label) < whole


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_sums_over_nodes_agree_with_whole_models(factor: float) -> None:
    shown = [observed(config, factor=factor) for config in configs()]
    per_node = node_overhead(shown)
    assert per_node == pytest.approx(PER_NODE, abs=2e-7)
    for each, scale in zip(shown, model_factors(shown, per_node), strict=True):
        assert scale == pytest.approx(factor, rel=0.05)
        whole = scale * (each.profiled + per_node * each.nodes)
        assert whole == pytest.approx(each.timing.seconds, rel=0.02)


def test_a_profile_that_other_work_has_disturbed_is_scaled() -> None:
    shown = [observed(config) for config in configs()]
    disturbed = replace(shown[2], parts={k: 5 * v for k, v in shown[2].parts.items()})
    shown[2] = disturbed
    per_node = node_overhead(shown)
    scale = model_factors(shown, per_node)[2]
    whole = scale * (disturbed.profiled + per_node * disturbed.nodes)
    assert whole == pytest.approx(disturbed.timing.seconds, rel=0.1)


def test_predictions_are_ranked() -> None:
    timings = [timing(seconds) for seconds in (1.0, 2.0, 3.0, 4.0)]
    good = validate([10.0, 20.0, 30.0, 40.0], timings)
    assert good is not None
    assert good.rank_correlation == pytest.approx(1.0)
    assert good.predicts
    bad = validate([40.0, 30.0, 20.0, 10.0], timings)
    assert bad is not None
    assert bad.rank_correlation == pytest.approx(-1.0)
    assert not bad.predicts
    same = validate([1.0] * 4, timings)
    assert same is not None
    assert same.rank_correlation == 0.0


def test_models_that_differ_by_noise_are_not_ranked() -> None:
    rng = random.Random(0)
    runs = [[rng.gauss(1.0, 0.1) for _ in range(9)] for _ in range(6)]
    found = validate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], summarize(runs))
    assert found is not None
    assert found.rank_correlation is None
    assert found.predicts


def test_noise_is_also_what_sessions_of_one_model_differ_by() -> None:
    timings = [timing(seconds) for seconds in (1.0, 1.02, 1.04)]
    pairs = [(timing(1.0), timing(1.1)), (timing(2.0), timing(1.8)), (timing(1.0), timing(1.0))]
    assert session_noise(pairs) == pytest.approx(1.4826 * 0.0953 / 2**0.5, rel=0.01)
    found = validate([1.0, 2.0, 3.0], timings, pairs)
    assert found is not None
    assert found.rank_correlation is None


def test_two_models_are_too_few_to_compare() -> None:
    assert validate([1.0, 2.0], [timing(1.0), timing(2.0)]) is None
