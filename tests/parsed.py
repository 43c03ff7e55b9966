"""The modules of the package, each parsed once for all tests that read them."""

from __future__ import annotations

import ast
from functools import cache
import gc
from pathlib import Path


@cache
def tree_of(path: Path) -> ast.Module:
    """A module's code, which must not be changed."""
    # It stays, and to look for garbage among it takes as long as to parse it.
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        if collects:
            gc.enable()


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a module, itself first."""
    return tuple(ast.walk(tree_of(path)))
