"""The pages of the API: what the arguments of the calls are is written out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
import inspect
from pathlib import Path
import re

from parsed import tree_of as parsed_file
import pytest

import optuna_quant
from optuna_quant.tuning.options.flat import FurtherOptions
from optuna_quant.tuning.options.flat import ModelOptions


ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "api" / "tuning.md").read_text()

DOCUMENTED = dict(re.findall(r"^\.\. py:type:: (\S+)\n   :canonical: (.+)$", PAGE, re.MULTILINE))


@cache
def tree_of(module: str) -> ast.Module:
    path = ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text())


def aliases_in(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The type aliases of a module, each with its value."""
    for node in tree.body:
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.annotation) == "TypeAlias"
            and node.value is not None
        ):
            yield ast.unparse(node.target), node.value


def names_of_aliases() -> set[str]:
    """The type aliases of the package, by their short names."""
    paths = (ROOT / "optuna_quant").rglob("*.py")
    return {name for path in paths for name, _ in aliases_in(parsed_file(path))}


def parsed(node: ast.expr) -> ast.expr:
    """An expression, with the types in quotes out of them."""

    class Unquoted(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.expr:
            if isinstance(node.value, str):
                return ast.parse(node.value, mode="eval").body
            return node

    changed: ast.expr = Unquoted().visit(node)
    return changed


def written_out(module: str, name: str) -> str:
    """What an alias stands for, with its own parts and the name under which it was imported."""
    tree = tree_of(module)
    own = dict(aliases_in(tree))
    imported = {
        each.asname or each.name: (str(node.module), each.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    }
    if name not in own:
        return written_out(*imported[name])

    class Parts(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            if node.id.startswith("_"):
                return ast.parse(written_out(module, node.id), mode="eval").body
            if node.id in imported and imported[node.id][1] != node.id:
                return ast.parse(written_out(*imported[node.id]), mode="eval").body
            return node

    return ast.unparse(Parts().visit(parsed(own[name])))


@pytest.mark.parametrize("alias", DOCUMENTED)
def test_aliases_are_documented_as_they_are(alias: str) -> None:
    assert written_out(*alias.rsplit(".", 1)) == DOCUMENTED[alias]


def test_aliases_of_the_calls_are_documented() -> None:
    annotations = [
        *FurtherOptions.__annotations__.values(),
        *ModelOptions.__annotations__.values(),
    ]
    said = " ".join(getattr(each, "__forward_arg__", str(each)) for each in annotations)
    for call in (optuna_quant.tune, optuna_quant.quantize, optuna_quant.export):
        said += " ".join(str(p.annotation) for p in inspect.signature(call).parameters.values())
    used = set(re.findall(r"\w+", said)) & names_of_aliases()
    assert {"ModelLike", "DataLike", "Metric", "Storage", "RecipesLike", "ConfigLike"} <= used
    assert used - {alias.rsplit(".", 1)[1] for alias in DOCUMENTED} == set()
