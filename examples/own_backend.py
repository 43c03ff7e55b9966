"""A backend of one's own, whole: a small runtime, its INT8 and INT4, and a search over both.

The runtime computes chains of dense layers, which it keeps in a `.npz` file. Read from the top:
the arithmetic of a layer, the model, the backend; at the end a network and the search.

    python examples/own_backend.py

What a backend must do and what it may offer: docs/backends.md. The tests that any backend can run
are run on this one in tests/test_own_backend_example.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import io
import json
import os
from pathlib import Path
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
import optuna

import optuna_quant
from optuna_quant import OpConfig
from optuna_quant import QuantConfig
from optuna_quant import TensorConfig
from optuna_quant import TuningSpace
from optuna_quant.backends.base import OpRuns
from optuna_quant.backends.base import Sensitivity
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.backends.base import atomic_write
from optuna_quant.costs import Costs
from optuna_quant.costs import CostTable
from optuna_quant.data.inputs import InputSpec
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability
from optuna_quant.space.config import FP32


DIGITS = Path(__file__).parent / "digits"

INPUT = TensorConfig("uint8", "asym", "per_tensor")
INT8 = OpConfig("static", INPUT, TensorConfig("int8", "sym", "per_tensor"))
INT4 = OpConfig("static", INPUT, TensorConfig("int4", "sym", "per_tensor"))
OPTIONS = (INT8, INT4, FP32)  # What each layer can be; the default first.

Array = NDArray[Any]
Layer = Mapping[str, Array]  # "weight" and "bias"; if it computes in integers also the scales.


def quantized(layer: Layer, option: OpConfig, low: float, high: float) -> Layer:
    """A layer in integers, for inputs between two values."""
    assert option.weight is not None
    most = 2 ** (option.weight.bits - 1) - 1
    weight_scale = max(float(np.abs(layer["weight"]).max()) / most, 1e-12)
    weight = np.round(layer["weight"] / weight_scale).astype(np.int8)
    if option == INT4:  # Two values in each byte.
        pairs = weight.reshape(-1, 2).astype(np.uint8) & 15
        weight = pairs[:, 0] | pairs[:, 1] << 4
    low, high = min(low, 0.0), max(high, 0.0)  # So that 0 has a value of its own.
    scale = max((high - low) / 255, 1e-12)
    return {
        "weight": weight,
        "bias": layer["bias"],
        "weight_scale": np.array(weight_scale, np.float32),
        "scale": np.array(scale, np.float32),
        "zero": np.array(round(-low / scale), np.int32),
    }


def computed(layer: Layer, x: Array) -> Array:
    """What a layer gives: in floats, or by the integers that a kernel would multiply."""
    weight, bias = layer["weight"], layer["bias"]
    if "scale" not in layer:
        return np.asarray(x @ weight + bias)
    if weight.dtype == np.uint8:
        values = np.stack([weight & 15, weight >> 4], axis=1).astype(np.int8)
        weight = np.where(values > 7, values - 16, values).reshape(-1, len(bias))
    steps = np.round(x / layer["scale"]).astype(np.int32) + layer["zero"]
    integers = (np.clip(steps, 0, 255) - layer["zero"]) @ weight.astype(np.int32)
    return np.asarray(integers * (layer["scale"] * layer["weight_scale"]) + bias, np.float32)


class Network:
    """The model: dense layers with a ReLU between each two, or the file of them."""

    outputs = ("scores",)

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self.layers = layers
        self.inputs = (InputSpec("x", np.dtype(np.float32), ("batch", 64)),)
        file, arrays = io.BytesIO(), dict[str, Any]()
        for op, layer in layers.items():
            arrays |= {f"{op}.{name}": array for name, array in layer.items()}
        np.savez(file, **arrays)
        self._content = file.getvalue()
        self.nbytes = len(self._content)
        self.fingerprint = hashlib.sha256(self._content).hexdigest()

    @classmethod
    def load(cls, path: Path) -> Network:
        layers: dict[str, dict[str, Array]] = {}
        with np.load(path) as arrays:
            for key, array in arrays.items():
                op, _, name = key.rpartition(".")
                layers.setdefault(op, {})[name] = array
        return cls(layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        atomic_write(path, self._content)

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        scores = self.values(feed["x"])["scores"]
        return [scores for _ in outputs or self.outputs]

    def values(self, x: Array) -> dict[str, Array]:
        """What goes into each layer, and the scores that come out."""
        found: dict[str, Array] = {}
        for op, layer in self.layers.items():
            found[op] = np.maximum(x, 0) if found else x
            x = computed(layer, found[op])
        return {**found, "scores": x}


class DenseBackend:
    """Quantizes the layers of a network to 8 or 4 bits; ``data`` are inputs to calibrate with."""

    def __init__(self, path: Path, data: Array) -> None:
        self._fp32 = Network.load(path)
        self._data = data
        self._ranges: dict[str, tuple[float, float]] = {}

    # What every backend must have is these five methods. All others are offers.

    def capability(self) -> Capability:
        return Capability(tuple(OpCapability(op, "Dense", OPTIONS) for op in self._fp32.layers))

    def tuning_space(self, **options: Any) -> TuningSpace:
        return TuningSpace.from_capability(self.capability(), **options)

    def quantize(self, config: QuantConfig) -> Network:
        for recipe in config.recipes:
            raise ValueError(f"The network has no recipe {recipe!r}.")
        layers = dict(self._fp32.layers)
        for op, option in config.ops.items():
            if op not in layers or option not in OPTIONS:
                raise ValueError(f"The network has no op {op!r} that runs as {option}.")
            if option != FP32:
                self.calibrate()
                layers[op] = quantized(layers[op], option, *self._ranges[op])
        return Network(layers)

    def fingerprint(self, config: QuantConfig) -> str:
        return self.quantize(config).fingerprint

    def executed(self, config: QuantConfig) -> Mapping[str, OpRuns]:
        kernels = {INT8: "dense_int8", INT4: "dense_int4", FP32: "dense"}
        return {op: OpRuns(kernels[o], integer=o != FP32) for op, o in config.ops.items()}

    # A study is not continued with other calibration data.

    def signature(self) -> Mapping[str, str]:
        return {"calibration data": hashlib.sha256(self._data.tobytes()).hexdigest()}

    # Where calibration takes minutes, one worker does it for all; here it takes a moment.

    def calibrate(self) -> None:
        if not self._ranges:
            values = self._fp32.values(self._data)
            self._ranges = {op: (float(x.min()), float(x.max())) for op, x in values.items()}

    def is_calibrated(self) -> bool:
        return bool(self._ranges)

    def calibration_key(self) -> str:
        return f"{self._fp32.fingerprint} {self.signature()}"

    def export_calibration(self) -> bytes:
        self.calibrate()
        return json.dumps([self.calibration_key(), self._ranges]).encode()

    def import_calibration(self, data: bytes) -> None:
        key, ranges = json.loads(data)  # A ValueError if it is damaged.
        if key != self.calibration_key():
            raise ValueError("This is the calibration of another network or other data.")
        self._ranges = {op: (low, high) for op, (low, high) in ranges.items()}

    # Scores tell a search which layers to be careful with before it has evaluated any.

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        made = SensitivityFactory(self._output_errors)
        return {SensitivityKind.BEST: made, SensitivityKind.OUTPUT_ERROR: made}

    def _output_errors(self, *, outputs: Sequence[str] | None) -> Sensitivity:
        feed = {"x": self._data}
        (fp32,) = self._fp32.run(feed)

        def score(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
            """The error of the outputs if one layer is quantized, over their variance."""
            alone = {op: self.quantize(QuantConfig({op: config.ops[op]})) for op in ops}
            squares = {op: (model.run(feed)[0] - fp32) ** 2 for op, model in alone.items()}
            return {op: float(square.mean() / fp32.var()) for op, square in squares.items()}

        return score

    # What each option takes in the file. Of times nothing is known: NumPy has no fast integers.

    def counted_costs(self, space: TuningSpace) -> Costs:
        whole = self._fp32.nbytes
        own = {op: layer["weight"].nbytes for op, layer in self._fp32.layers.items()}
        sizes = {}
        for op in own:
            models = {o.label: self.quantize(QuantConfig({op: o})) for o in OPTIONS}
            sizes[op] = {o: model.nbytes - whole + own[op] for o, model in models.items()}
        fixed = whole - sum(own.values())
        return Costs({"size": CostTable("size", "bytes", sizes, fixed=fixed)})


def images_and_digits(file: str) -> tuple[Array, Array]:
    with np.load(DIGITS / file) as data:
        return data["x"].reshape(-1, 64), data["y"]


def network() -> Network:
    """Two layers of random weights, and one that is fitted to the digits by least squares."""
    x, digits = images_and_digits("calib.npz")
    rng = np.random.default_rng(3)
    layers: dict[str, dict[str, Array]] = {}
    for op, n, m in (("first", 64, 384), ("second", 384, 256), ("last", 256, 10)):
        weight = rng.normal(0, (2 / n) ** 0.5, (n, m)).astype(np.float32)
        layers[op] = {"weight": weight, "bias": np.zeros(m, np.float32)}
    into = Network(layers).values(x)["last"]
    fit = np.linalg.solve(into.T @ into + 10 * np.eye(256), into.T @ np.eye(10)[digits])
    layers["last"]["weight"] = fit.astype(np.float32)
    return Network(layers)


def main() -> optuna_quant.TuningResult:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    calibration, _ = images_and_digits("calib.npz")
    images, digits = images_and_digits("eval.npz")
    with tempfile.TemporaryDirectory() as folder:
        fp32, smaller = Path(folder) / "fp32.npz", Path(folder) / "smaller.npz"
        network().save(fp32)
        result = optuna_quant.tune(
            backend=DenseBackend(fp32, calibration),
            data=({"x": images}, digits),
            metric="accuracy",
            tolerable_loss=0.01,
            output=smaller,
        )
        print(result)
        for op, layer in Network.load(smaller).layers.items():
            print(op, layer["weight"].dtype, layer["weight"].nbytes, "bytes")
    return result


if __name__ == "__main__":
    main()
