"""A saved answer of a module is called with tensors again, in another process as well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import subprocess
import sys
from typing import Any

import onnx
import pytest

from optuna_quant.backends.onnxruntime import OnnxRuntimeBackend
from optuna_quant.backends.onnxruntime import load_module
from optuna_quant.backends.onnxruntime.torch_export import export_module


torch = pytest.importorskip("torch")


class Net(torch.nn.Module):
    """Takes a keyword argument and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(8, 3)

    def forward(self, tokens: Any, *, mask: Any = None, scale: float = 2.0) -> dict[str, Any]:
        x = torch.relu(tokens * mask) * scale
        return {"scores": self.head(x), "parts": (x, x.sum(1))}


@dataclass
class Scores:
    scores: Any


@pytest.fixture(scope="module")
def call() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    return x, (torch.rand(64, 8, generator=generator) > 0.5).float()


@pytest.fixture(scope="module")
def backend(call: tuple[Any, Any]) -> OnnxRuntimeBackend:
    torch.manual_seed(0)
    x, mask = call
    exported = export_module(Net(), {"tokens": x, "mask": mask})
    return OnnxRuntimeBackend(
        exported, calibration_data={"tokens": x.numpy(), "mask": mask.numpy()}
    )


def test_a_saved_model_is_called_as_the_module_is(
    backend: OnnxRuntimeBackend, call: tuple[Any, Any], tmp_path: Path
) -> None:
    x, mask = call
    space = backend.tuning_space()
    for name, config in {"int8.onnx": space.default(), "fp32.onnx": space.fp32()}.items():
        model = backend.quantize(config)
        model.save(tmp_path / name)
        wanted: Any = model.native()
        loaded = load_module(tmp_path / name)
        for found in (loaded(x, mask=mask), loaded(mask=mask, tokens=x)):
            assert torch.equal(found["scores"], wanted(x, mask=mask)["scores"])
            assert isinstance(found["parts"], tuple)
            assert [each.shape for each in found["parts"]] == [(64, 8), (64,)]
        assert not loaded.training


def test_another_process_needs_no_code_of_the_module(
    backend: OnnxRuntimeBackend, call: tuple[Any, Any], tmp_path: Path
) -> None:
    path, x, mask = tmp_path / "net.onnx", *call
    model = backend.quantize(backend.tuning_space().default())
    model.save(path)
    wanted: Any = model.native()
    torch.save({"x": x, "mask": mask, "scores": wanted(x, mask=mask)["scores"]}, tmp_path / "io")
    code = (
        "import sys, torch\n"
        "from optuna_quant.backends.onnxruntime import load_module\n"
        "model, io = load_module(sys.argv[1]), torch.load(sys.argv[2])\n"
        "assert torch.equal(model(io['x'], mask=io['mask'])['scores'], io['scores'])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(tmp_path / "io")], check=True)


def test_what_is_called_in_another_way_is_refused(
    backend: OnnxRuntimeBackend, call: tuple[Any, Any], tmp_path: Path
) -> None:
    backend.quantize(backend.tuning_space().default()).save(tmp_path / "net.onnx")
    with pytest.raises(TypeError, match="exported with the arguments tokens, mask"):
        load_module(tmp_path / "net.onnx")(call[0])


def test_a_file_that_does_not_say_how_it_is_called_is_refused(
    backend: OnnxRuntimeBackend, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    backend.quantize(backend.tuning_space().default()).save(path)
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)
    with pytest.raises(ValueError, match=r"'.*net\.onnx' does not say how .*InferenceSession"):
        load_module(path)
    with pytest.raises(FileNotFoundError):
        load_module(tmp_path / "other.onnx")


def test_a_class_without_a_name_can_be_searched_but_not_loaded(tmp_path: Path) -> None:
    torch.export.register_dataclass(Scores)

    class OfClass(Net):
        def forward(self, tokens: Any) -> Any:
            return Scores(self.head(tokens))

    exported = export_module(OfClass(), torch.randn(4, 8))
    onnx.save(exported.proto, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="class without a name"):
        load_module(tmp_path / "net.onnx")
