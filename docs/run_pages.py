"""Run the code of the documentation: the blocks of a page that are marked ``<!-- run -->``.

A page's Python blocks share one namespace, like a program; its bash blocks run in between. All
run in a new folder that holds the model and the data of ``examples/digits``, and ``examples``
itself. What a block prints belongs in the block after it, if that is marked ``<!-- output -->``,
or ``<!-- output: 8 first, 6 last -->`` for the first eight and the last six lines::

    python docs/run_pages.py docs/mixing.md      # run a page
    python docs/run_pages.py --all               # run all, which takes some ten minutes
    python docs/run_pages.py --all --write       # and put what they print into the pages

A page with the comment ``<!-- needs: PACKAGE -->`` is left out where that package is not found, be
it installed or in the folder that the variable ``OPTUNA_QUANT_REAL_MODELS`` names.

``tests/test_docs.py`` runs them as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import importlib.util
import io
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from optuna_quant.cli.exit_codes import NO_GAIN


ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DIGITS = ROOT / "examples" / "digits"

_FENCE = re.compile(
    r"^(?:<!-- (?P<marker>[^\n]*?) -->\n)?```(?P<language>[^`\n]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_NEEDS = re.compile(r"^<!-- needs: (\w+) -->$", re.MULTILINE)
_PARTS = re.compile(r"output: (\d+) first, (\d+) last")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Args:
        marker:
            The comment before it, empty if there is none.
        language:
            What stands behind the opening fence.
        text:
            What is in it.
        line:
            The line of the page on which its text begins, from 1.
        start:
            Where its text begins in the page, in characters.
    """

    marker: str
    language: str
    text: str
    line: int
    start: int

    @property
    def runs(self) -> bool:
        """Whether it is code to run."""
        return self.marker == "run"

    @property
    def is_output(self) -> bool:
        """Whether it shows what the block before it prints."""
        return self.marker.startswith("output")


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in _FENCE.finditer(text):
        start = found.start("text")
        yield Block(
            found["marker"] or "",
            found["language"],
            found["text"],
            text.count("\n", 0, start) + 1,
            start,
        )


def pages() -> list[Path]:
    """The pages that have something to run."""
    found = (path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    return sorted(path for path in found if any(b.runs for b in blocks(path.read_text())))


def missing(path: Path) -> list[str]:
    """The packages that a page needs and that are not here."""
    models = os.environ.get("OPTUNA_QUANT_REAL_MODELS")
    if models is not None and models not in sys.path:
        sys.path.append(models)
    needed = _NEEDS.findall(path.read_text())
    return [name for name in needed if importlib.util.find_spec(name) is None]


def run_page(path: Path, *, every: bool = False) -> str:
    """Run a page in a new folder.

    Args:
        path:
            The page.
        every:
            Whether to run all Python blocks, marked or not, and no others.

    Returns:
        The page with what its blocks have printed.
    """
    import optuna

    text = path.read_text()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pieces, end, printed = [], 0, ""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in ("model.onnx", "calib.npz", "eval.npz", "evaluate.py"):
            shutil.copy(DIGITS / name, folder)
        Path("examples").symlink_to(ROOT / "examples")
        sys.path.insert(0, folder)
        for block in blocks(text):
            if block.is_output:
                pieces += [text[end : block.start], _cut(printed, block.marker)]
                end = block.start + len(block.text)
            elif (block.language == "python") if every else block.runs:
                printed = _run(block, path, namespace)
        sys.path.remove(folder)
    return "".join([*pieces, text[end:]])


def _run(block: Block, path: Path, namespace: dict[str, Any]) -> str:
    if block.language == "python":
        # Empty lines before it, so that a traceback names the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(code, namespace)
        return stream.getvalue()
    if block.language != "bash":
        raise ValueError(f"{path}:{block.line}: there is no way to run {block.language!r}.")
    here = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        env=os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Whether a model is any faster is for the machine to say.
    if done.returncode not in (0, NO_GAIN):
        raise RuntimeError(
            f"{path}:{block.line}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def _cut(printed: str, marker: str) -> str:
    lines = [line.rstrip() for line in printed.rstrip().splitlines()]
    parts = _PARTS.fullmatch(marker)
    if parts is not None:
        first, last = int(parts[1]), int(parts[2])
        if len(lines) > first + last:
            lines = [*lines[:first], "...", *lines[len(lines) - last :]]
    return "".join(f"{line}\n" for line in lines)


def main(argv: Sequence[str]) -> None:
    """Run the pages that are named, or all."""
    parser = argparse.ArgumentParser(description="Run the code of the documentation's pages.")
    parser.add_argument("pages", nargs="*", type=Path, help="such as strategies/basic.md")
    parser.add_argument("--all", action="store_true", help="all pages; takes some ten minutes")
    parser.add_argument("--write", action="store_true", help="write what they print into them")
    args = parser.parse_args(argv)
    if bool(args.pages) == args.all:
        parser.error("name the pages to run, or --all")
    for path in [page.resolve() for page in args.pages] or pages():
        print(path.relative_to(ROOT), file=sys.stderr, flush=True)
        if path == ROOT / "README.md":
            run_page(path, every=True)
            continue
        if missing(path):
            print(f"left out: it needs {', '.join(missing(path))}", file=sys.stderr)
            continue
        new = run_page(path)
        if args.write and new != path.read_text():
            path.write_text(new)


if __name__ == "__main__":
    main(sys.argv[1:])
