"""What was trained is kept in a folder of the process that trained it."""

from __future__ import annotations

import gc
import os
from pathlib import Path
import tempfile

import pytest


pytest.importorskip("torch")

from optuna_quant.backends.torch.qat.kept import KeptTrainings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_goes_with_what_keeps_in_it(folder: Path) -> None:
    kept = KeptTrainings()
    kept.get("a", lambda: b"1", nbytes=1)
    assert len(list(folder.iterdir())) == 1
    del kept
    gc.collect()
    assert not list(folder.iterdir())


def test_another_process_leaves_the_folder_of_the_one_it_was_forked_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = KeptTrainings()
    kept.get("a", lambda: b"1", nbytes=1)
    with monkeypatch.context() as child:
        # As after a fork: the same objects, with another number.
        number = os.getpid() + 1
        child.setattr(os, "getpid", lambda: number)
        assert kept.find("a") is None
        assert kept.get("b", lambda: b"2", nbytes=1) == b"2"
        gc.collect()
        assert len(list(folder.iterdir())) == 2
        del kept
        gc.collect()
        (left,) = folder.iterdir()
    assert [each.read_bytes() for each in left.iterdir()] == [b"1"]
