"""The command ``optuna-quant dashboard``."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from optuna_quant.cli import main
from optuna_quant.cli.exit_codes import BAD_INPUT
from optuna_quant.storages.open import open_storage


pytest.importorskip("optuna_dashboard")


def said(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["dashboard", *args]) == BAD_INPUT
    return capsys.readouterr().err


def test_a_storage_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.journal"
    assert "none.journal" in said(capsys, "--storage", str(path))
    assert not path.exists()


def test_a_study_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "s.journal")
    optuna.create_study(storage=open_storage(path), study_name="digits")
    told = said(capsys, "--storage", path, "--study-name", "digit")
    assert "there is no study 'digit' in the storage. Did you mean 'digits'?" in told


def test_the_storage_is_that_of_the_environment_or_the_only_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert "this directory has no file *.optuna_quant.journal" in said(capsys)
    optuna.create_study(storage=open_storage("a.optuna_quant.journal"), study_name="digits")
    assert "Did you mean 'digits'?" in said(capsys, "--study-name", "digit")
    monkeypatch.setenv("OPTUNA_STORAGE", "none.journal")
    assert "none.journal" in said(capsys)


@pytest.mark.parametrize("flag", ["--port=70000", "--max-parameters=-1"])
def test_a_number_out_of_its_range(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert flag.split("=")[0] in said(capsys, "--storage", "s.journal", flag)
