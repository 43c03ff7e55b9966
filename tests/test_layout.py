"""Tests are laid out like the package: those of a module are in the folder of the same name."""

from __future__ import annotations

from pathlib import Path

from places import ROOT
from places import TESTS

import optuna_quant


PACKAGE = Path(optuna_quant.__file__).parent

OTHERS = {
    "faults": "whole searches whose workers are killed or hang",
    "benchmarks": "the repository's folder of that name",
}
"""Folders of tests that are not of one folder of the package."""


def folders_of_tests() -> set[str]:
    return {str(path.parent.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}


def strangers(folders: set[str]) -> set[str]:
    """The folders that are neither of the package nor among the exceptions."""
    return {each for each in folders if not (PACKAGE / each).is_dir() and each not in OTHERS}


def test_the_folders_of_tests_are_those_of_the_package() -> None:
    assert strangers(folders_of_tests()) == set()


def test_every_exception_is_needed() -> None:
    assert folders_of_tests() >= OTHERS.keys()
    assert not any((PACKAGE / each).is_dir() for each in OTHERS)
    assert (ROOT / "benchmarks").is_dir()


def test_a_folder_of_another_name_is_found() -> None:
    assert strangers({"space", "spaces", "samplers/_plans", "samplers/plans"}) == {
        "spaces",
        "samplers/plans",
    }
