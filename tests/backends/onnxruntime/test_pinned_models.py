"""Candidates and their fingerprints stay what they were: studies of earlier versions go on.

The models compute on small multiples of powers of two, so that what calibration finds is the same
on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.config import OpConfig
from optuna_quant.config import QuantConfig
from optuna_quant.config import TensorConfig


def exact(*shape: int, step: int = 7, unit: float = 1 / 8) -> np.ndarray:
    """Values of -7 to 7 units, in no simple order."""
    size = int(np.prod(shape))
    numbers = np.arange(size) * 7919 * step % 15 - 7
    return (numbers * unit).astype(np.float32).reshape(shape)


def linear_layers() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """MatMul with and without a bias, one weight for two, a Gemm of each kind."""
    m = Maker()
    x = m.input("x", ["N", 64])
    first = m.const(exact(64, 64), "first")
    h = m.node("MatMul", [x, first])
    h = m.node("Relu", [m.node("Add", [h, m.const(exact(64, step=3), "first_bias")])])
    h = m.node("MatMul", [h, m.const(exact(64, 64, step=11, unit=1 / 64), "second")])
    again = m.node("MatMul", [x, first])
    h = m.node("Add", [h, again])
    weight, bias = m.const(exact(32, 64, unit=1 / 64), "third"), m.const(exact(32), "third_bias")
    h = m.node("Gemm", [h, weight, bias], transB=1, alpha=0.5, beta=2.0)
    return m.model([m.node("Relu", [h])]), {"x": exact(40, 64, step=13)}


def convolutions() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Conv with a large and a small weight, a depthwise one, pooling, a shortcut."""
    m = Maker()
    x = m.input("x", ["N", 4, 8, 8])
    wide = [m.const(exact(64, 4, 3, 3), "wide"), m.const(exact(64), "wide_bias")]
    h = m.node("Relu", [m.node("Conv", [x, *wide], pads=[1, 1, 1, 1])])
    deep = m.node("Conv", [h, m.const(exact(64, 1, 3, 3), "deep")], group=64, pads=[1, 1, 1, 1])
    h = m.node("Add", [deep, h])
    h = m.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2])
    narrow = m.node("Conv", [h, m.const(exact(8, 64, 1, 1, unit=1 / 64), "narrow")])
    return m.model([m.node("Flatten", [narrow])]), {"x": exact(24, 4, 8, 8, step=13)}


def table_and_stored_halves() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """An embedding, weights that are stored as float16, transposed, and one with a default."""
    m = Maker()
    ids = m.input("x", ["N", 6], onnx.TensorProto.INT64)
    h = m.node("Gather", [m.const(exact(200, 32), "table"), ids])
    half = m.const(exact(64, 32, unit=1 / 32).astype(np.float16), "half")
    weight = m.node("Transpose", [m.node("Cast", [half], to=onnx.TensorProto.FLOAT)], perm=[1, 0])
    h = m.node("MatMul", [h, weight])
    h = m.node("Relu", [m.node("Mul", [h, m.input("gain", [64])])])
    m.const(np.full(64, 0.5, np.float32), "gain")
    spread = m.const(np.arange(1024, dtype=np.int64) % 64, "places")
    h = m.node("Gather", [h, spread], axis=2)
    h = m.node("MatMul", [h, m.const(exact(1024, 8, unit=1 / 64), "last")])
    ids_data = (np.arange(180) * 77 % 200).reshape(30, 6)
    return m.model([h]), {"x": ids_data, "gain": np.full((30, 64), 0.5, np.float32)}


def recurrent() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """An LSTM, which has a dynamic mode only, and a MatMul."""
    m = Maker()
    x = m.input("x", [3, "N", 24])
    weights = [m.const(exact(1, 128, 24), "w"), m.const(exact(1, 128, 32, step=3), "r")]
    h = m.node("LSTM", [x, *weights, m.const(exact(1, 256), "b")], hidden_size=32)
    h = m.node("MatMul", [h, m.const(exact(32, 64), "head")])
    return m.model([h]), {"x": exact(3, 20, 24)}


MODELS = {
    "linear": linear_layers,
    "conv": convolutions,
    "table": table_and_stored_halves,
    "recurrent": recurrent,
}


def candidates(name: str) -> Mapping[str, Any]:
    """Candidates of a model, by what they are."""
    model, data = MODELS[name]()
    if name in ("table", "recurrent"):
        backend = OnnxRuntimeBackend(model, approach="dynamic")
    else:
        backend = OnnxRuntimeBackend(model, calibration_data=data, approach="auto")
    space = backend.tuning_space(op_types="all")
    ops = [op for tunable in space.tunables for op in tunable.ops]
    dynamic = {
        op.name: next(o for o in op.options if o.mode == "dynamic")
        for op in backend.capability().ops
        if any(o.mode == "dynamic" for o in op.options)
    }
    configs = {
        "fp32": space.fp32(),
        "default": space.default(),
        "first in fallback": space.default().with_fallback(ops[0]),
        "every second in fallback": space.default().with_fallback(*ops[1::2]),
        "dynamic": QuantConfig(dynamic),
        "mixed": QuantConfig({**space.default().ops, **dict(list(dynamic.items())[:1])}),
        "per tensor": QuantConfig(
            {
                tunable.name: OpConfig(
                    option.mode,
                    activation=option.activation,
                    weight=TensorConfig("int8", "sym", "per_tensor"),
                )
                for tunable in space.tunables
                for option in tunable.options[:1]
                if option.weight is not None
            }
        ),
    }
    return {what: backend.quantize(config) for what, config in configs.items()}


def digest(model: Any) -> str:
    """A hash of a candidate's bytes, followed by its fingerprint."""
    content = model.proto.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:16] + " " + model.fingerprint


PINNED: dict[str, dict[str, str]] = {
    "linear": {
        "fp32": "ac686b4e28264320 873e9ee6cd3748add1ffad8bace5edfa",
        "default": "73bb9ef002973872 4531c55fe58f627e3a85616a59fd3ed7",
        "first in fallback": "1363643790171ebb 8cbd91d1877965d0ea2fedece1d44d4c",
        "every second in fallback": "4273f1af512921e6 478196a0d90ec129243c0f914a508a9c",
        "dynamic": "4792a5004539ed7f 245efcf43269f21d7a4406e283bfb6fc",
        "mixed": "1ed0a62a997289eb c1415a901ae5c0fdaf956ec57d53bb47",
        "per tensor": "f2df8c66991bb1ef 7a265a3a4210227f7e691d30f68edf21",
    },
    "conv": {
        "fp32": "7edfe183b57216b8 948d093bbe00688494a495cdca0122c9",
        "default": "e64afe9bcb74fb4f 9de8be738e6e1d3ed423b476b6a9de03",
        "first in fallback": "b7e4a5eea03939ec c27541d2432ef6efe9252f774fa3ae80",
        "every second in fallback": "12d49b8c31bd3e09 b82fa54df2e30af185638d5219f9ba5f",
        "dynamic": "7edfe183b57216b8 948d093bbe00688494a495cdca0122c9",
        "mixed": "e64afe9bcb74fb4f 9de8be738e6e1d3ed423b476b6a9de03",
        "per tensor": "9c229f3620bdf12a 947e5d4a2518895f2274db2dee70484c",
    },
    "table": {
        "fp32": "e0bf9333aca271f9 8e1f871077d503ba6a9812292cb38747",
        "default": "399327cd6744498a 518b2d6170d58b74bf0294acc2392e1a",
        "first in fallback": "efcb6f9839c81725 3544f41b315c317ccd26609cec562c9f",
        "every second in fallback": "18b639d4241b7708 19b00c42638082ffd6dd3d9cba7d2087",
        "dynamic": "399327cd6744498a 518b2d6170d58b74bf0294acc2392e1a",
        "mixed": "399327cd6744498a 518b2d6170d58b74bf0294acc2392e1a",
        "per tensor": "b6f9891bbaa54ac0 aaa577c2d06ee5a780229cd6d960e7e7",
    },
    "recurrent": {
        "fp32": "4d40a2ee8c28fc70 60c997c8d4c41165a4b286a77cc6e8dd",
        "default": "a595451489bf4ba5 fcf73978dd1aa82f0d8ee06cac1e1f9b",
        "first in fallback": "3bde422870feffe3 ca3e59f14c1c955687f7182b40515314",
        "every second in fallback": "7b215d1c1cc4d74e 0485407d71fea92466dd0c50091d4c3b",
        "dynamic": "a595451489bf4ba5 fcf73978dd1aa82f0d8ee06cac1e1f9b",
        "mixed": "a595451489bf4ba5 fcf73978dd1aa82f0d8ee06cac1e1f9b",
        "per tensor": "3967e082f3bc98bf e4dd056f700a000de36db6537fe7a91d",
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_models_and_fingerprints_are_what_they_were(name: str) -> None:
    found = {what: digest(model) for what, model in candidates(name).items()}
    assert found == PINNED[name]
