"""English prose that comes with Python: what its own modules say about themselves."""

from __future__ import annotations

import ast
from pathlib import Path
import sysconfig

import numpy as np

from benchmarks.language.tokenizer import Tokenizer


EVALUATED = (
    "argparse",
    "collections/__init__",
    "datetime",
    "heapq",
    "optparse",
    "statistics",
    "textwrap",
    "threading",
)
CALIBRATED = ("difflib", "fractions", "functools", "inspect", "pickletools", "random", "tarfile")


def docstrings(module: str) -> str:
    """All docstrings of a module of the standard library, read from its file."""
    folder = Path(sysconfig.get_path("stdlib"))
    file = folder / f"_py{module}.py"  # Where datetime is from Python 3.12 on.
    if not file.exists():
        file = folder / f"{module}.py"
    tree = ast.parse(file.read_text(encoding="utf-8"))
    places = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, places))
    return "\n\n".join(text for text in found if text)


def evaluation_tokens(tokenizer: Tokenizer, *, length: int = 256) -> list[np.ndarray]:
    """The first tokens of texts, each of shape ``(1, length)``."""
    return [_tokens(tokenizer, module, length) for module in EVALUATED]


def calibration_tokens(tokenizer: Tokenizer, *, longest: int = 256) -> list[np.ndarray]:
    """Tokens of other texts, each of shape ``(1, length)``, no two of one length."""
    return [
        _tokens(tokenizer, module, longest - 20 * place) for place, module in enumerate(CALIBRATED)
    ]


def _tokens(tokenizer: Tokenizer, module: str, length: int) -> np.ndarray:
    found = tokenizer.encode(docstrings(module))
    if len(found) < length:
        raise ValueError(
            f"{module} has {len(found)} tokens of docstrings, but {length} are needed"
        )
    return np.array([found[:length]])
