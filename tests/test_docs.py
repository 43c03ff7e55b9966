"""The documentation: its code runs, and it says what there is."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import contextlib
import importlib
import importlib.metadata
import inspect
import os
from pathlib import Path
import re
import subprocess
import sys
import tomllib
from typing import Any

import numpy as np
from parsed import nodes_of
import program_worker
import pytest
from zygote import Zygote

import optuna_quant
from optuna_quant.backends.onnxruntime.recipes.table import RECIPES
from optuna_quant.backends.onnxruntime.targets.table import TARGETS
from optuna_quant.cli.parser import command_parser
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.tuning.strategies import takes_costs


ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
STRATEGIES = DOCS / "strategies"

sys.path.insert(0, str(DOCS))

import measure_strategies  # noqa: E402 (it is no package)
import run_pages  # noqa: E402


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run Python in a process of its own: what a program registers is not seen by other tests."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=program_worker.on_one_core if hasattr(os, "sched_setaffinity") else None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def all_pages() -> list[Path]:
    found = (path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    return [ROOT / "README.md", *sorted(found)]


NAMED_FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|txt))`")


def named_files(page: Path) -> set[str]:
    """The files that a page names in its text, outside of code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = NAMED_FILE.findall(text)
    return {file for file in found if "NAME" not in file}


def files_of_the_project() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:
        return listed.stdout.splitlines()
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]


def built_in() -> dict[str, type[QuantSampler]]:
    return {s: c for s, c in strategies().items() if c.__module__.startswith("optuna_quant.")}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


PAGES = [ROOT / "README.md", *run_pages.pages()]
# On a machine that does other work as well, FP32 may be the fastest.
_ANSWER = "A quantized model meets the criterion|NO GAIN"
EXAMPLES = {
    "own_strategy.py": _ANSWER,
    "own_backend.py": "A quantized model meets the criterion",
    "mixed_study.py": r"trials, the best:\n  trial \d+: accuracy",
    "digits/demo.py": _ANSWER,
}

PROGRAMS = {
    **{name(page): (DOCS / "run_pages.py", page) for page in PAGES},
    **{example: (ROOT / "examples" / example,) for example in EXAMPLES},
}

Printed = Callable[[str], str]


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, zygote: Zygote
) -> Iterator[Printed]:
    """What a page or an example prints; two of those that the tests ask for run at a time."""
    folder = tmp_path_factory.mktemp("programs")

    def output_of(program: str) -> str:
        path, *args = map(str, PROGRAMS[program])
        pid = zygote.start("program_worker:run", program=path, args=args, folder=str(folder))
        status, printed = zygote.wait(pid, timeout=600)
        assert status == 0, printed
        return printed

    if "PYTEST_XDIST_WORKER" in os.environ:  # Then several tests run at a time anyway.
        yield output_of
        return
    asked = {
        value
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        for value in item.callspec.params.values()
        if "printed" in item.fixturenames
    }
    with ThreadPoolExecutor(2) as pool:
        running = {
            program: pool.submit(output_of, program) for program in PROGRAMS if program in asked
        }
        yield lambda program: running[program].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Half a minute of computing takes many where others compute as well.
@pytest.mark.parametrize("page", [name(page) for page in PAGES])
def test_code_of_page_runs(page: str, printed: Printed) -> None:
    without = run_pages.missing(ROOT / page)
    if without:
        pytest.skip(f"it needs {', '.join(without)}")
    printed(page)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example: str, printed: Printed) -> None:
    assert re.search(EXAMPLES[example], printed(example))


def test_the_gallery_has_all_examples_and_they_are_run() -> None:
    text = (DOCS / "gallery.md").read_text()
    tested = "".join(
        (ROOT / "tests" / file).read_text()
        for file in ("test_digits_example.py", "test_distributed_examples.py")
    )
    for path in (ROOT / "examples").rglob("*.py"):
        example = str(path.relative_to(ROOT / "examples"))
        if example == "digits/evaluate.py":  # The evaluation function of the others.
            continue
        assert f"(../examples/{example})" in text, example
        assert example in EXAMPLES or path.name in tested or path.stem in tested, example


def test_metrics_of_detection_and_recognition_give_one_for_the_truth() -> None:
    names: dict[str, Any] = {}
    for block in run_pages.blocks((DOCS / "detection.md").read_text()):
        if block.runs:  # Without the models: up to the first line that needs them.
            text, _, _ = block.text.partition("package =")
            text, _, _ = text.partition("recognizer =")
            exec(compile(text, "detection.md", "exec"), names)
    image, boxes = names["page"](0)
    height, width = image.shape[1:]
    assert len(boxes) > 1 and image.dtype == np.float32 and abs(image).max() <= 1
    marked = np.zeros((1, 1, height, width), np.float32)
    for left, top, right, bottom in boxes.round().astype(int):
        inset = (bottom - top) // 4
        marked[0, 0, top + inset : bottom - inset, left + inset : right - inset] = 1
    assert names["f1_of_boxes"](marked, boxes) == 1.0
    assert names["f1_of_boxes"](marked, boxes[:1]) == pytest.approx(2 / (len(boxes) + 1))
    assert names["f1_of_boxes"](np.zeros_like(marked), boxes) == 0.0
    assert names["f1_of_boxes"](np.zeros_like(marked), boxes[:0]) == 1.0


def test_the_mean_score_of_the_language_model_is_the_mean_over_all_words() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((5, 7, 11)).astype(np.float32)
    truth = rng.integers(0, 11, (5, 7))
    for row, length in enumerate((7, 3, 1, 5, 2)):
        truth[row, length:] = -100
    names: dict[str, Any] = {"np": np, "optuna_quant": optuna_quant}
    names |= {"following": truth, "TRAIN": 0}
    (block,) = (
        block
        for block in run_pages.blocks((DOCS / "text.md").read_text())
        if "def nll" in block.text
    )
    exec(compile(block.text, "text.md", "exec"), names)
    given = names["nll"](scores, truth)
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    words = [
        -log_probabilities[i, j, truth[i, j]] for i, j in zip(*np.nonzero(truth >= 0), strict=True)
    ]
    assert given.mean() == pytest.approx(np.mean(words), rel=1e-5)
    # What a result says of the loss in the mean is the same of the perplexity, as exponentials.
    assert np.exp(given.mean()) == pytest.approx(np.exp(np.mean(words)), rel=1e-5)
    assert names["metric"].bounds[1] >= given.max()


def test_own_strategy_takes_ten_lines() -> None:
    (snippet, *_) = run_pages.blocks((STRATEGIES / "own.md").read_text())
    assert snippet.runs
    assert "@register_strategy" in snippet.text
    assert len(snippet.text.splitlines()) <= 10


def test_own_strategy_is_that_of_the_example() -> None:
    (snippet, *_) = run_pages.blocks((STRATEGIES / "own.md").read_text())
    plan = [line.strip() for line in snippet.text.splitlines()[-4:]]
    example = (ROOT / "examples" / "own_strategy.py").read_text()
    assert [line.strip() for line in example.splitlines() if line.strip() in plan] == plan


@pytest.mark.slow
def test_own_strategy_of_the_readme_works(tmp_path: Path) -> None:
    (snippet,) = [
        block.text
        for block in run_pages.blocks((ROOT / "README.md").read_text())
        if "@register_strategy" in block.text
    ]
    assert len(snippet.splitlines()) <= 10
    (strategy,) = re.findall(r'@register_strategy\("(\w+)"\)', snippet)
    digits = str(run_pages.DIGITS)
    program = f"""{snippet}
import sys
sys.path.insert(0, {digits!r})
import evaluate, optuna_quant
result = optuna_quant.tune(
    "{digits}/model.onnx",
    calibration_data="{digits}/calib.npz",
    evaluate=evaluate.accuracy,
    tuning_criterion=optuna_quant.TuningCriterion(strategy={strategy!r}, objective="ops"),
)
print(result.stopped_because, len(result.study.trials))
"""
    reason, trials = run("-c", program, cwd=tmp_path).split()
    assert reason in ("met", "exhausted")
    assert int(trials) > 10


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.py")), ids=lambda path: path.name)
def test_imports_of_a_program_of_the_docs_exist(path: Path) -> None:
    """Programs of the docs import each other; most run by hand only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (DOCS / f"{node.module}.py").exists():
            defined = (DOCS / f"{node.module}.py").read_text()
            for name in (alias.name for alias in node.names):
                assert re.search(rf"^(def |class )?{name}\b", defined, re.M), (path.name, name)


def own_imports(text: str) -> set[tuple[str, str]]:
    """What the blocks of Python of a page import from the package."""
    found = set()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        statement = r"^from (optuna_quant[\w.]*) import (?:\(([^)]*)\)|([^(\n]+))$"
        for module, inside, line in re.findall(statement, block, re.M):
            names = re.sub(r"#.*", "", inside or line).split(",")
            found |= {(module, name.split(" as ")[0].strip()) for name in names if name.strip()}
    return found


@pytest.mark.parametrize("path", all_pages(), ids=lambda path: path.name)
def test_what_pages_import_exists(path: Path) -> None:
    for module, name in sorted(own_imports(path.read_text())):
        if not hasattr(importlib.import_module(module), name):
            importlib.import_module(f"{module}.{name}")


def wrong_uses(block: str) -> list[str]:
    """Attributes of the package that a block reads and that do not exist, and such arguments."""
    try:
        tree = ast.parse(block)
    except SyntaxError:  # A part of a program, or a sketch of one.
        return []
    names: dict[str, Any] = {"optuna_quant": optuna_quant}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna_quant"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                names[alias.asname or alias.name] = getattr(module, alias.name, None)
    wrong = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "optuna_quant"
            and not hasattr(optuna_quant, node.attr)
        ):
            wrong.append(ast.unparse(node))
        if not isinstance(node, ast.Call):
            continue
        said = ast.unparse(node.func)
        called = names.get(said)
        if said.startswith("optuna_quant."):
            called = getattr(optuna_quant, said.removeprefix("optuna_quant."), None)
        if not callable(called):
            continue
        parameters = inspect.signature(called).parameters
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            wrong += [
                f"{said}({keyword.arg}=)"
                for keyword in node.keywords
                if keyword.arg is not None and keyword.arg not in parameters
            ]
    return wrong


@pytest.mark.parametrize("path", all_pages(), ids=name)
def test_what_pages_use_of_the_package_exists(path: Path) -> None:
    for block in run_pages.blocks(path.read_text()):
        if block.language == "python":
            assert wrong_uses(block.text) == [], block.line


def names_bound_by(tree: ast.Module) -> Iterator[str]:
    """What a block gives a name to, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).split(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name is not None:
            yield node.name


def unknown_names(text: str) -> Iterator[tuple[int, str]]:
    """Names in a page's Python that nothing before defines, and that are not told what they are.

    They are told by a comment in the page's code, or as code in the paragraph before the block.
    """
    known = set(dir(builtins))
    for block in run_pages.blocks(text):
        if block.language != "python":
            continue
        try:
            tree = ast.parse(block.text)
        except SyntaxError:  # A part of a program, or a sketch of one.
            continue
        known.update(names_bound_by(tree))
        known.update(re.findall(r"\w+", " ".join(re.findall(r"#.*", block.text))))
        before = (
            text[: block.start].rpartition("```python")[0].rstrip().removesuffix("<!-- run -->")
        )
        told = re.findall(r"`([^`\n]+)`", before.rstrip().rpartition("\n\n")[2])
        known.update(word for each in told for word in re.findall(r"\w+", each))
        used = (n for n in ast.walk(tree) if isinstance(n, ast.Name))
        yield from ((block.line, n.id) for n in used if n.id not in known)


@pytest.mark.parametrize("path", all_pages(), ids=name)
def test_names_in_code_are_defined_or_explained(path: Path) -> None:
    assert list(unknown_names(path.read_text())) == []


def test_unknown_names_are_found() -> None:
    first = "```python\nimport a\n\nb = a.c(d)\n```\n"
    second = "Now `e`:\n\n```python\nf(b, e)  # f: a function\n```\n"
    assert list(unknown_names(first)) == [(2, "d")]
    assert list(unknown_names(f"{first}\n{second}")) == [(2, "d")]
    assert list(unknown_names(second)) == [(4, "b")]


def test_wrong_uses_are_found() -> None:
    block = "from optuna_quant import CorpusMetric\nCorpusMetric(name='a', bounds=(0, 1))\n"
    assert wrong_uses(block) == ["CorpusMetric(bounds=)"]
    assert wrong_uses("optuna_quant.no_such(1)") == ["optuna_quant.no_such"]
    assert wrong_uses("optuna_quant.tune('model.onnx', timeout=1)") == []
    assert wrong_uses("optuna_quant.CorpusMetric(bounds=1)") == [
        "optuna_quant.CorpusMetric(bounds=)"
    ]


def test_imports_of_a_page_are_found() -> None:
    block = "from optuna_quant.a import (\n    b,  # x, y\n    c,\n)\nfrom optuna_quant import d\n"
    page = f"```python\n{block}```\nfrom optuna_quant import e\n"
    module = "optuna_quant.a"
    assert own_imports(page) == {(module, "b"), (module, "c"), ("optuna_quant", "d")}


@pytest.mark.parametrize(
    "strategy",
    [s for s, cls in strategies().items() if cls.__module__.startswith("optuna_quant.")],
)
def test_strategy_has_a_page(strategy: str) -> None:
    text = (STRATEGIES / f"{strategy}.md").read_text()
    for part in ("**Idea.**", "**When to use it.**", "ptions", "## Example"):
        assert part in text
    assert f"(images/{strategy}.svg)" in text
    assert any(block.runs for block in run_pages.blocks(text))
    assert f"({strategy}.md)" in (STRATEGIES / "index.md").read_text()


OPTUNAHUB = "optunahub/package/samplers/accuracy_aware_quantization/README.md"


@pytest.mark.parametrize(
    ("page", "place"),
    [
        ("docs/api/samplers.md", r"^\.\. autoclass:: optuna_quant\.samplers\.{cls}$"),
        ("README.md", r"^\|[^|]*`{name}`[^|]*\|"),
        ("docs/command_line.md", r"^{name} {{2,}}\w"),
        ("docs/index.md", r"^strategies/{name}$"),
        (OPTUNAHUB, r"`{cls}[`(]"),
        ("docs/sensitivities.md", r"^\| `{kind}`.*\|[^|]*`{name}`[^|]*\|"),
    ],
)
def test_strategies_are_on_the_pages_that_list_them(page: str, place: str) -> None:
    text = (ROOT / page).read_text()
    ours = built_in()
    if "{kind}" in place:
        ours = {s: cls for s, cls in ours.items() if cls.sensitivity_kind is not None}
    assert len(ours) > 5
    missing = []
    for strategy, cls in ours.items():
        kind = cls.sensitivity_kind
        pattern = place.format(name=strategy, cls=cls.__name__, kind=kind and kind.value)
        if not re.search(pattern, text, re.MULTILINE):
            missing.append(strategy)
    assert not missing


def staged() -> set[str]:
    return {name for name, cls in built_in().items() if issubclass(cls, StagedQuantSampler)}


def test_the_page_of_strategies_names_those_in_stages() -> None:
    text = (STRATEGIES / "index.md").read_text()
    (named,) = re.findall(r"the staged strategies \(([\w, ]+), and your own\)", text)
    assert set(named.split(", ")) == staged()


def test_the_page_of_backends_says_what_sizes_and_sensitivities_are_for() -> None:
    text = (DOCS / "backends.md").read_text()
    (costed, others) = re.findall(
        r"With such a table (.*?) choose between.*?Of the others, (.*?) try mixtures", text, re.S
    )[0]
    known = {name for name in built_in() if takes_costs(name)}
    assert set(re.findall(r"`(\w+)`", costed)) == known
    assert set(re.findall(r"`(\w+)`", others)) == built_in().keys() - known - staged()
    (row,) = re.findall(r"^\| .*OffersSensitivities`.*$", text, re.M)
    best, _, rest = row.partition("the prior of ")[2].partition(" (the kind `BEST`); ")
    found = {name: "BEST" for name in re.findall(r"`(\w+)`", best)}
    found |= dict(re.findall(r"`(\w+)` \(`([A-Z_]+)`\)", rest))
    kinds = {name: cls.sensitivity_kind for name, cls in built_in().items()}
    assert found == {name: kind.name for name, kind in kinds.items() if kind is not None}


def reference() -> str:
    return "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))


def test_signatures_that_the_reference_writes_out_are_those_of_the_classes() -> None:
    text = reference()
    written = re.findall(r"^\.\. auto\w+:: ([\w.]+)\((.*)\)$", text, re.MULTILINE)
    assert written
    for where, signature in written:
        module, _, name = where.rpartition(".")
        found = inspect.signature(getattr(importlib.import_module(module), name))
        plain = [p.replace(annotation=p.empty) for p in found.parameters.values()]
        assert str(inspect.Signature(plain)) == f"({signature})", where


REFUSES_OTHERS = """
import importlib, importlib.abc, sys
refused = set(sys.argv[1].split(","))
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Refuse())
for name in sys.argv[2].split(","):
    importlib.import_module(name)
"""


@pytest.mark.slow
def test_the_reference_needs_no_more_than_the_extra_of_the_docs() -> None:
    """Without another target before it, `make docs` installs that alone."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*extras["dependencies"], *extras["optional-dependencies"]["docs"]]
    for extra in ("onnx", "plot", "report"):
        assert extra in asked[len(extras["dependencies"])]
        asked += extras["optional-dependencies"][extra]
    (replaced,) = re.findall(
        r"^autodoc_mock_imports = (.*)$", (DOCS / "conf.py").read_text(), re.M
    )
    asked += ast.literal_eval(replaced)
    others = importlib.metadata.packages_distributions().keys() - installed_with(asked)
    assert {"torchao", "torchmetrics", "sklearn", "hypothesis"} <= others
    documented = re.findall(r"^\.\. auto\w+:: ([\w.]+)", reference(), re.M)
    wanted = {name.rpartition(".")[0] for name in documented}
    wanted = {each.rpartition(".")[0] if each[:1].isupper() else each for each in wanted}
    run("-c", REFUSES_OTHERS, ",".join(others - {"optuna_quant"}), ",".join(sorted(wanted)))


def installed_with(requirements: list[str]) -> set[str]:
    """The top-level modules of packages and of what they require, of those that are installed."""
    seen: set[str] = set()
    left = list(requirements)
    while left:
        name = re.match(r"[\w.-]+", left.pop())[0].lower().replace("_", "-")
        if name not in seen:
            seen.add(name)
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                left += [r for r in importlib.metadata.requires(name) or () if "extra ==" not in r]
    of_module = importlib.metadata.packages_distributions()
    return {
        m for m, names in of_module.items() if {n.lower().replace("_", "-") for n in names} & seen
    }


def test_measuring_one_strategy_leaves_the_rows_of_the_others() -> None:
    before = (STRATEGIES / "index.md").read_text()
    rows = [line for line in before.splitlines() if re.match(r"\| \[.*\d \|$", line)]
    assert len(rows) == len(measure_strategies.RUNS)
    assert list(measure_strategies.index_table({}, before))[2:] == rows
    new = "| [mse](mse.md) | 1 | met | 0.5 | 1 | 0.1 |"
    changed = [new if row.startswith("| [mse](") else row for row in rows]
    assert list(measure_strategies.index_table({"| [mse](mse.md) | ": new}, before))[2:] == changed
    (mse,) = (row for row in rows if row.startswith("| [mse]("))
    without = before.replace(f"{mse}\n", "")
    assert (
        list(measure_strategies.index_table({"| [mse](mse.md) | ": new}, without))[2:] == changed
    )


def test_pictures_are_up_to_date() -> None:
    run(DOCS / "draw_stages.py", "--check")


def test_command_line_page_names_every_option() -> None:
    text = (DOCS / "command_line.md").read_text()
    commands = next(a for a in command_parser()._actions if a.dest == "command").choices
    assert commands is not None
    options = {
        option
        for command in commands.values()
        for action in command._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    assert {option for option in options if option not in text} == set()


def test_page_of_recipes_has_a_row_for_each() -> None:
    text = (DOCS / "recipes.md").read_text()
    _, _, table = text.partition("| recipe | values |")
    rows = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.M)
    assert sorted(rows) == sorted(RECIPES)
    chosen = [row for row in rows if not RECIPES[row].in_all]
    assert rows[-len(chosen) :] == chosen  # Those that "all" does not include come last.


def test_page_of_targets_has_a_row_for_each() -> None:
    text = (DOCS / "targets.md").read_text()
    _, _, table = text.partition("| target | execution provider |")
    firsts = re.findall(r"^\|([^|]*`[^|]*)\|", table.partition("\n\n")[0], re.M)
    assert [found for first in firsts for found in re.findall(r"`([^`]+)`", first)] == [*TARGETS]


@pytest.mark.parametrize("path", all_pages(), ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        file, _, heading = target.partition("#")
        if "://" in target:
            continue
        page = (path.parent / file) if file else path
        assert page.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert heading in anchors, target


@pytest.mark.parametrize("path", all_pages(), ids=name)
def test_lines_of_code_are_no_wider_than_their_block(path: Path) -> None:
    """Of a page that is 1,366 pixels wide or more; outputs, which are text, are wrapped."""
    wide = [
        line
        for block in run_pages.blocks(path.read_text())
        if block.language not in ("text", "{eval-rst}")
        for line in block.text.splitlines()
        if len(line) > 99
    ]
    assert not wide


def test_no_placeholder_is_left() -> None:
    for path in all_pages()[1:]:
        assert not re.findall(r"^[A-Z]+_[A-Z_]+$", path.read_text(), flags=re.MULTILINE), path


def test_files_that_pages_name_are_there() -> None:
    ours = [f"/{path}" for path in files_of_the_project()]
    missing = [
        f"{name(page)}: {file}"
        for page in [*all_pages(), ROOT / "CONTRIBUTING.md"]
        for file in sorted(named_files(page))
        if not any(path.endswith(f"/{file}") for path in ours)
    ]
    assert not missing


def texts_of(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The strings in code, with {} for what is computed."""
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_on_the_page_of_errors_are_those_of_the_package() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    shown = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(shown) > 15
    sources = (ROOT / "optuna_quant").rglob("*.py")
    said = [" ".join(text.split()) for path in sources for text in texts_of(nodes_of(path))]
    for message in shown:
        parts = (re.escape(part.strip()) for part in message.split("..."))
        pattern = re.compile(".*?".join(parts))
        assert any(pattern.search(text) for text in said), message


def test_a_block_behind_a_directive_is_found() -> None:
    text = "```{literalinclude} a.py\n:language: python\n```\n\n<!-- run -->\n```bash\nls\n```\n"
    directive, block = run_pages.blocks(text)
    assert directive.language == "{literalinclude} a.py" and not directive.runs
    assert (block.runs, block.language, block.text) == (True, "bash", "ls\n")
