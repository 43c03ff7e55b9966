"""The list of the versions of the documentation."""

from __future__ import annotations

from pathlib import Path
import sys

import pytest


sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "docs"))

import versions


def build(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "index.html").write_text(name)


def test_the_newest_release_comes_first_and_is_where_the_index_leads(tmp_path: Path) -> None:
    build(tmp_path, "0.9.0", "0.10.0", "0.11.0.dev1", "_static")
    (tmp_path / "0.12.0").mkdir()  # Its build has failed.
    assert versions.found(tmp_path) == ["0.10.0", "0.9.0", "0.11.0.dev1"]
    versions.main([str(tmp_path)])
    assert "url=0.10.0/index.html" in (tmp_path / "index.html").read_text()
    script = (tmp_path / "versions.js").read_text()
    assert '["0.10.0", "0.9.0", "0.11.0.dev1"]' in script
    assert "{{" not in script


def test_a_folder_without_documentation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no documentation of any version"):
        versions.main([str(tmp_path)])


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    from optuna_quant import __version__

    versions.main([])
    assert capsys.readouterr().out.strip() == __version__
