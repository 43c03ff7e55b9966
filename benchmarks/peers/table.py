"""The table of the comparison, and writing it into a page."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.measure import BATCH_SIZES


BEGIN, END = "<!-- figures of the comparison -->", "<!-- end of the figures -->"
_HEAD = (
    "case",
    "tool",
    "met",
    "loss",
    "evaluations' worth",
    "other runs",
    "in integers",
    *(f"time, batch {size}" for size in BATCH_SIZES),
    "file",
    "CPU s",
)


def make_table(
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    cases: Sequence[str],
    tools: Sequence[str],
) -> str:
    """A row for each case and tool that there is a result of, as a Markdown table.

    Args:
        results:
            The results by case and tool.
        cases:
            The cases, in order.
        tools:
            The tools, in order.
    """
    rows = [
        _row(case, tool, results[case][tool])
        for case in cases
        for tool in tools
        if tool in results.get(case, {})
    ]
    notes = [
        f"{case}, {tool}: {results[case][tool]['status']}: `{results[case][tool]['message']}`"
        for case in cases
        for tool in tools
        if results.get(case, {}).get(tool, {}).get("message")
    ]
    aligned = ["---", "---", "---", *["---:"] * (len(_HEAD) - 3)]
    lines = ["| " + " | ".join(row) + " |" for row in (_HEAD, aligned, *rows)]
    return "\n".join(lines + [""] * bool(notes) + [f"- {note}" for note in notes])


def _row(case: str, tool: str, result: Mapping[str, Any]) -> list[str]:
    found = [case, tool, _met(result)]
    if "loss" not in result:
        found += ["", *_sets(result), "", *[""] * len(BATCH_SIZES), ""]
    else:
        percent = f"{100 * result['loss']:.2f}%" if result["relative"] else f"{result['loss']:.4f}"
        found += [
            percent,
            *_sets(result),
            f"{result['integer']} of {result['ops']}",
            *(_ratio(result, size) for size in BATCH_SIZES),
            f"{result['bytes'] / result['fp32_bytes']:.2f}",
        ]
    return [*found, f"{result['cpu_seconds']:.1f}" if "cpu_seconds" in result else ""]


def _met(result: Mapping[str, Any]) -> str:
    if result["status"] != "done":
        return str(result["status"])
    return "yes" if result.get("met") else "no"


def _ratio(result: Mapping[str, Any], size: int) -> str:
    ratio = result.get(f"ratio_{size}")
    return "" if ratio is None else f"{ratio:.2f}"


def _sets(result: Mapping[str, Any]) -> list[str]:
    return [f"{result[kind]:.1f}" if kind in result else "" for kind in ("sets", "other_sets")]


def write_table(page: Path, table: str) -> None:
    """Put a table into a page, between the comments that mark its place.

    Raises:
        ValueError:
            If the page does not have them.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r} to put the table between.")
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
