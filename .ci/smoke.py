"""Try the installed package, with the extra that is named or with none (``core``)."""

from __future__ import annotations

from collections.abc import Callable
import importlib
import importlib.util
from pathlib import Path
import subprocess
import sys
import tempfile
from typing import Any

import optuna

import optuna_quant
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.space.capability import Capability
from optuna_quant.space.capability import OpCapability


LOSS = {"a": 0.0, "b": 0.1, "c": 0.0}
INT8 = "static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"


def space() -> optuna_quant.TuningSpace:
    options = tuple(map(optuna_quant.OpConfig.from_label, (INT8, "fp32")))
    ops = tuple(OpCapability(name, "Conv", options) for name in LOSS)
    return optuna_quant.TuningSpace.from_capability(Capability(ops))


def core() -> None:
    """A study of a hand-made space, and errors that name what is missing."""
    assert "site-packages" in str(optuna_quant.__file__), optuna_quant.__file__
    tuning = space()

    def objective(trial: optuna.Trial) -> float:
        return 0.9 - sum(LOSS[op] for op in tuning.suggest(trial).quantized_ops)

    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(tuning))
    study.optimize(objective, n_trials=12)
    found = [tuning.config_from_params(t.params).fallback_ops for t in study.trials if t.params]
    assert ("b",) in found, found
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(b"no model")
        needs("onnx", lambda: optuna_quant.quantize(model))
    needs("dashboard", lambda: importlib.import_module("optuna_quant.dashboard").publish(study))
    command = [Path(sys.executable).parent / "optuna-quant", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert optuna_quant.__version__ in told, told


def needs(extra: str, call: Callable[[], Any]) -> None:
    """Check that a call without an extra says which one to install."""
    try:
        call()
    except ImportError as error:
        assert f"optuna_quant[{extra}]" in str(error), error
    else:
        raise AssertionError(f"It ran without the extra {extra!r}.")


def onnx() -> None:
    """A model is quantized, and runs."""
    import numpy as np
    from onnx import TensorProto
    from onnx import helper

    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    graph = helper.make_graph(
        [node],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor("w", TensorProto.FLOAT, (8, 8), weight.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batches = [{"x": np.random.default_rng(i).normal(size=(4, 8)).astype("f4")} for i in range(4)]
    built = optuna_quant.quantize(model, calibration_data=batches)
    assert built.is_quantized


def metrics() -> None:
    """A metric of scikit-learn is there."""
    importlib.import_module("sklearn.metrics")


def dashboard() -> None:
    """A study is published."""
    from optuna_quant.dashboard import publish

    study = optuna.create_study(direction="maximize")
    publish(study)
    assert study.metric_names == ["metric"]


def plot() -> None:
    """The plots can be imported, and what they draw with is there."""
    importlib.import_module("optuna_quant.visualization")
    importlib.import_module("plotly")
    importlib.import_module("matplotlib")


def report() -> None:
    """What reports need is there."""
    importlib.import_module("optuna_quant.report")
    importlib.import_module("jinja2")


def images() -> None:
    """Images can be read."""
    importlib.import_module("PIL.Image")


def distributed() -> None:
    """The drivers are there."""
    for module in ("psycopg2", "pymysql", "redis", "grpc"):
        importlib.import_module(module)


def dask() -> None:
    """Dask's storage is there."""
    importlib.import_module("optuna_integration").DaskStorage  # noqa: B018


def torch() -> None:
    """PyTorch is there."""
    importlib.import_module("torch")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = sys.argv[1]
    globals()[name]()
    print(f"{name}: works")
