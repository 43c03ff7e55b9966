"""Try the installed package, with the extra that is named or with none (``core``)."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import importlib
import io
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


EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LOSS = {"a": 0.0, "b": 0.1, "c": 0.0}
INT8 = "static a=uint8/asym/per_tensor/minmax w=int8/sym/per_channel/minmax"


def space() -> optuna_quant.TuningSpace:
    options = tuple(map(optuna_quant.OpConfig.from_label, (INT8, "fp32")))
    ops = tuple(OpCapability(name, "Conv", options) for name in LOSS)
    return optuna_quant.TuningSpace.from_capability(Capability(ops))


def own_backend() -> Any:
    """The backend of the examples."""
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("own_backend")


def searched() -> optuna_quant.TuningResult:
    """A search with the backend of the examples, which needs NumPy alone."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result: optuna_quant.TuningResult = own_backend().main()
    assert result.met and result.config is not None and result.config.quantized_ops
    return result


def core() -> None:
    """A study of a hand-made space, a search, and errors that name what is missing."""
    assert "site-packages" in str(optuna_quant.__file__), optuna_quant.__file__
    tuning = space()

    def objective(trial: optuna.Trial) -> float:
        return 0.9 - sum(LOSS[op] for op in tuning.suggest(trial).quantized_ops)

    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(tuning))
    study.optimize(objective, n_trials=12)
    found = [tuning.config_from_params(t.params).fallback_ops for t in study.trials if t.params]
    assert ("b",) in found, found
    searched()
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
    """A search by a metric of scikit-learn."""
    from optuna_quant.evaluation.metrics.library import library_metric_names

    metric = "balanced_accuracy"
    assert metric in library_metric_names(), "it no longer needs what the extra installs"
    example = own_backend()
    images, digits = example.images_and_digits("eval.npz")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fp32.npz"
        example.network().save(path)
        backend = example.DenseBackend(path, images)
    options: dict[str, Any] = {"max_trials": 2, "show_progress": False}
    result = optuna_quant.tune(
        backend=backend, data=({"x": images}, digits), metric=metric, **options
    )
    assert result.baseline is not None and 0.5 < result.baseline < 1.0, result.baseline


def dashboard() -> None:
    """A study is published."""
    from optuna_quant.dashboard import publish

    study = searched().study
    publish(study)
    assert study.metric_names == ["accuracy"], study.metric_names


def plot() -> None:
    """A plot is drawn as a page and as a picture."""
    from optuna_quant.visualization.plots import save_plot

    study = searched().study
    with tempfile.TemporaryDirectory() as folder:
        for file in (Path(folder) / "plot.html", Path(folder) / "plot.png"):
            save_plot(study, "tradeoff", file)
            assert file.stat().st_size > 1000


def report() -> None:
    """A report is written as a page."""
    from optuna_quant.report import save_report

    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        save_report(searched(), page)
        assert "second" in page.read_text(encoding="utf-8")


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
    """A module is quantized for PyTorch, and computes."""
    import torch

    from optuna_quant.backends.torch import TorchBackend

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    x = torch.randn(32, 8).numpy()
    backend = TorchBackend(module, (torch.randn(2, 8),), calibration_data=x)
    config = backend.tuning_space().default()
    assert len(config.quantized_ops) == 2, config
    model = backend.quantize(config)
    (found,) = model.run({model.inputs[0].name: x})
    assert found.shape == (32, 4)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = sys.argv[1]
    globals()[name]()
    print(f"{name}: works")
