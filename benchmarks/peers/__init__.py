"""Against AMD Quark and NNCF, on the same cases: see README.md in this folder.

The peers run in environments of their own, whose Pythons the environment variables
``QUARK_PYTHON`` and ``NNCF_PYTHON`` name. What was found is kept in ``results.json``; peers run
again only where something is missing there, or with ``--rerun-peers``, ours always.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import json
import os
from pathlib import Path
import platform
import tempfile
from typing import Any

from benchmarks.peers.measure import measure_quality
from benchmarks.peers.measure import measure_time
from benchmarks.peers.table import make_table
from benchmarks.peers.table import write_table
from benchmarks.peers.tasks import CASES
from benchmarks.peers.tasks import REAL
from benchmarks.peers.tasks import make_task
from benchmarks.peers.tasks import write_task
from benchmarks.peers.tools import OURS
from benchmarks.peers.tools import PEERS
from benchmarks.peers.tools import Tool
from benchmarks.peers.tools import run_tool


HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "peers.md"


def run(cases: Path | None) -> None:
    """Ours again and the peers where they are missing, without writing anything down."""
    assert cases is not None
    main(["--cases", str(cases), "--keep"])


def main(given: Sequence[str] | None = None) -> None:
    """The command, see ``--help``."""
    args = _parser().parse_args(given)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}

    def save() -> None:
        if not args.keep:
            args.results.write_text(json.dumps(results, indent=1) + "\n")

    if not args.only_table:
        with tempfile.TemporaryDirectory() as temporary:
            work = (args.work or Path(temporary)).resolve()
            for name in args.case or [*CASES, *(REAL if args.real_models else ())]:
                _compare(name, results.setdefault(name, {}), work, args, save)
    table = make_table(results, [*CASES, *REAL], [tool.name for tool in (*OURS, *PEERS)])
    print(f"\n{table}")
    if args.write:
        write_table(args.write, table)


def _compare(
    name: str,
    found: dict[str, dict[str, Any]],
    work: Path,
    args: argparse.Namespace,
    save: Callable[[], None],
) -> None:
    """Run on a case what is to be run, and change what was found for it."""
    task = make_task(name, args.cases, args.real_models)
    write_task(task, work / "tasks" / name)
    tools = [tool for tool in (*OURS, *PEERS) if not args.tool or tool.name in args.tool]
    models = {tool.name: work / name / f"{tool.search}_{tool.way}" for tool in (*OURS, *PEERS)}
    models = {tool: out / "model.onnx" for tool, out in models.items()}
    for tool in tools:
        model = models[tool.name]
        if _is_due(tool, found, args):
            outcome = run_tool(tool, work / "tasks" / name, model.parent, timeout=args.timeout)
            outcome |= {"relative": task.relative, "samples": len(task.x)}
            outcome |= {"processor": _processor(), "versions": tool.versions()}
            found[tool.name] = outcome
        if tool.name in found and model.exists():
            try:
                found[tool.name] |= measure_quality(task, model)
            except Exception as error:  # the runtime does not take the model
                found[tool.name]["message"] = f"its model: {error}"[:500].replace("\n", " ")
        print(f"{name}, {tool.name}: {found.get(tool.name)}", flush=True)
        save()
    # All together, so that whatever slows the machine down slows all of them down.
    names = [
        tool for tool, path in models.items() if path.exists() and "loss" in found.get(tool, {})
    ]
    for tool_name, facts in zip(
        names, measure_time(task, [models[t] for t in names]), strict=True
    ):
        found[tool_name] |= facts
    save()


def _is_due(tool: Tool, found: dict[str, Any], args: argparse.Namespace) -> bool:
    if args.only_measure:
        return False
    if tool.variable is None:
        return True
    if tool.name in found and not args.rerun_peers:
        return False
    if tool.python is None:
        print(f"left out: {tool.name}, {tool.variable} is not set")
    return tool.python is not None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""
    )
    return f"{model or platform.processor()}{', with VNNI' if 'vnni' in flags else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    real = os.environ.get("REAL_MODELS")
    parser.add_argument("--cases", type=Path, required=True, help="a directory with the cases")
    parser.add_argument(
        "--real-models",
        type=Path,
        default=Path(real) if real else None,
        help="the models of CASES/real (default: the environment variable REAL_MODELS)",
    )
    parser.add_argument("--case", action="append", help="a case (default: all); may be repeated")
    parser.add_argument("--tool", action="append", help="a tool (default: all); may be repeated")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results.json", help="what was found, kept as JSON"
    )
    parser.add_argument("--keep", action="store_true", help="leave the file of results as it is")
    parser.add_argument("--rerun-peers", action="store_true", help="run the peers again")
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        help="processor seconds for a search (default: %(default)s)",
    )
    parser.add_argument(
        "--only-measure", action="store_true", help="run no search, measure what is in --work"
    )
    parser.add_argument("--only-table", action="store_true", help="run and measure nothing")
    parser.add_argument("--work", type=Path, help="keep models and logs in this folder")
    parser.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=PAGE,
        help="put the table into a page (default: docs/peers.md)",
    )
    return parser
