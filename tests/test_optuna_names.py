"""What of Optuna is used that is not public: all of it in one module, and all of it listed."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
import importlib
from importlib.metadata import version
from pathlib import Path
import re
import tomllib

from packaging.requirements import Requirement
from packaging.version import Version
from parsed import nodes_of
import pytest

import optuna_quant


PACKAGE = Path(optuna_quant.__file__).parent
PLACE = PACKAGE / "_optuna.py"
ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "optuna.md").read_text()

PRIVATE = re.compile(r"_[a-z]\w*|_[A-Z]\w*")
IN_TEXT = re.compile(r"\boptuna(?:\.\w+)*\._\w+")


def is_private(name: str) -> bool:
    return PRIVATE.fullmatch(name) is not None


def of_optuna(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == "optuna"


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The private parts of what is imported from Optuna."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and of_optuna(node.module):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [p for a in node.names if of_optuna(a.name) for p in a.name.split(".")]
        else:
            continue
        yield from filter(is_private, names)


def in_texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from IN_TEXT.findall(node.value)


def attributes(nodes: Iterable[ast.AST], *, own: bool) -> Iterator[str]:
    """Private attributes that are read or set; with ``own`` those of ``self``, too."""
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if own or not of_self:
                yield node.attr
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "getattr"
            and isinstance(node.args[1], ast.Constant)
            and is_private(str(node.args[1].value))
        ):
            yield str(node.args[1].value)


def overridden(tree: ast.Module) -> Iterator[str]:
    """Private methods of classes that are not private themselves: Optuna calls them."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not is_private(node.name):
            yield from (
                method.name
                for method in node.body
                if isinstance(method, ast.FunctionDef) and is_private(method.name)
            )


def used_in_the_place() -> set[str]:
    tree = ast.parse(PLACE.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ClassDef) and is_private(node.name))
    ]
    nodes = list(ast.walk(tree))
    texts = {text.rpartition(".")[2] for text in in_texts(nodes)}
    return {*imported(nodes), *attributes(nodes, own=True), *overridden(tree), *texts}


def other_modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PLACE)


def test_the_page_lists_every_private_name_and_no_other() -> None:
    listed = {
        part
        for code in re.findall(r"`([^`]+)`", PAGE)
        for part in re.split(r"[^\w]+", code)
        if is_private(part)
    }
    assert listed - {"_optuna"} == used_in_the_place()


def test_no_other_module_uses_a_private_name() -> None:
    known = used_in_the_place()
    found = []
    for path in other_modules():
        nodes = nodes_of(path)
        names = [*imported(nodes), *in_texts(nodes)]
        names += [name for name in attributes(nodes, own=False) if name in known]
        found += [f"{path.relative_to(ROOT)}: {name}" for name in names]
    assert found == []


def test_private_names_in_other_modules_would_be_found() -> None:
    tree = ast.parse(
        "from optuna.storages._base import X\n"
        "import optuna.study._tell\n"
        "study._storage\n"
        "self._storage\n"
        "getattr(study, '_study_id')\n"
        "'optuna.study._optimize'\n"
    )
    nodes = list(ast.walk(tree))
    assert [*imported(nodes)] == ["_base", "_tell"]
    assert [*attributes(nodes, own=False)] == ["_storage", "_study_id"]
    assert [*in_texts(nodes)] == ["optuna.study._optimize"]


@pytest.mark.parametrize("room", ["samplers", "storages", "pruners", "callbacks"])
def test_no_other_class_overrides_a_private_method(room: str) -> None:
    found = []
    for path in (PACKAGE / room).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for cls in vars(importlib.import_module(name)).values():
            if not isinstance(cls, type) or cls.__module__ != name:
                continue
            theirs = {n for base in cls.__mro__ if of_optuna(base.__module__) for n in vars(base)}
            found += [
                f"{name}.{cls.__name__}.{method}"
                for method in vars(cls).keys() & theirs
                if is_private(method) and method != "_abc_impl"
            ]
    assert found == []


def test_the_next_major_version_of_optuna_is_not_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    (allowed,) = [each.specifier for each in requirements if each.name == "optuna"]
    tested = Version(version("optuna"))
    assert tested.base_version in allowed
    assert f"{tested.major + 1}.0.0" not in allowed
