"""Write and show a table of sensitivities."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_quant._common.printable import percent
from optuna_quant._common.printable import printable
from optuna_quant.tuning.output import NO_FILES
from optuna_quant.tuning.output import OtherFiles
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.sensitivities.table import SensitivityTable


if TYPE_CHECKING:
    from optuna_quant.tuning.sensitivities.table import OptionSensitivity


# Longer tables are read in the file.
_MOST_ROWS = 40
# Another option is worth saying where it scores less than this part of the first.
_LESS = 0.9


def check_table_output(
    path: str | os.PathLike[str],
    *,
    inputs: OtherFiles = NO_FILES,
) -> Path:
    """Find out now whether a table can be written later, and whether an edited one would be lost.

    For the arguments see :func:`~optuna_quant.tuning.output.check_output`.

    Raises:
        ValueError:
            If it cannot be written, or what is there has disabled rows.
    """
    file = check_output(path, inputs=inputs)
    if not file.is_file():
        return file
    try:
        disabled = len(SensitivityTable.load(file).disabled)
    except ValueError:
        return file
    if disabled:
        raise ValueError(
            f"The output {str(file)!r} was edited: {disabled} row{'' if disabled == 1 else 's'} "
            "of it are disabled. Delete it, or choose another file."
        )
    return file


def shown(table: SensitivityTable) -> str:
    """The ops with their scores, most sensitive first.

    Args:
        table:
            The table.

    Returns:
        A line for each op: its score in the first of its options, what part that is of the sum
        over ops, and the option in which it scores least, where that is clearly less.
    """
    options: dict[str, list[OptionSensitivity]] = {}
    for row in table.rows:
        if row.score is not None:
            options.setdefault(row.op, []).append(row)
    total = sum(max(0.0, _score(rows[0])) for rows in options.values())
    lines = [["op", "op_type", "score", "part", "least", "option"]]
    for op, rows in sorted(options.items(), key=lambda item: -_score(item[1][0])):
        first, least = rows[0], min(rows, key=_score)
        part = f"{percent(max(0.0, _score(first)) / total)}%" if total else ""
        matters = _score(least) < _LESS * _score(first)
        best = [f"{_score(least):.3g}", str(least.option)] if matters else ["", ""]
        lines.append([op, first.op_type, f"{_score(first):.3g}", part, *best])
    more = len(lines) - 1 - _MOST_ROWS
    if more > 0:
        lines = lines[: _MOST_ROWS + 1]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    if more > 0:
        text.append(f"and {more} more, less sensitive")
    return "\n".join(map(printable, text))


def _score(row: OptionSensitivity) -> float:
    return 0.0 if row.score is None else row.score
