"""Tests are laid out like the package, a folder for a folder; and no class of it is too long."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

from parsed import nodes_of
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


LONGEST_CLASS = 300
"""Lines, docstrings included. A longer class has more than one reason to change."""


def classes(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """The classes of a module, and how many lines each has."""
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_class_is_too_long() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {name}": lines
        for path in PACKAGE.rglob("*.py")
        for name, lines in classes(nodes_of(path))
    }
    assert {name: lines for name, lines in found.items() if lines > LONGEST_CLASS} == {}


def test_the_lines_of_a_class_are_counted() -> None:
    source = "@decorated\nclass A:\n    x = 1\n\n    class B:\n        pass\n\n\ny = 2\n"
    assert dict(classes(ast.walk(ast.parse(source)))) == {"A": 5, "B": 2}
