"""Write a report to a file, in the form that its ending says."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from optuna_quant.backends.base import atomic_write
from optuna_quant.report.collect import collect
from optuna_quant.report.page import check_can_render
from optuna_quant.tuning.output import NO_FILES
from optuna_quant.tuning.output import OtherFiles
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import files_of
from optuna_quant.tuning.table import report


if TYPE_CHECKING:
    from optuna_quant.tuning.outcome import Outcome


HTML, JSON, CSV = ".html", ".json", ".csv"
ENDINGS: Mapping[str, str] = MappingProxyType(
    {HTML: "a page", JSON: "all facts", CSV: "the table of the ops"}
)
"""The endings of the files that reports are written to, with what these hold."""


def check_report(
    path: str | os.PathLike[str],
    *,
    inputs: OtherFiles = NO_FILES,
) -> Path:
    """Find out now whether a report can be written to a file later.

    For the arguments see :func:`~optuna_quant.tuning.output.check_output`.

    Raises:
        ImportError:
            If its form needs a package that is not installed; it names the extra.
        ValueError:
            If it has an unknown ending, cannot be written, or is one of the other files.
    """
    file = check_output(path, "report", inputs=inputs)
    ending = _ending(file)
    if ending not in ENDINGS:
        known = ", ".join(f"{name} ({what})" for name, what in ENDINGS.items())
        raise ValueError(
            f"The report {str(file)!r} has "
            f"{f'the unknown ending {ending!r}' if ending else 'no ending'}; give one of {known}."
        )
    if ending == HTML:
        check_can_render()
    return file


def save_report(result: Outcome, path: str | os.PathLike[str]) -> None:
    """Write a report of a result to a file; see :meth:`optuna_quant.TuningResult.save_report`.

    Args:
        result:
            The result.
        path:
            The file.
    """
    file = check_report(path, inputs=files_of(result.backend))
    ending = _ending(file)
    if ending == CSV:
        text = report(result).to_csv(index=False)
    elif ending == JSON:
        text = collect(result).to_json()
    else:
        text = collect(result).to_html()
    # Names that are no Unicode are escaped, not lost.
    atomic_write(file, text.encode(errors="backslashreplace"))


def _ending(file: Path) -> str:
    return file.suffix.lower()
