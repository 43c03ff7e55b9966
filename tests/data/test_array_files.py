"""What is said of a file of arrays that cannot be read; all who read one say it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re
import zipfile

import numpy as np
import pytest

from optuna_quant.backends.calibration.data import CalibrationData
from optuna_quant.data.array_files import npz_names
from optuna_quant.data.array_files import read_npy
from optuna_quant.data.array_files import read_npz
from optuna_quant.data.inputs import InputSpec
from optuna_quant.evaluation.labelled import DataEvaluation


X = np.arange(3000, dtype=np.float32).reshape(1000, 3)


def whole(path: Path) -> bytes:
    np.savez_compressed(path, x=np.random.default_rng(0).random((1000, 3)).astype(np.float32))
    return path.read_bytes()


def cut_off(path: Path) -> None:
    path.write_bytes(whole(path)[:-100])


def damaged(path: Path) -> None:
    content = bytearray(whole(path))
    content[2000:2040] = bytes(40)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, X)


def pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def text(path: Path) -> None:
    path.write_text("x,y\n1,2\n")


def objects(path: Path) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(2), np.zeros(3)]
    np.savez(path, x=ragged)


def other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "no array")


FILES: list[tuple[Callable[[Path], None], str]] = [
    (cut_off, "it is damaged or truncated (File is not a zip file); copy or write it again."),
    (damaged, "its array 'x' is damaged or truncated"),
    (empty, "it is empty; write it again with np.savez(FILE, NAME=array)."),
    (one_array, "it holds one array, like an .npy file, whatever its name; write it with"),
    (pointer, "it is a Git LFS pointer, not the data; run: git lfs pull."),
    (text, "it is not an .npz file, whatever its name; write it with np.savez(FILE, NAME=array)."),
    (objects, "its array 'x' holds Python objects instead of numbers"),
    (other_archive, "its member 'x' is not an array"),
]


@pytest.mark.parametrize(("make", "reason"), FILES)
@pytest.mark.parametrize("what", ["The calibration data", "The evaluation data"])
def test_a_bad_file_is_named_with_the_reason(
    make: Callable[[Path], None], reason: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npz"
    make(path)
    with pytest.raises(ValueError, match=re.escape(f"{what} {str(path)!r} cannot be read: ")) as e:
        if what == "The calibration data":
            CalibrationData(path, [InputSpec("x", np.dtype(np.float32), ("n", 3))])
        else:
            DataEvaluation(path)
    assert reason in str(e.value)


def test_good_files_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=X[:, 0], z=np.array(["a", "b"]))
    assert npz_names(tmp_path / "a.npz", "The data") == ["x", "y", "z"]
    found = read_npz(tmp_path / "a.npz", "The data", ["z", "x", "none"])
    assert list(found) == ["x", "z"]
    np.testing.assert_array_equal(found["x"], X)
    assert list(read_npz(tmp_path / "a.npz", "The data")) == ["x", "y", "z"]
    np.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy", "The data"), X)


def test_there_is_no_file_or_it_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"The data '.*no\.npz': there is no such file"):
        read_npz(tmp_path / "no.npz", "The data")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory"):
        read_npz(tmp_path, "The data")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty; write it again with np.save(FILE, array)."),
        (b"PK\x03\x04", "it is a zip archive, like an .npz file; write it with np.save(FILE"),
        (b"nothing", "it is not an .npy file, whatever its name"),
        (b"\x93NUMPY\x01\x00", "it is damaged or truncated"),
    ],
)
def test_a_bad_npy_file_is_named_with_the_reason(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"The data '.*x\.npy' cannot be read: ") as e:
        read_npy(path, "The data")
    assert reason in str(e.value)
