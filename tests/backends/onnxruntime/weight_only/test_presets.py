"""The pre-defined settings of weight-only quantization, in neural-compressor's order."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_models import Maker

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend


WIDTH = 160


def model() -> onnx.ModelProto:
    b = Maker()
    tokens = b.input("tokens", ["n"], onnx.TensorProto.INT64)
    h = b.node("Gather", [b.weight(40, WIDTH), tokens], axis=0)
    h = b.node("Relu", [b.node("MatMul", [h, b.weight(WIDTH, 48)])])
    return b.model([b.node("Gemm", [h, b.weight(48, 8)])])


def backend(**data: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(model(), approach="weight_only", **data)


def test_names_order_and_options() -> None:
    space = backend(calibration_data={"tokens": np.arange(40)}).tuning_space()
    found = {
        name: [option.label for option in config.ops.values()]
        for name, config in {"default": space.default(), **space.preset_configs()}.items()
    }
    table = "weight_only w=int4/asym/per_group=32/rtn"
    rtn, gptq, awq = (
        f"weight_only w=int4/asym/per_group=32/{name} level=4" for name in ALGORITHMS
    )
    wide = gptq.replace("=32", "=128")
    assert [preset.name for preset in space.presets] == ["RTN_G32ASYM", *list(found)[1:]]
    assert found == {
        "default": [table, rtn, rtn],
        "GPTQ_G32ASYM": [table, gptq, gptq],
        "GPTQ_G32ASYM_DISABLE_LAST_MATMUL": [table, gptq, "fp32"],
        # The second weight has 48 inputs, fewer than such a group.
        "GPTQ_G128ASYM": [table, wide, gptq],
        "AWQ_G32ASYM": [table, awq, awq],
    }


def test_without_data_there_is_the_default_alone() -> None:
    space = backend().tuning_space()
    assert [preset.name for preset in space.presets] == ["RTN_G32ASYM"]
    assert not space.preset_configs()


def test_only_where_weights_alone_are_quantized() -> None:
    other = OnnxRuntimeBackend(
        model(), approach="auto", calibration_data={"tokens": np.arange(40)}
    )
    assert not other.tuning_space().presets


ALGORITHMS = ("rtn", "gptq", "awq")
