"""Every field of the JSON file is documented, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from dataclasses import is_dataclass
from dataclasses import replace
import json
import math
import re
from typing import Any
from typing import get_args
from typing import get_type_hints

from places import ROOT
import pytest
from report.kinds import KINDS
from report.kinds import search

from optuna_quant.report import Report
from optuna_quant.report import collect
from optuna_quant.report.facts import FORMAT
from optuna_quant.tuning.outcome import ResultKind


PAGE = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")


def dataclasses_within(hint: Any) -> Iterator[type]:
    if is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from dataclasses_within(part)


def described(cls: type, path: str = "The whole") -> Iterator[tuple[str, set[str]]]:
    """The path of each value of a report, with the names of its fields."""
    hints = get_type_hints(cls)
    yield path, {field.name for field in fields(cls)}
    for field in fields(cls):
        for inner in dataclasses_within(hints[field.name]):
            yield from described(
                inner, field.name if path == "The whole" else f"{path}.{field.name}"
            )


def documented() -> dict[str, set[str]]:
    sections = re.split(r"^### `?([\w. ]+?)`?$", PAGE, flags=re.MULTILINE)[1:]
    return {
        name: set(re.findall(r"^\| `(\w+)` \| \S", text, flags=re.MULTILINE))
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }


def test_every_field_is_documented() -> None:
    assert documented() == dict(described(Report))


def test_the_kinds_are_documented() -> None:
    table = PAGE.partition("| kind |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(ResultKind)


def check(value: Any, cls: type) -> None:
    """The value of a dataclass in JSON has its fields, and so have those within it."""
    assert set(value) == {field.name for field in fields(cls)}
    hints = get_type_hints(cls)
    for name, part in value.items():
        for inner in dataclasses_within(hints[name]):
            for each in part if isinstance(part, list) else [part]:
                if each is not None:
                    check(each, inner)


@pytest.mark.parametrize("kind", ResultKind)
def test_the_file_has_these_fields(kind: ResultKind) -> None:
    stored = json.loads(collect(KINDS[kind]()).to_json())
    check(stored, Report)
    assert stored["format"] == FORMAT == 1
    assert stored["outcome"]["kind"] == kind


def test_numbers_that_are_not_finite_are_null() -> None:
    report = collect(replace(search(), full_evaluations=math.nan, loss_interval=(-math.inf, 0.1)))
    stored = json.loads(report.to_json())
    assert stored["effort"]["full_evaluations"] is None
    assert stored["answer"]["loss_interval"] == [None, 0.1]


def test_names_that_are_no_unicode_are_written() -> None:
    stored = json.loads(collect(search({"a\ud800": 0.05, "b": 0.3})).to_json())
    assert stored["ops"][0]["op"] == "a\ud800"
