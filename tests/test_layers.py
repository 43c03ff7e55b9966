"""Imports go one way: from a room to those below it, also where they are only for types."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
from functools import cache
from pathlib import Path
import re

import onnxruntime
from parsed import nodes_of
from parsed import tree_of
import pytest

import optuna_quant


PACKAGE = Path(optuna_quant.__file__).parent

LAYERS = (
    "_common",
    "_optuna",
    "workers",
    "storages",
    "space",
    "criteria",
    "sequential",
    "data",
    "backends.base",
    "study",
    "costs",
    "selection",
    "backends.ranges",
    "backends.calibration",
    "backends.weight_algorithms",
    "backends.sensitivity",
    "backends.blocks",
    "backends.torch_program",
    "backends.onnxruntime.model",
    "backends.onnxruntime.torch_export",
    "backends.onnxruntime.torch_graph",
    "backends.onnxruntime.executed",
    "backends.onnxruntime.calibration",
    "backends.onnxruntime.dynamic",
    "backends.onnxruntime.lower_precision",
    "backends.onnxruntime.static",
    "backends.onnxruntime.weight_only",
    "backends.onnxruntime.targets",
    "backends.onnxruntime.left_out",
    "backends.onnxruntime.hints",
    "backends.onnxruntime.capability",
    "backends.onnxruntime.offered_ops",
    "backends.onnxruntime.config_check",
    "backends.onnxruntime.builder",
    "backends.onnxruntime.candidate_ranges",
    "backends.onnxruntime.recipes",
    "backends.onnxruntime.sensitivity",
    "backends.onnxruntime.costs",
    "backends.onnxruntime",
    "backends.torch.program",
    "backends.torch.graph",
    "backends.torch.candidates",
    "backends.torch.qat",
    "backends.torch.converted",
    "backends.torch.sensitivity",
    "backends.torch.costs",
    "backends.torch",
    "backends.default",
    "samplers._engine",
    "samplers._plans",
    "samplers._models",
    "samplers",
    "pruners",
    "evaluation",
    "callbacks",
    "tuning",
    "report",
    "visualization",
    "compat",
    "dashboard",
    "cli",
    "testing",
    "__main__",
)
"""From below: a module imports from its own room and those before it."""

APART = ("backends.onnxruntime", "backends.torch")
"""Backends, which import nothing of each other, wherever they are in the layers."""

KNOWS_THE_RUNTIME = ("backends.onnxruntime", "backends.default")
"""All others work with any backend."""

MOST_ENTRIES = 26


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def own_imports() -> dict[str, set[str]]:
    known = modules()
    return {
        module: {name for name in imports(path, known) if name.split(".")[0] == "optuna_quant"}
        for module, path in known.items()
    }


def is_in(module: str, room: str) -> bool:
    return f"{module}.".startswith(f"optuna_quant.{room}.")


def layer_of(module: str) -> str:
    fitting = [layer for layer in LAYERS if is_in(module, layer)]
    return max(fitting, key=len, default=module.removeprefix("optuna_quant").removeprefix("."))


def backend_of(layer: str) -> str | None:
    return next((each for each in APART if f"{layer}.".startswith(f"{each}.")), None)


def below(layer: str) -> list[str]:
    """The layers of which one may import: those before it, but for other backends."""
    own = backend_of(layer)
    before = LAYERS[: LAYERS.index(layer)]
    return [each for each in before if own is None or backend_of(each) in (None, own)]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that can reach each other."""
    reach = {module: set(found) for module, found in graph.items()}
    changed = True
    while changed:
        changed = False
        for found in reach.values():
            more = set().union(*(reach.get(name, set()) for name in found)) - found
            if more:
                found |= more
                changed = True
    in_circle = {m: frozenset(o for o in r if m in reach.get(o, ())) for m, r in reach.items()}
    return sorted({tuple(sorted(circle)) for circle in in_circle.values() if circle})  # type: ignore[arg-type]


def test_every_import_is_of_a_module_that_exists() -> None:
    known = modules()
    assert {name for found in own_imports().values() for name in found} <= known.keys()


def test_every_module_has_a_layer() -> None:
    without = {m for m in modules() if m.count(".") and layer_of(m) not in LAYERS}
    assert without == {"optuna_quant.backends"}


def test_imports_go_down() -> None:
    back = [
        f"{module} imports {name}"
        for module, found in own_imports().items()
        for name in sorted(found)
        if layer_of(module) in LAYERS and layer_of(module) != layer_of(name)
        if layer_of(name) not in below(layer_of(module))
    ]
    assert back == []


def test_no_circles() -> None:
    assert circles(own_imports()) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [("b", "c")]


@cache
def runtime_names() -> set[str]:
    """The names by which ONNX Runtime is used: those of its sessions, and ours for them."""
    classes = (onnxruntime.InferenceSession, onnxruntime.SessionOptions)
    public = {name for each in classes for name in dir(each) if not name.startswith("_")}
    named = {each.__name__ for each in classes}
    return (public - {"run"}) | named | {"session_for", "proto"}


def identifiers(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """All names in code; and strings in place of a name, as ``getattr`` takes them."""
    for node in nodes:
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            texts = (each.value for each in node.args if isinstance(each, ast.Constant))
            yield from (text for text in texts if isinstance(text, str))


def mentions_runtime(nodes: Iterable[ast.AST]) -> list[str]:
    known = runtime_names()
    return sorted({n for n in identifiers(nodes) if n in known or "onnx" in n.lower()})


def test_the_core_knows_no_runtime() -> None:
    found = {
        module: mentions_runtime(nodes_of(path))
        for module, path in modules().items()
        if not any(is_in(module, room) for room in KNOWS_THE_RUNTIME)
    }
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import onnxruntime",
        "from onnx import ModelProto",
        "from optuna_quant.backends.onnxruntime import QuantizedModel",
        "model.get_inputs()",
        "getattr(model, 'session_for')(2)",
        "def f(backend: OnnxRuntimeBackend) -> None: ...",
    ],
)
def test_a_mention_of_the_runtime_is_found(code: str) -> None:
    assert mentions_runtime(ast.walk(ast.parse(code)))
    assert mentions_runtime(ast.walk(ast.parse(f'"""{code}"""'))) == []


def drawn(page: str, head: str) -> list[str]:
    """The packages in the first column of a table."""
    rows = page.partition(f"| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_design_draws_the_layers() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    heads = {"backends.onnxruntime.": "package or module", "backends.torch.": "package of PyTorch"}
    others = [each for each in LAYERS if not each.startswith((*heads, "samplers."))]
    assert drawn(page, "package") == others[::-1]
    for prefix, head in heads.items():
        rooms = [layer.removeprefix(prefix) for layer in LAYERS if layer.startswith(prefix)]
        assert drawn(page, head) == rooms[::-1]


def test_the_root_stays_small() -> None:
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES


def may_import(module: str) -> str:
    """What the docstring of a folder must say, by the layers."""
    room, layer = module.removeprefix("optuna_quant."), layer_of(module)
    if room != layer:
        return f"May import: as `{layer}`."
    if not below(layer):
        return "May import: nothing of this package."
    return f"May import: `{below(layer)[-1]}` and what is below it."


def folders() -> dict[str, str]:
    found = {}
    for module, path in modules().items():
        if path.name == "__init__.py" and module not in ("optuna_quant", "optuna_quant.backends"):
            docstring = ast.get_docstring(tree_of(path))
            assert docstring, f"{path} says nothing"
            found[module] = docstring
    return found


@pytest.mark.parametrize(("module", "docstring"), folders().items())
def test_a_folder_says_what_it_is_and_may_import(module: str, docstring: str) -> None:
    lines = docstring.splitlines()
    assert not lines[0].startswith("May import")
    assert may_import(module) in lines


def test_folders_below_a_layer_may_import_what_it_may() -> None:
    assert may_import("optuna_quant.evaluation.metrics") == "May import: as `evaluation`."
    assert may_import("optuna_quant.workers") == "May import: `_optuna` and what is below it."


def test_backends_are_apart() -> None:
    first = "optuna_quant.backends.torch.program"
    assert may_import(first) == "May import: `backends.torch_program` and what is below it."
    for layer in LAYERS:
        others = set(map(backend_of, below(layer))) - {None, backend_of(layer)}
        assert not others or backend_of(layer) is None
    assert "backends.onnxruntime.model" in below("backends.onnxruntime")
    assert {"backends.onnxruntime", "backends.torch"} <= set(below("backends.default"))
