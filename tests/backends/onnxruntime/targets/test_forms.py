"""Candidates have the forms that their target's profile allows, and no others."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
import random

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import numpy_helper
from onnx_models import Maker
from onnx_models import attention
from onnx_models import convnet
from onnx_models import residual
from onnx_models import samples
import pytest

from optuna_quant.backends.onnxruntime import TARGETS
from optuna_quant.backends.onnxruntime import IntegerForm
from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime.model.op_tables import STATIC_RULES
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace


def mixed(opset: int) -> onnx.ModelProto:
    """Products with factors, tables, concatenations, poolings, shared inputs: ``x`` (N, 4, 8)."""
    m = Maker(opset)
    x = m.input("x", ["N", 4, 8])
    h = m.node("MatMul", [x, m.weight(8, 8)])
    h = m.node("Add", [h, m.weight(8)])
    h = m.node("Concat", [m.node("Sigmoid", [h]), m.node("Relu", [h])], axis=1)
    h = m.node("Mul", [h, m.weight(8)])
    h = m.node("Reshape", [h, m.const(np.array([-1, 64], np.int64))])
    shared = m.weight(64, 6)
    first = m.node("Gemm", [h, shared, m.weight(6)], alpha=0.5, beta=2.0)
    second = m.node("Gemm", [h, m.weight(6, 64)], transB=1)
    return m.model([m.node("Add", [first, second]), m.node("MatMul", [h, shared])])


MODELS = {
    "convnet": (convnet(), (20, 2, 8, 8)),
    "residual": (residual(), (20, 3, 6, 6)),
    "attention": (attention(), (20, 5, 8)),
    "mixed": (mixed(17), (20, 4, 8)),
    "mixed 21": (mixed(21), (20, 4, 8)),
}
# One of the CPU provider's whose forms are not the usual ones.
SIGNED = replace(
    TARGETS["cpu"],
    name="signed",
    forms=(
        IntegerForm(
            op_types=tuple(STATIC_RULES),
            activation="int8/sym",
            weights=("int8/sym/per_channel", "int8/sym/per_tensor"),
        ),
    ),
    dynamic=False,
    weight_only_bits=(),
)
PAIR = ("QuantizeLinear", "DequantizeLinear")
PROFILES = {**TARGETS, "signed": SIGNED}
# What is written for the CPU by default has tests of its own, and more forms than its profile.
WALKED = [name for name in PROFILES if name != "cpu"]


@cache
def backend_of(model: str, target: str) -> OnnxRuntimeBackend:
    proto, shape = MODELS[model]
    return OnnxRuntimeBackend(
        proto, calibration_data={"x": samples(*shape)}, target=PROFILES[target]
    )


def random_config(backend: OnnxRuntimeBackend, seed: int) -> QuantConfig:
    space = backend.tuning_space(op_types="all")
    rng = random.Random(seed)
    changes = {op: rng.choice(t.options) for t in space.tunables for op in t.ops}
    return space.fp32().with_ops(changes)


def options_of(space: TuningSpace) -> dict[str, tuple[OpConfig, ...]]:
    return {op: t.quantized for t in space.tunables for op in t.ops}


class Walk:
    """Follows the pairs of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = {node.name: node for node in model.graph.node}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def params(self, node: onnx.NodeProto) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        return self.constants[node.input[1]], self.constants[node.input[2]]

    def pair(self, tensor: str) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
        """Scale and zero point of the pair that makes a tensor, of a constant's second half."""
        dequantize = self.maker[tensor]
        assert dequantize.op_type == "DequantizeLinear"
        found = self.params(dequantize)
        integers = dequantize.input[0]
        if integers in self.constants:
            assert self.constants[integers].dtype == found[1].dtype
        else:
            quantize = self.maker[integers]
            assert quantize.op_type == "QuantizeLinear"
            assert quantize.domain == dequantize.domain
            for one, other in zip(found, self.params(quantize), strict=True):
                np.testing.assert_array_equal(one, other)
        return found


def is_in_pair(walk: Walk, tensor: str) -> bool:
    node = walk.maker.get(tensor)
    return node is not None and node.op_type == "DequantizeLinear"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", WALKED)
def test_every_candidate_has_only_forms_of_the_profile(model: str, target: str) -> None:
    backend, profile = backend_of(model, target), PROFILES[target]
    types = {node.op_type for node in MODELS[model][0].graph.node}
    op_types = {op.name: op.op_type for op in backend.capability().ops}
    for seed in range(3):
        config = random_config(backend, seed)
        built = backend.quantize(config)
        assert all(np.isfinite(y).all() for y in built.run({"x": samples(*MODELS[model][1])}))
        candidate = built.proto
        walk = Walk(candidate)
        new = {node.op_type for node in candidate.graph.node} - types
        # The CPU provider must not move a Relu's work into the kernel before it.
        assert new <= {*PAIR, "Cast", *(["Max"] if profile.is_cpu else [])}
        for op, option in config.ops.items():
            node = walk.nodes[op]
            assert profile.allows(op_types[op], option)
            if option.mode == "static":
                check_op(walk, node, option, target)
            elif option.mode == "fp32":
                weighted = len(node.input) > 1 and node.input[1] in walk.constants
                assert not weighted or walk.constants[node.input[1]].dtype == np.float32


def check_op(walk: Walk, node: onnx.NodeProto, option: OpConfig, target: str) -> None:
    profile = PROFILES[target]
    activation, weight = option.activation, option.weight
    assert activation is not None
    products = {"Conv", "Gemm", "MatMul"}
    for position, name in enumerate(node.input):
        if weight is not None and position == 1:
            check_weight(walk, name, option, target)
        elif position == 2 and node.op_type in products:
            if profile.integer_bias:
                assert walk.pair(name)[1].dtype == np.int32
            else:
                assert walk.constants[name].dtype == np.float32
        else:
            scale, zero_point = walk.pair(name)
            assert scale.shape == () and zero_point.dtype == activation.dtype
            if activation.scheme == "sym":
                assert zero_point == 0
    outputs = [walk.readers.get(name, []) for name in node.output]
    quantized = [
        readers and all(r.op_type == "QuantizeLinear" for r in readers) for readers in outputs
    ]
    if profile.integer_outputs:
        # What follows may be an activation function that the quantization does the work of.
        behind = [walk.readers.get(r.output[0], []) for readers in outputs for r in readers]
        assert all(quantized) or all(r.op_type == "QuantizeLinear" for rs in behind for r in rs)


def check_weight(walk: Walk, name: str, option: OpConfig, target: str) -> None:
    assert option.weight is not None
    scale, zero_point = walk.pair(name)
    assert zero_point.dtype == option.weight.dtype
    assert scale.ndim == (1 if option.weight.granularity == "per_channel" else 0)
    if option.weight.scheme == "sym":
        assert not zero_point.any()
    stored = walk.maker[name].input[0] in walk.constants
    assert stored != PROFILES[target].weight_pairs


@pytest.mark.parametrize("recipe", ["equalization", "fast_bias_correction", "smooth_quant"])
@pytest.mark.parametrize("target", ["tensorrt", "qnn"])
def test_recipes_keep_the_forms(target: str, recipe: str) -> None:
    data = {"x": samples(20, 3, 6, 6)}
    backend = OnnxRuntimeBackend(
        residual(), calibration_data=data, target=target, recipes={recipe: True}
    )
    space = backend.tuning_space(op_types="all")
    assert list(space.recipes) == [recipe]
    model, config = backend.quantize(space.default()), space.default()
    walk = Walk(model.proto)
    for op, option in config.ops.items():
        check_op(walk, walk.nodes[op], option, target)
    (y,), (exact,) = model.run(data), backend.quantize(space.fp32()).run(data)
    assert np.abs(y - exact).mean() < 0.02 * np.abs(exact).mean()


@pytest.mark.parametrize("model", ["mixed", "mixed 21"])
def test_tensorrt_gets_standard_operators_alone(model: str) -> None:
    """Its parser knows no others."""
    backend = backend_of(model, "tensorrt")
    for seed in range(3):
        candidate = backend.quantize(random_config(backend, seed)).proto
        assert {node.domain for node in candidate.graph.node} == {""}


@pytest.mark.parametrize(("opset", "domain"), [(17, "com.microsoft"), (21, "")])
def test_16_bits_are_of_the_domain_that_has_them(opset: int, domain: str) -> None:
    backend = backend_of("mixed" if opset == 17 else "mixed 21", "qnn")
    space = backend.tuning_space()
    options = {
        op: next(o for o in t.quantized if o.activation and o.activation.bits == 16)
        for t in space.tunables
        for op in t.ops
    }
    walk = Walk(backend.quantize(space.fp32().with_ops(options)).proto)
    quantize = [node for node in walk.nodes.values() if node.op_type == "QuantizeLinear"]
    assert quantize
    for node in quantize:
        assert walk.params(node)[1].dtype == np.uint16
        assert node.domain == domain


def test_the_cpu_has_16_bits_for_those_who_name_them() -> None:
    backend = backend_of("convnet", "cpu")
    wish = {"Conv": {"activation": {"bits": [8, 16]}}}
    options = options_of(backend.tuning_space(op_type_dict=wish))
    usual = options_of(backend.tuning_space())
    assert options["Gemm0"] == usual["Gemm0"]
    assert options["Conv0"][: len(usual["Conv0"])] == usual["Conv0"]
    more = options["Conv0"][len(usual["Conv0"]) :]
    assert {o.activation.dtype for o in more if o.activation} == {"uint16"}
    assert {o.activation.algorithm for o in more if o.activation} == {
        *("minmax", "percentile", "kl", "mse")
    }
    x = samples(20, 2, 8, 8)
    space = backend.tuning_space(op_type_dict=wish)
    (exact,) = backend.quantize(space.fp32()).run({"x": x})
    errors = {}
    for option in (usual["Conv0"][0], more[0]):
        config = space.fp32().with_ops({"Conv0": option, "Conv1": option})
        (y,) = backend.quantize(config).run({"x": x})
        errors[option.activation.bits if option.activation else 0] = np.abs(y - exact).max()
    assert errors[16] < errors[8]


def test_ops_of_different_bits_get_their_own() -> None:
    backend = backend_of("residual", "qnn")
    space = backend.tuning_space(op_types="all")
    bits = {"Conv0": 16, "Conv1": 8, "Conv2": 16, "Add0": 8, "Conv3": 16}
    options = {
        op: next(o for o in options_of(space)[op] if o.activation and o.activation.bits == wanted)
        for op, wanted in bits.items()
    }
    walk = Walk(backend.quantize(space.fp32().with_ops(options)).proto)
    for op, wanted in bits.items():
        reads = 2 if op == "Add0" else 1
        for name in walk.nodes[op].input[:reads]:
            assert np.iinfo(walk.pair(name)[1].dtype).bits == wanted


@pytest.mark.parametrize("model", ["convnet", "residual", "attention", "mixed"])
def test_the_cpu_has_the_space_that_it_always_had(model: str) -> None:
    proto, shape = MODELS[model]
    usual = OnnxRuntimeBackend(proto, calibration_data={"x": samples(*shape)})
    named = backend_of(model, "cpu")
    assert named.capability() == usual.capability()
    assert named.signature() == usual.signature()
    space = usual.tuning_space(op_types="all")
    assert named.tuning_space(op_types="all").description == space.description
    assert named.fingerprint(space.default()) == usual.fingerprint(space.default())
    narrow = backend_of(model, "cpu-avx2")
    assert narrow.tuning_space(op_types="all").description == space.description
    reduced = OnnxRuntimeBackend(proto, calibration_data={"x": samples(*shape)}, reduce_range=True)
    assert narrow.fingerprint(space.default()) == reduced.fingerprint(space.default())
    assert narrow.simulated_target is None


def test_what_the_target_does_not_run_is_refused() -> None:
    backend = backend_of("convnet", "tensorrt")
    space = backend.tuning_space()
    for label, message in [
        ("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax", "not run it so"),
        ("dynamic w=int8/sym/per_tensor/minmax", "not run it so"),
        ("weight_only w=int4/asym/per_group=16/rtn level=4", "weight_only mode on the target"),
    ]:
        config = space.fp32().with_ops({"Gemm0": OpConfig.from_label(label)})
        with pytest.raises(ValueError, match=rf"Op 'Gemm0' cannot run .*{message}.*"):
            backend.quantize(config)


def test_forms_hold_on_the_cpu_as_well() -> None:
    backend = backend_of("convnet", "signed")
    space = backend.tuning_space()
    for label, message in [
        ("static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax", "not run it so"),
        ("dynamic w=int8/sym/per_tensor/minmax", "not run it so"),
        ("weight_only w=int4/asym/per_group=16/rtn level=4", "mode on the target 'signed'"),
    ]:
        config = space.fp32().with_ops({"Gemm0": OpConfig.from_label(label)})
        with pytest.raises(ValueError, match=rf"Op 'Gemm0' cannot run .*{message}"):
            backend.quantize(config)
        backend_of("convnet", "cpu").quantize(config)


@pytest.mark.parametrize("target", [name for name, each in TARGETS.items() if each.is_cpu])
def test_targets_of_the_cpu_provider_run_in_its_integer_kernels(target: str) -> None:
    """They are run and measured here: pairs that it computes in floats save nothing."""
    backend = backend_of("convnet", target)
    space = backend.tuning_space()
    first = {op: options[0] for op, options in options_of(space).items()}
    executed = backend.executed(space.fp32().with_ops(first))
    assert first
    assert all(executed[op].integer for op in first), executed


@pytest.mark.parametrize(
    ("target", "approach", "has"),
    [
        ("tensorrt", "dynamic", "static, auto"),
        ("qnn", "weight_only", "static, auto"),
        ("cuda", "dynamic", "static, weight_only, auto"),
    ],
)
def test_approach_that_the_target_lacks(target: str, approach: str, has: str) -> None:
    runs = {"dynamic": lambda p: p.dynamic, "weight_only": lambda p: p.weight_only_bits}
    others = ", ".join(name for name, profile in TARGETS.items() if runs[approach](profile))
    words = rf"'{target}' .*it has {has}\. Targets with '{approach}': {others}\."
    with pytest.raises(ValueError, match=words):
        OnnxRuntimeBackend(convnet(), approach=approach, target=target)


def test_why_ops_are_left_out() -> None:
    model, data = residual(), {"x": samples(20, 3, 6, 6)}
    backend = OnnxRuntimeBackend(model, calibration_data=data, target="openvino")
    frame = backend.left_out(backend.tuning_space()).set_index("op")
    assert "rarely" in frame.loc["Add0", "reason"]
    m = Maker()
    h = m.node("Sigmoid", [m.conv(m.input("x", ["N", 3, 6, 6]), 3, 3)])
    backend = OnnxRuntimeBackend(m.model([h]), calibration_data=data, target="openvino")
    frame = backend.left_out().set_index("op")
    reason = "the target 'openvino' does not run it on integers"
    assert frame.loc["Sigmoid0", "reason"] == reason
