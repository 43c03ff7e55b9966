from __future__ import annotations

from pathlib import Path
import re
import signal
import sys

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import convnet
import pytest
from zygote import Zygote

from optuna_quant.backends.onnxruntime.model.external_data import save_model
from optuna_quant.backends.onnxruntime.model.external_data import total_bytes
from optuna_quant.backends.onnxruntime.model.model import external_location
from optuna_quant.backends.onnxruntime.model.model import external_tensors
from optuna_quant.backends.onnxruntime.model.model import load_model


def save_apart(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with all its data in a file beside it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "proto"])
def test_load_model_takes_every_kind(kind: str, tmp_path: Path) -> None:
    model = convnet()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    given = {"str": str(path), "path": path, "bytes": path.read_bytes(), "proto": model}[kind]
    source = load_model(given)
    assert source.proto == model
    assert source.proto is not model
    assert source.base_dir is None
    assert source.opset == 17


def test_load_model_without_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model file .*missing\.onnx"):
        load_model(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match="is not a file"):
        load_model(tmp_path)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; export or download it again"),
        (LFS_POINTER, "it is a Git LFS pointer, not the model; run: git lfs pull"),
        (b"PK\x03\x04" + bytes(30), "it is a zip archive, such as a PyTorch checkpoint"),
        (b"PK\x03\x04" + bytes(9) + b"model.weights.h5", "it is a Keras model; export it with"),
        (b"\x0a\x02saved_model_main_op", "it is a TensorFlow SavedModel; convert its folder"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "it is an HDF5 file, such as a Keras model"),
        (b"\x80\x02}q\x00X\x05\x00\x00", "it is a Python pickle"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(9), "it is a TensorFlow Lite model"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(9), "it is in the ORT format"),
        (b"<!DOCTYPE html><html>", "it is text (HTML, XML or JSON), perhaps an error page"),
        (b"no model at all", "it is another kind of file, or is damaged or truncated"),
    ],
)
def test_load_model_of_other_content(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    for model, name in ((content, "The model"), (path, f"Model {str(path)!r}")):
        with pytest.raises(ValueError, match="is not an ONNX model: ") as raised:
            load_model(model)
        assert str(raised.value).startswith(f"{name} is not an ONNX model: {reason}")


def test_load_model_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(convnet().SerializeToString()[:-200])
    with pytest.raises(ValueError, match=r"half.onnx' is not an ONNX model: .* truncated; exp"):
        load_model(path)


def test_load_model_without_nodes() -> None:
    with pytest.raises(ValueError, match="The model has no nodes"):
        load_model(onnx.ModelProto(ir_version=7))
    with pytest.raises(ValueError, match="The model has no nodes"):
        load_model(b"\x08\x07")


def test_load_model_of_other_type() -> None:
    with pytest.raises(TypeError, match="path, bytes or an onnx.ModelProto, but got int"):
        load_model(3)  # type: ignore[arg-type]


def test_load_model_too_old() -> None:
    model = convnet()
    model.opset_import[0].version = 9
    with pytest.raises(ValueError, match="has opset 9, but quantization needs at least 10"):
        load_model(model)


def test_small_external_data_are_loaded(tmp_path: Path) -> None:
    save_apart(convnet(), tmp_path / "model.onnx")
    source = load_model(tmp_path / "model.onnx")
    assert source.base_dir is None
    assert not list(external_tensors(source.proto))
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in convnet().graph.initializer}
    for tensor in source.proto.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), expected[tensor.name])


def test_large_external_data_are_referred_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_apart(convnet(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    source = load_model("model.onnx", in_memory_bytes=100)
    assert source.base_dir == tmp_path
    assert len(list(external_tensors(source.proto))) == len(convnet().graph.initializer)


def test_external_data_need_a_path(tmp_path: Path) -> None:
    save_apart(convnet(), tmp_path / "model.onnx")
    for model in (
        (tmp_path / "model.onnx").read_bytes(),
        onnx.load(tmp_path / "model.onnx", load_external_data=False),
    ):
        with pytest.raises(ValueError, match="are in another file; pass the path"):
            load_model(model)


def test_incomplete_external_data(tmp_path: Path) -> None:
    save_apart(convnet(), tmp_path / "model.onnx")
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data of tensor .* are incomplete"):
        load_model(tmp_path / "model.onnx")
    weights.write_bytes(LFS_POINTER)
    with pytest.raises(ValueError, match=r"weights\.bin' .*It is a Git LFS pointer; run: git"):
        load_model(tmp_path / "model.onnx")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"data of tensor .* are missing"):
        load_model(tmp_path / "model.onnx")


def test_external_tensors_in_subgraphs_are_found() -> None:
    m = Maker()
    x = m.input("x", ["N", 2])
    inner = Maker()
    inner.node("Add", [x, inner.weight(2, name="inner")], outputs=["sum"])
    branch = inner.model(["sum"]).graph
    (tensor,) = branch.initializer
    tensor.data_location = onnx.TensorProto.EXTERNAL
    condition = m.const(np.array(True))
    y = m.node("If", [condition], then_branch=branch, else_branch=branch)
    names = [tensor.name for tensor in external_tensors(m.model([y]))]
    assert names == ["inner", "inner"]


def test_external_location_without_length(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"0123456789")
    tensor = onnx.TensorProto(name="w")
    for key, value in (("location", "weights.bin"), ("offset", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    place = external_location(tensor, tmp_path)
    assert (place.offset, place.length) == (4, 6)


def wide() -> onnx.ModelProto:
    m = Maker()
    x = m.input("x", ["N", 32])
    return m.model([m.node("Gemm", [x, m.weight(32, 32), m.weight(32)])])


@pytest.mark.parametrize("largest", [1 << 30, 2000])
@pytest.mark.parametrize("apart", [False, True])
def test_save_model_keeps_content(tmp_path: Path, apart: bool, largest: int) -> None:
    model, folder = wide(), None
    if apart:
        folder = tmp_path / "source"
        folder.mkdir()
        save_apart(model, folder / "model.onnx")
        model = onnx.load(folder / "model.onnx", load_external_data=False)
    before = model.SerializeToString()
    path = tmp_path / "saved.onnx"
    save_model(model, path, folder, largest=largest)
    expected = r"saved\.onnx" if largest > 2000 else r"saved\.onnx saved\.onnx\.[0-9a-f]{16}\.data"
    found = sorted(p.name for p in tmp_path.iterdir() if p.is_file())
    assert re.fullmatch(expected, " ".join(found))
    assert model.SerializeToString() == before
    loaded, original = onnx.load(path), wide()
    assert loaded.graph.node == original.graph.node
    for tensor, wanted in zip(loaded.graph.initializer, original.graph.initializer, strict=True):
        assert tensor.name == wanted.name
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(tensor), onnx.numpy_helper.to_array(wanted)
        )
    assert total_bytes(model, folder) >= wide().ByteSize()


def test_save_model_leaves_the_old_file_if_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "saved.onnx"
    path.write_bytes(b"old")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(convnet(), path, None)
    assert [p.name for p in tmp_path.iterdir()] == ["saved.onnx"]
    assert path.read_bytes() == b"old"


SAVE = """
import os, signal, sys
from pathlib import Path
import onnx
from optuna_quant.backends.onnxruntime.model.external_data import save_model

folder, last = Path(sys.argv[1]), int(sys.argv[2])

def counted(name):
    real = getattr(os, name)
    def call(*args):
        global last
        if not last:
            os.kill(os.getpid(), signal.SIGKILL)
        last -= 1
        return real(*args)
    return call

for name in ("fsync", "replace"):
    setattr(os, name, counted(name))
save_model(onnx.load(folder / "new.onnx"), folder / "out" / "x.onnx", None, largest=2000)
"""


def forked(zygote: Zygote, script: str, *arguments: object) -> int:
    """Start a script in a process of its own."""
    given = list(map(str, arguments))
    return zygote.start("forked_scripts:execute", script=script, arguments=given)


def variant(value: float) -> onnx.ModelProto:
    model = wide()
    for tensor in model.graph.initializer:
        array = np.full(onnx.numpy_helper.to_array(tensor).shape, value, np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def values(path: Path) -> set[float]:
    """The weights of a model, read as its users do."""
    loaded = onnx.load(path)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer]
    return {float(value) for array in arrays for value in array.flat}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_save_model_that_is_killed_leaves_the_old_or_the_new_one(
    zygote: Zygote, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    path = out / "x.onnx"
    onnx.save(variant(2.0), tmp_path / "new.onnx")
    found = []
    for step in range(20):
        save_model(variant(1.0), path, None, largest=2000)
        status, errors = zygote.wait(forked(zygote, SAVE, tmp_path, step))
        found += values(path)
        if status == 0:
            break
        assert status == -signal.SIGKILL, errors
    # Killed before it was in place, and killed after it.
    assert found == [1.0] * 5 + [2.0] * 2
    save_model(variant(3.0), path, None, largest=2000)
    assert values(path) == {3.0}
    assert len(list(out.iterdir())) == 2
    save_model(variant(4.0), path, None)
    assert [file.name for file in out.iterdir()] == ["x.onnx"]


SAVE_AGAIN = """
import sys
from pathlib import Path
import onnx
from optuna_quant.backends.onnxruntime.model.external_data import save_model

model = onnx.load(sys.argv[1])
for _ in range(60):
    save_model(model, Path(sys.argv[2]), None, largest=2000)
"""


def test_save_model_of_several_processes_at_once(zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "x.onnx"
    models = [tmp_path / f"{value}.onnx" for value in (1, 2, 3)]
    for value, model in enumerate(models):
        onnx.save(variant(float(value)), model)
    running = [forked(zygote, SAVE_AGAIN, model, path) for model in models]
    assert zygote.join(*running) == [0, 0, 0]
    assert len(values(path)) == 1
    save_model(variant(4.0), path, None, largest=2000)
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("name", ["Module", "ExportedProgram"])
def test_load_model_of_torch_says_how_to_export_it(name: str) -> None:
    of_torch = type(name, (), {"__module__": "torch.nn.modules.module"})
    own = type("ResNet", (of_torch,), {"__module__": "train"})
    with pytest.raises(TypeError, match=r"got ResNet. It is a model of PyTorch: export it with"):
        load_model(own())
