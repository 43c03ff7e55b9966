"""The table of sensitivities: its file says what it is, and damage is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from optuna_quant import SensitivityTable
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.tuning.sensitivities.output import check_table_output
from optuna_quant.tuning.sensitivities.output import shown
from optuna_quant.tuning.sensitivities.table import OptionSensitivity
from optuna_quant.tuning.sensitivities.table import as_table


ROWS = (
    OptionSensitivity("a", "Conv", "int8", 0.5),
    OptionSensitivity("a", "Conv", "int4", 0.25, enabled=False),
    OptionSensitivity("b", "Gemm", "int8", 1.5),
    OptionSensitivity("b", enabled=False),
)
TABLE = SensitivityTable("model", SensitivityKind.OP_ERROR, ROWS)


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(TABLE.to_json()) | changes)


def with_row(**fields: Any) -> str:
    return changed(scores=[{"op": "a", "option": "int8", **fields}])


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    TABLE.save(path)
    assert SensitivityTable.load(path) == TABLE
    assert as_table(str(path)) == as_table(path) == as_table(TABLE) == TABLE
    lines = path.read_text().splitlines()
    (line,) = [each for each in lines if '"int4"' in each]  # A row is a line, to be edited.
    assert json.loads(line.strip().rstrip(",")) == {
        "op": "a",
        "op_type": "Conv",
        "option": "int4",
        "score": 0.25,
        "enabled": False,
    }


def test_what_is_enabled() -> None:
    assert TABLE.is_enabled("a", "int8")
    assert not TABLE.is_enabled("a", "int4")
    assert TABLE.is_enabled("c", "int4")
    assert TABLE.disables("b")
    assert not TABLE.disables("a")
    assert TABLE.scores == {"a": {"int8": 0.5, "int4": 0.25}, "b": {"int8": 1.5}}
    without = TABLE.without("a")
    assert [row.enabled for row in without.rows] == [False, False, True, False]
    with pytest.raises(ValueError, match="no op 'aa'. Did you mean 'a'"):
        TABLE.without("aa")


def test_for_readers() -> None:
    frame = TABLE.to_frame()
    assert list(frame.columns) == ["op", "op_type", "option", "score", "enabled"]
    assert list(frame["op"]) == ["a", "a", "b", "b"]
    assert shown(TABLE).splitlines() == [
        "op  op_type  score  part  least  option",
        "b   Gemm     1.5    75%",
        "a   Conv     0.5    25%   0.25   int4",
    ]
    assert str(TABLE) == shown(TABLE)


def test_long_tables_are_cut() -> None:
    rows = tuple(OptionSensitivity(f"op{i}", "Conv", "int8", float(i)) for i in range(50))
    lines = shown(SensitivityTable("m", SensitivityKind.BEST, rows)).splitlines()
    assert lines[1].startswith("op49 ")
    assert lines[-1] == "and 10 more, less sensitive"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "not a table of sensitivities"),
        ("{}", "the file lacks the field 'version'"),
        (changed(version=2), "it has version 2, but"),
        (changed(modle="x"), "has no field 'modle'. Did you mean 'model'"),
        (changed(model=3), "'model' must be a string"),
        (changed(kind="bets"), "kind must be one of .* but is 'bets'. Did you mean 'best'"),
        (changed(kind=None), "op 'a' has a score, but the file names no kind"),
        (changed(scores=[7]), "row 1 of 'scores' must be an object, but is 7"),
        (changed(scores=[{"option": "int8"}]), "row 1 of 'scores' lacks the field 'op'"),
        (changed(scores=[{"op": 5}]), "op must be a string, but is 5"),
        (with_row(enable=False), "no field 'enable'. Did you mean 'enabled'"),
        (with_row(enabled=0), "op 'a': enabled must be true or false, but is 0"),
        (with_row(score=math.nan), "op 'a': the score must be a finite number, but is nan"),
        (with_row(score=math.inf), "must be a finite number, but is inf"),
        (with_row(score="0.5"), "must be a finite number, but is '0.5'"),
        (with_row(score=True), "must be a finite number, but is True"),
        (changed(scores=[{"op": "a", "score": 1.0}]), "is for all options of the op and has no"),
        (changed(scores=[{"op": "a"}, {"op": "a"}]), "op 'a' without an option comes twice"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"sensitivities: '.*t\.json': .*{message}"):
        as_table(path)


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'.*no\.json' cannot be read: No such file"):
        as_table(tmp_path / "no.json")
    with pytest.raises(TypeError, match="must be a SensitivityTable, or the path"):
        as_table({"a": 1.0})  # type: ignore[arg-type]


def test_an_edited_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    assert check_table_output(path) == path
    TABLE.save(path)
    with pytest.raises(ValueError, match=r"t\.json' was edited: 2 rows of it are disabled"):
        check_table_output(path)
    enabled = SensitivityTable("m", SensitivityKind.BEST, ROWS[:1])
    enabled.save(path)
    assert check_table_output(path) == path
