"""Files of models are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path
import stat

import pytest

from optuna_quant.backends.base import atomic_write


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask.")
def test_a_file_has_the_permissions_of_new_files(tmp_path: Path) -> None:
    path = tmp_path / "model"
    before = os.umask(0o027)
    try:
        atomic_write(path, b"one")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model"
    atomic_write(str(path), b"one")
    with pytest.raises(TypeError):
        atomic_write(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
