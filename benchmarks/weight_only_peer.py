"""GPTQ and AWQ beside those of onnx-neural-compressor 1.0, on the same weights and inputs.

Error, time and the most memory of quantizing the weight of one product to 4 bits in groups of 32,
asymmetric, both at the level of models. It needs the peer, which works without the versions that
it pins: ``pip install --no-deps onnx-neural-compressor==1.0``, and ``pip install prettytable
py-cpuinfo psutil pydantic``. With ``--cases`` the products of ``fashion_vit`` are quantized too.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import io
from pathlib import Path
import sys
import time
import tracemalloc
import types

import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import helper
from onnx import numpy_helper
import onnxruntime

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.space.config import OpConfig
from optuna_quant.space.config import QuantConfig


SHAPES = ((768, 768), (768, 3072), (3072, 768))
SAMPLES = 512
PRODUCT = "product"
Floats = NDArray[np.float32]


def product(weight: Floats) -> onnx.ModelProto:
    """A model of one MatMul with a weight of shape (inputs, outputs)."""
    sizes = ["N", weight.shape[0]], ["N", weight.shape[1]]
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in zip("xy", sizes, strict=True)
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name=PRODUCT)
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def correlated(samples: int, inputs: int, rng: np.random.Generator) -> Floats:
    """Inputs that hang together, with some large channels, as those of transformers."""
    hidden = rng.standard_normal((samples, inputs // 4))
    mixed = hidden @ rng.standard_normal((inputs // 4, inputs)) / np.sqrt(inputs // 4)
    scale = np.where(rng.random(inputs) < 0.02, 10.0, 1.0)
    noise = 0.3 * rng.standard_normal((samples, inputs))
    return np.asarray((mixed + noise) * scale, np.float32)


def ours(weight: Floats, x: Floats, algorithm: str) -> onnx.ModelProto:
    backend = OnnxRuntimeBackend(
        product(weight), calibration_data={"x": x}, approach="weight_only"
    )
    label = f"weight_only w=int4/asym/per_group=32/{algorithm} level=0"
    return backend.quantize(QuantConfig({PRODUCT: OpConfig.from_label(label)})).proto


def theirs(weight: Floats, x: Floats, algorithm: str) -> onnx.ModelProto:
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.algorithms.weight_only import awq
    from onnx_neural_compressor.algorithms.weight_only import gptq

    class Reader(data_reader.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Floats] | None:
            return next(self._batches, None)

        def rewind(self) -> None:
            self._batches = iter([{"x": x}])

    config = {
        PRODUCT: {
            "weight_dtype": "int",
            "weight_bits": 4,
            "weight_group_size": 32,
            "weight_sym": False,
            "accuracy_level": 0,
        }
    }
    quantize = gptq.gptq_quantize if algorithm == "gptq" else awq.awq_quantize
    with contextlib.redirect_stdout(io.StringIO()):  # A progress bar.
        found = quantize(product(weight), Reader(), config)
    return getattr(found, "model", found)


def error_of(model: onnx.ModelProto, weight: Floats, x: Floats) -> float:
    """The squared error of the product's results, over their square."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    exact = x.astype(np.float64) @ weight
    (found,) = session.run(None, {"x": x})
    return float(np.square(found - exact).sum() / np.square(exact).sum())


def measured(
    quantize: Callable[[Floats, Floats, str], onnx.ModelProto],
    weight: Floats,
    calibration: Floats,
    held_out: Floats,
    algorithm: str,
) -> tuple[float, float, float]:
    """The error on inputs that were not seen, the CPU seconds, and the most memory in MB."""
    started = time.process_time()
    model = quantize(weight, calibration, algorithm)
    seconds = time.process_time() - started
    error = error_of(model, weight, held_out)
    tracemalloc.start()
    quantize(weight, calibration, algorithm)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return error, seconds, peak


def weights_of(model: Path) -> Iterator[tuple[str, Floats]]:
    """The weights of a model's products, one of each shape."""
    seen = set()
    for tensor in onnx.load(model).graph.initializer:
        shape = tuple(tensor.dims)
        if len(shape) == 2 and min(shape) >= 64 and shape not in seen:
            seen.add(shape)
            yield tensor.name, np.asarray(numpy_helper.to_array(tensor), np.float32)


def run(cases: Path | None) -> None:
    # The peer imports it, and uses nothing of it here.
    sys.modules.setdefault("transformers", types.ModuleType("transformers"))
    try:
        import onnx_neural_compressor  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}; see the docstring of benchmarks/weight_only_peer.py")
        return
    rng = np.random.default_rng(0)
    weights = [
        (f"random {k}x{n}", np.asarray(rng.standard_normal((k, n)) / np.sqrt(k), np.float32))
        for k, n in SHAPES
    ]
    if cases is not None:
        weights += list(weights_of(cases / "fashion_vit" / "model.onnx"))
    print("weight | algorithm | error, ours / peer | CPU seconds, ours / peer | MB, ours / peer")
    for name, weight in weights:
        x = correlated(2 * SAMPLES, weight.shape[0], rng)
        parts = x[:SAMPLES], x[SAMPLES:]
        rtn = error_of(ours(weight, parts[0], "rtn"), weight, parts[1])
        print(f"{name} | rtn | {rtn:.3e} | |")
        for algorithm in ("gptq", "awq"):
            mine = measured(ours, weight, *parts, algorithm)
            try:
                peer = measured(theirs, weight, *parts, algorithm)
            except Exception as error:  # With an odd number of groups its model does not load.
                print(
                    f"{name} | {algorithm} | {mine[0]:.3e} / no model | {type(error).__name__} |"
                )
                continue
            (a, b), (s, t), (m, p) = zip(mine, peer, strict=True)
            print(
                f"{name} | {algorithm} | {a:.3e} / {b:.3e} | {s:.2f} / {t:.2f} | {m:.0f} / {p:.0f}"
            )
