"""Write what is made of the options' one definition: types of tune(), the docs' table and help.

python docs/write_options.py --write    writes the files
python docs/write_options.py --check    fails if they are out of date
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import os
from pathlib import Path
import re
import sys

from optuna_quant._common.option import groups_of
from optuna_quant._common.option import options_of
from optuna_quant.cli.parser import command_parser
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.model_options import model_groups
from optuna_quant.tuning.options.model_options import model_options
from optuna_quant.tuning.options.request import TuneOptions


REPOSITORY = Path(__file__).parent.parent
TYPES = REPOSITORY / "optuna_quant" / "tuning" / "options" / "flat.py"
PAGE = REPOSITORY / "docs" / "options.md"
BEGIN, END = "<!-- begin: written by write_options.py -->", "<!-- end -->"
COMMAND = REPOSITORY / "docs" / "command_line.md"
WIDTH = 96
HELP = re.compile(
    rf"(?<=^COLUMNS={WIDTH} optuna-quant tune --help-all\n```\n\n<!-- output -->\n```text\n)"
    r".*?(?=^```$)",
    re.DOTALL | re.MULTILINE,
)
# What Python 3.13 prints of an option with two names, where older ones name its value twice.
TWO_NAMES = re.compile(r"^  (--[\w-]+), (-\w) (\S+)$", re.MULTILINE)


def types() -> str:
    """The types of the options that tune() takes besides those in its signature."""
    shown = set(inspect.signature(tune).parameters)
    groups = groups_of(TuneOptions)
    imports: set[str] = set()
    names, of_models = [], []
    for option in options_of(TuneOptions).values():
        if option.name in shown:
            continue
        cls = TuneOptions if option.group is None else groups[option.group]
        imports |= _imports_for(option.type, cls)
        names.append((option.name, option.type))
        if option.name in model_options():
            of_models.append((option.name, option.type))
    for name, kind in groups.items():
        imports.add(f"from {kind.__module__} import {kind.__name__}")
        names.append((name, f"{kind.__name__} | None"))
        if name in model_groups():
            of_models.append((name, f"{kind.__name__} | None"))
    lines = [
        '"""The options that tune() takes by name, for type checkers and editors.',
        "",
        "Written by docs/write_options.py from the classes that declare them.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        *_sections({"from typing import TypedDict", *imports}),
        "",
        "",
        "class FurtherOptions(TypedDict, total=False):",
        '    """See :func:`optuna_quant.tune`."""',
        "",
        *(f"    {name}: {kind}" for name, kind in names),
        "",
        "",
        "class ModelOptions(TypedDict, total=False):",
        '    """See :func:`optuna_quant.quantize`."""',
        "",
        *(f"    {name}: {kind}" for name, kind in of_models),
    ]
    return "\n".join(lines) + "\n"


def _sections(imports: set[str]) -> list[str]:
    """Import lines: of the standard library, of others, and our own."""
    lines = sorted(imports, key=lambda line: (_section(line), line.split()[1], line))
    made: list[str] = []
    for line in lines:
        if made and _section(line) != _section(made[-1]):
            made.append("")
        made.append(line)
    return made


def _section(line: str) -> int:
    package = line.split()[1].split(".")[0]
    return 2 if package == "optuna_quant" else int(package not in sys.stdlib_module_names)


def _imports_for(annotation: str, cls: type) -> set[str]:
    """The imports that the module of a class makes for the names of an annotation."""
    used = {n.id for n in ast.walk(ast.parse(annotation)) if isinstance(n, ast.Name)}
    module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            found |= {f"from {node.module} import {a.name}" for a in node.names if a.name in used}
        elif isinstance(node, ast.Import):
            found |= {f"import {a.name}" for a in node.names if a.name in used}
        elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) in used:
            found.add(f"from {cls.__module__} import {node.target.id}")
    return found


def table() -> str:
    """A row for each option: its name, flag, class, default and type, and what it means."""
    groups = groups_of(TuneOptions)
    heads = ("in Python and in files", "flag", "held by", "default", "type", "meaning of the flag")
    rows = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for option in options_of(TuneOptions).values():
        cls = TuneOptions if option.group is None else groups[option.group]
        flag = " ".join(f"`{flag}`" for flag in option.flags) or "(Python only)"
        flag = "`MODEL`" if option.name == "model" else flag
        held = "" if option.group is None else f"{cls.__name__}"
        default = next(f.default for f in dataclasses.fields(cls) if f.name == option.name)
        kind = " or ".join(part.strip() for part in _alternatives(option.type))
        meaning = "" if option.flag is None else _cell(option.flag.help)
        rows.append(f"| `{option.name}` | {flag} | {held} | `{default!r}` | {kind} | {meaning} |")
    return "\n".join(rows)


def _alternatives(annotation: str) -> list[str]:
    """The types that a union at the top of an annotation allows, each as code."""
    node, found = ast.parse(annotation, mode="eval").body, []
    while isinstance(node, ast.BinOp):
        found.append(node.right)
        node = node.left
    return [f"`{_cell(ast.unparse(each))}`" for each in (node, *reversed(found))]


def _cell(text: str) -> str:
    """A text for a cell of a table."""
    return " ".join(text.split()).replace("%%", "%").replace("|", "\\|")


def page() -> str:
    """The page, with the table of now."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def command_page() -> str:
    """The page of the command, with all options of tune as its help has them now."""
    os.environ["COLUMNS"] = str(WIDTH)
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        command_parser().commands["tune"].show_all()
    text = TWO_NAMES.sub(r"  \1 \3, \2 \3", stream.getvalue())
    shown = "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())
    page, found = HELP.subn(lambda _: shown, COMMAND.read_text())
    if found != 1:
        raise ValueError(f"{COMMAND} must have the output of tune --help-all once.")
    return page


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    made = {TYPES: types(), PAGE: page(), COMMAND: command_page()}
    stale = [path for path, text in made.items() if not path.exists() or _differs(path, text)]
    for path in stale:
        if "--write" in arguments:
            path.write_text(made[path])
        print(f"{'written' if '--write' in arguments else 'out of date'}: {path.name}")
    return int(bool(stale) and "--write" not in arguments)


def _differs(path: Path, text: str) -> bool:
    found = path.read_text()
    # Where lines of the help break depends on the version of Python.
    return found.split() != text.split() if path == COMMAND else found != text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
