"""Models that compute on small multiples of powers of two, so exactly on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx_models import Maker

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.config import TensorConfig


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
    known = {op for tunable in space.tunables for op in tunable.ops}
    ops = [op.name for op in backend.capability().ops if op.name in known]
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
                op: OpConfig(
                    option.mode,
                    activation=option.activation,
                    weight=TensorConfig("int8", "sym", "per_tensor"),
                )
                for tunable in space.tunables
                for op in tunable.ops
                for option in tunable.options[:1]
                if option.weight is not None
            }
        ),
    }
    return {what: backend.quantize(config) for what, config in configs.items()}
