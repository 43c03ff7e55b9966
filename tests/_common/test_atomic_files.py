from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest

from optuna_quant._common.atomic_files import aside
from optuna_quant._common.atomic_files import remove_left_over


KILLED = """
import os, signal, sys
from pathlib import Path
from optuna_quant._common.atomic_files import aside
with aside(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path: Path, content: bytes) -> None:
    with aside(path) as file:
        file.write(content)
        file.move_to(path)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write(path, b"old")
    with aside(path) as file:
        file.write(b"n")
        assert path.read_bytes() == b"old"
        file.write(b"ew")
        assert file.tell() == 3
        file.move_to(path)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write(path, b"old")
    with pytest.raises(RuntimeError), aside(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    with aside(tmp_path / "a") as one, aside(tmp_path / "b") as other:
        one.write(b"xy")
        other.write(b"x")
        assert one.digest() != other.digest()
        other.write(b"y")
        assert one.digest() == other.digest()
        assert len(one.digest()) == 16


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files, and SIGKILL")
def test_what_a_killed_writer_has_left_is_removed_but_no_file_of_a_living_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = {file.name for file in tmp_path.iterdir()}
    assert len(left) == 1
    (tmp_path / ".model.onnx.mine.tmp").touch()  # Of somebody else's.
    with aside(path):
        remove_left_over(path, keep=None)
        names = set(os.listdir(tmp_path))
    assert not left & names
    assert len(names) == 2
