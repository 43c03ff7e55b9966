"""Recipes that change how candidates are written, seen in their graphs and outputs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import exact_options
from onnx_models import residual
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.recipes.request import requested_recipes
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


STATIC = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax")
WHOLE = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/minmax")


def backend_of(model: onnx.ModelProto, data: NDArray[Any], **kw: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model, calibration_data=data, session_options=exact_options(), **kw)


def everything(backend: OnnxRuntimeBackend, **recipes: str) -> QuantConfig:
    """All ops in static mode, with recipes."""
    return QuantConfig(backend.tuning_space(op_types="all").default().ops, recipes)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def pairs_of_weights(model: onnx.ModelProto) -> dict[str, list[str]]:
    """The initializers of floats that are quantized in the graph, and what reads each result."""
    constants = {t.name for t in model.graph.initializer}
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return {
        node.input[0]: readers[node.output[0]]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in constants
    }


@pytest.mark.parametrize("opset", [11, 17, 21])
def test_weights_with_pairs_stay_in_floats_and_compute_the_same(opset: int) -> None:
    data = samples(16, 2, 8, 8)
    backend = backend_of(convnet(opset), data)
    plain = backend.quantize(everything(backend))
    model = backend.quantize(everything(backend, add_qdq_pair_to_weight="on"))
    assert pairs_of_weights(plain.proto) == {}
    # Those of both convolutions and of the Gemm, as in the model; biases are integers as before.
    found = pairs_of_weights(model.proto)
    assert found == {name: ["DequantizeLinear"] for name in ("c0", "c2", "c4")}
    assert model.fingerprint != plain.fingerprint
    np.testing.assert_array_equal(model.run({"x": data})[0], plain.run({"x": data})[0])
    executed = backend.executed(everything(backend, add_qdq_pair_to_weight="on"))
    assert executed == backend.executed(everything(backend))
    assert all(op.integer for op in executed.values())


@pytest.mark.parametrize("reduce_range", [False, True])
def test_a_pair_gives_the_integers_of_a_weight_that_is_clipped_scaled_or_corrected(
    reduce_range: bool,
) -> None:
    m = Maker()
    weight = m.rng.standard_t(2, (6, 4)).astype(np.float32)
    h = m.node("Gemm", [m.input("x", ["N", 6]), m.const(weight), m.weight(4)], alpha=-0.5)
    model = m.model([m.node("Gemm", [h, m.weight(4, 4)], name="second")])
    data = samples(64, 6)
    backend = backend_of(model, data, reduce_range=reduce_range)
    option = OpConfig.from_label("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_tensor/mse")
    for correction in ("off", "on"):
        config = QuantConfig(dict.fromkeys(["Gemm0", "second"], option)).with_recipe(
            "weight_correction", correction
        )
        outputs = [
            backend.quantize(config.with_recipe("add_qdq_pair_to_weight", value)).run({"x": data})
            for value in ("off", "on")
        ]
        np.testing.assert_array_equal(outputs[0][0], outputs[1][0])


def readers_of_pairs(model: onnx.ModelProto) -> list[int]:
    """How many nodes read each pair of an activation."""
    constants = {t.name for t in model.graph.initializer}
    quantized = {
        n.output[0]
        for n in model.graph.node
        if n.op_type == "QuantizeLinear" and n.input[0] not in constants
    }
    read = Counter(name for node in model.graph.node for name in set(node.input))
    outputs = {value.name for value in model.graph.output}
    return [
        read[node.output[0]] + (node.output[0] in outputs)
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    ]


@pytest.mark.parametrize("model", ["residual", "attention"])
def test_each_reader_has_a_pair_of_its_own(model: str) -> None:
    made, data = {
        "residual": (residual(), samples(8, 3, 6, 6)),
        "attention": (attention(), samples(8, 5, 8)),
    }[model]
    backend = backend_of(made, data)
    plain = backend.quantize(everything(backend))
    dedicated = backend.quantize(everything(backend, dedicated_qdq_pair="on"))
    assert max(readers_of_pairs(plain.proto)) > 1
    assert set(readers_of_pairs(dedicated.proto)) == {1}
    pairs = kinds(dedicated.proto)["QuantizeLinear"] - kinds(plain.proto)["QuantizeLinear"]
    assert pairs == sum(count - 1 for count in readers_of_pairs(plain.proto))
    assert dedicated.fingerprint != plain.fingerprint
    np.testing.assert_array_equal(dedicated.run({"x": data})[0], plain.run({"x": data})[0])


def test_an_output_of_the_model_keeps_its_pair() -> None:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 4, 4]), 2, 2, kernel=(1, 1))
    model = m.model([h, m.conv(h, 2, 2, kernel=(1, 1)), m.node("Sigmoid", [h])])
    data = samples(8, 2, 4, 4)
    backend = backend_of(model, data)
    config = QuantConfig({"Conv0": STATIC, "Conv1": STATIC})
    plain = backend.quantize(config)
    model = backend.quantize(config.with_recipe("dedicated_qdq_pair", "on")).proto
    outside = [n.input[0] for n in model.graph.node if n.input[0].startswith("Conv0_out")]
    # The output, the other convolution, and the Sigmoid.
    assert Counter(outside)["Conv0_out_float"] == 3
    dedicated = backend.quantize(config.with_recipe("dedicated_qdq_pair", "on"))
    for one, other in zip(plain.run({"x": data}), dedicated.run({"x": data}), strict=True):
        np.testing.assert_array_equal(one, other)


def test_excluded_outputs_are_quantized_for_readers_only() -> None:
    data = samples(8, 3, 6, 6)
    backend = backend_of(residual(), data)
    ops = {"Conv0": STATIC, "Conv1": STATIC, "Conv2": STATIC}
    plain = backend.quantize(QuantConfig(ops))
    model = backend.quantize(QuantConfig(ops, {"optypes_to_exclude_output_quant": "Conv"}))
    readers = Counter(node.op_type for node in model.proto.graph.node if "Relu0_out" in node.input)
    # The Add in floats reads what the Relu gives; the convolution has a pair before it.
    assert readers == {"Add": 1, "QuantizeLinear": 1}
    assert [_before_add(each.proto) for each in (plain, model)] == [
        {"DequantizeLinear"},
        {"Conv", "Relu"},
    ]
    assert model.fingerprint != plain.fingerprint
    # Where all readers are in static mode it is the same model.
    configs = everything(backend), everything(backend, optypes_to_exclude_output_quant="Conv")
    assert backend.fingerprint(configs[0]) == backend.fingerprint(configs[1])


def _before_add(model: onnx.ModelProto) -> set[str]:
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    (add,) = (node for node in model.graph.node if node.op_type == "Add")
    return {made[name] for name in add.input}


def test_an_excluded_output_in_floats_is_that_of_the_op() -> None:
    m = Maker()
    h = m.conv(m.input("x", ["N", 2, 4, 4]), 2, 3)
    model = m.model([m.node("Sigmoid", [h])])
    data = samples(400, 2, 4, 4)
    backend = backend_of(model, data)
    config = QuantConfig({"Conv0": STATIC})
    plain = backend.quantize(config)
    excluded = backend.quantize(config.with_recipe("optypes_to_exclude_output_quant", "Add+Conv"))
    counts = [kinds(each.proto)["QuantizeLinear"] for each in (plain, excluded)]
    assert counts == [2, 1]
    steps = [len(np.unique(each.run({"x": data})[0])) for each in (plain, excluded)]
    assert steps[0] <= 256 < steps[1]


# Corrections.


FORMS = (
    "Conv",
    "depthwise",
    "Conv without bias",
    "ConvTranspose",
    "Gemm",
    "Gemm without bias",
    "transB",
    "transA",
    "MatMul",
    "MatMul Add",
    "MatMul 3",
    "MatMul Add 3",
    "MatMul Add known",
)


def layer(form: str) -> tuple[onnx.ModelProto, NDArray[np.float32], int]:
    """A layer whose weight moves the mean of its output, its data, and the axis of channels."""
    m = Maker(seed=3)
    kind = form.split()[0]
    if kind in ("Conv", "depthwise", "ConvTranspose"):
        x = m.input("x", ["N", 4, 6, 6])
        data = samples(64, 4, 6, 6) * 0.1 + np.arange(1, 5, dtype=np.float32)[:, None, None]
        if kind == "ConvTranspose":
            y = m.node("ConvTranspose", [x, m.weight(4, 3, 1, 1), m.weight(3)])
        else:
            bias = "without" not in form
            group = 4 if kind == "depthwise" else 1
            y = m.conv(x, 4, 4, kernel=(3, 3), bias=bias, group=group)
        return m.model([y]), data, 1
    shape = {"3": ["N", "L", 40], "known": [32, 3, 40]}.get(form.split()[-1], ["N", 40])
    data = samples(*(32, 3, 40) if len(shape) == 3 else (64, 40)) * 0.1
    data += np.linspace(0.5, 2.0, 40, dtype=np.float32)
    if form == "transA":
        x = m.input("x", [40, 64])
        y = m.node("Gemm", [x, m.weight(40, 4), m.weight(4)], transA=1)
        return m.model([y]), np.ascontiguousarray(data.T), 1
    x = m.input("x", shape)
    if kind == "MatMul":
        y = m.node("MatMul", [x, m.weight(40, 4)])
        if "Add" in form:
            y = m.node("Add", [m.weight(4), y])
    else:
        turned = form == "transB"
        inputs = [x, m.weight(*((4, 40) if turned else (40, 4)))]
        inputs += [] if "without" in form else [m.weight(4)]
        y = m.node("Gemm", inputs, transB=int(turned), alpha=2.0)
    return m.model([y]), data, len(shape) - 1


@pytest.mark.parametrize("form", FORMS)
def test_bias_correction_restores_the_means_of_channels(form: str) -> None:
    model, data, axis = layer(form)
    backend = backend_of(model, data)
    (op,) = (op.name for op in backend.capability().ops if op.op_type != "Add")
    # Coarse weights, whose rounding shows beside that of the activations.
    config = QuantConfig({op: WHOLE if form != "depthwise" else STATIC})
    others = tuple(i for i in range(data.ndim if form != "transA" else 2) if i != axis)
    run = [
        backend.quantize(each).run({"x": data})[0].astype(np.float64)
        for each in (
            QuantConfig({}),
            config,
            config.with_recipe("fast_bias_correction", "on"),
        )
    ]
    expected, plain, corrected = (y.mean(axis=others) for y in run)
    before, after = np.abs(plain - expected).sum(), np.abs(corrected - expected).sum()
    assert after < 0.25 * before
    if form != "ConvTranspose":  # for which there is no integer kernel
        executed = backend.executed(config.with_recipe("fast_bias_correction", "on"))
        assert executed[op].integer


# What users give.

ALL_TYPES = requested_recipes(["optypes_to_exclude_output_quant"]).values[
    "optypes_to_exclude_output_quant"
][-1]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ([], ("off",)),
        (["MatMul", "Conv"], ("Conv+MatMul",)),
        ({"Conv"}, ("Conv",)),
        ([[], ["Conv"], ["Conv", "Add"]], ("off", "Conv", "Add+Conv")),
        ([False, ["Conv"]], ("off", "Conv")),
        ("Add+Conv", ("Add+Conv",)),
        (["off", "Add+Conv", "Mul"], ("off", "Add+Conv", "Mul")),
        (["Add+Conv", True], ("Add+Conv", ALL_TYPES)),
    ],
)
def test_op_types_become_labels(given: object, values: tuple[str, ...]) -> None:
    name = "optypes_to_exclude_output_quant"
    assert requested_recipes({name: given}).values == {name: values}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["Convolution"], r"there is no op type 'Convolution'\.$"),
        (["conv"], r"there is no op type 'conv' \(did you mean 'Conv'\?\)\.$"),
        ("Conv+Add", "must be different and sorted: 'Add\\+Conv'"),
        ([["Conv"], 3], "expected a list of op types, but got 3"),
    ],
)
def test_bad_op_types_are_refused(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"recipes: optypes_to_exclude_output_quant: .*{words}"):
        requested_recipes({"optypes_to_exclude_output_quant": given})


@pytest.mark.parametrize("recipe", ["weight_correction", "add_qdq_pair_to_weight"])
def test_what_needs_static_weights_is_left_out_without_them(recipe: str) -> None:
    data = samples(8, 2, 8, 8)
    for approach in ("dynamic", "weight_only"):
        backend = OnnxRuntimeBackend(
            convnet(), calibration_data=data, approach=approach, recipes=[recipe]
        )
        assert backend.capability().recipes == {}
    m = Maker()
    model = m.model([m.node("Sigmoid", [m.input("x", ["N", 4])])])
    backend = OnnxRuntimeBackend(model, calibration_data=samples(8, 4), recipes=[recipe])
    assert backend.capability().recipes == {}


def test_bias_correction_without_data_says_what_it_needs() -> None:
    backend = OnnxRuntimeBackend(convnet(), approach="auto", inspect_only=True)
    config = QuantConfig({"Conv0": STATIC}, {"fast_bias_correction": "on"})
    with pytest.raises(ValueError, match="needs calibration_data"):
        backend.quantize(config)


def test_corrections_of_a_larger_calibration_are_others() -> None:
    model, data, _ = layer("Gemm")
    backend = backend_of(model, data, calibration_sizes=[8, 64], recipes=["fast_bias_correction"])
    configs = [
        QuantConfig({"Gemm0": STATIC}, {"fast_bias_correction": value}, size)
        for value in ("off", "on")
        for size in (8, 64)
    ]
    assert len({backend.fingerprint(config) for config in configs}) == 4
    other = backend_of(model, data[:8], recipes=["fast_bias_correction"])
    config = QuantConfig({"Gemm0": STATIC}, {"fast_bias_correction": "on"})
    assert other.fingerprint(config) == backend.fingerprint(configs[2])
