"""The types of the package, as a user's own type checker sees them.

`make release-check` does the same with the package that is installed from its wheel.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
import os
from pathlib import Path
import subprocess
import sys

from parsed import tree_of
import pytest

import optuna_quant


PACKAGE = Path(optuna_quant.__file__).parent
SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "user_script.py"
MISTAKES = """
AccuracyCriterion(tolerable_loss="much")
tune("model.onnx", max_trails=10)
"""


MOST_ANY = 2
"""Public parameters, results and attributes whose type is :class:`~typing.Any`.

Where nothing is promised, ``object`` says so; where the type is the user's, an alias says what it
is (``NativeModel``, ``SampleLike``). Left are the two of ``update`` of a metric object: arrays or
tensors, as its library wants."""


def is_any(annotation: ast.expr | None) -> bool:
    """Whether an annotation is ``Any``, or a union with it."""
    if isinstance(annotation, ast.BinOp):
        return is_any(annotation.left) or is_any(annotation.right)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return is_any(ast.parse(annotation.value, mode="eval").body)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def public_any(tree: ast.AST, owner: str = "") -> Iterator[str]:
    """What is public and of any type; not ``*args`` and ``**kwargs``, which are passed on."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_any(node, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield from (f"{owner}{node.name}({a.arg})" for a in given if is_any(a.annotation))
            if is_any(node.returns):
                yield f"{owner}{node.name}()"
        elif isinstance(node, ast.AnnAssign) and is_any(node.annotation):
            name = ast.unparse(node.target)
            if not name.startswith("_"):
                yield f"{owner}{name}"


def test_public_types_are_known() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in public_any(tree_of(path))
    ]
    assert len(found) <= MOST_ANY, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(x: Any) -> int: ...", ["f(x)"]),
        ("class A:\n x: Any | None\n def f(self) -> Any: ...", ["A.x", "A.f()"]),
        ("class A:\n def __init__(self, x: 'Any') -> None: ...", ["A.__init__(x)"]),
        ("def _f(x: Any): ...\nclass _A:\n x: Any", []),
        ("def f(x: dict[str, Any], *args: Any, **kwargs: Any) -> None: ...", []),
    ],
)
def test_any_is_found(code: str, found: list[str]) -> None:
    assert list(public_any(ast.parse(code))) == found


@pytest.mark.slow
def test_a_users_script_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    assert (PACKAGE / "py.typed").exists()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text() + MISTAKES)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", script],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if "script.py" in line]
    errors = [line for line in errors if ": error: " in line]
    assert len(errors) == 2, checked.stdout + checked.stderr
    assert '"tolerable_loss"' in errors[0]
    assert "max_trails" in errors[1]
