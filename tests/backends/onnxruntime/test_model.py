from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx_models import Maker
from onnx_models import convnet
import pytest

from optuna_quant.backends.onnxruntime.external_data import save_model
from optuna_quant.backends.onnxruntime.external_data import total_bytes
from optuna_quant.backends.onnxruntime.model import external_location
from optuna_quant.backends.onnxruntime.model import external_tensors
from optuna_quant.backends.onnxruntime.model import load_model


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
        (LFS_POINTER, "it is a pointer of Git LFS, not the model; run: git lfs pull"),
        (b"PK\x03\x04" + bytes(30), "it is a zip archive, as PyTorch writes its checkpoints"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "it is an HDF5 file, as Keras writes its models"),
        (b"\x80\x02}q\x00X\x05\x00\x00", "it is a Python pickle"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(9), "it is a TensorFlow Lite model"),
        (b"\x1c\x00\x00\x00ORTM" + bytes(9), "it is in the ORT format"),
        (b"<!DOCTYPE html><html>", "it is text (HTML, XML or JSON), perhaps an error page"),
        (b"no model at all", "it is another kind of file, damaged, or was cut off"),
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
    with pytest.raises(ValueError, match=r"half.onnx' is not an ONNX model: .* was cut off; exp"):
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
    with pytest.raises(ValueError, match=r"weights\.bin' .*It is a pointer of Git LFS; run: git"):
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
    expected = ["saved.onnx"] if largest > 2000 else ["saved.onnx", "saved.onnx.data"]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == expected
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
