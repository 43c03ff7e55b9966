"""A report: the facts of a result, and the forms that it is written in."""

from __future__ import annotations

from dataclasses import dataclass

from optuna_quant.report.facts import Facts
from optuna_quant.report.json_form import to_json
from optuna_quant.report.page import to_html


@dataclass(frozen=True, kw_only=True)
class Report(Facts):
    """The facts of a result; ``docs/report.md`` describes each field.

    The same record gives the same report.
    """

    def to_json(self) -> str:
        """The facts as JSON; numbers that are not finite are null."""
        return to_json(self)

    def to_html(self) -> str:
        """The facts as one page that loads nothing from elsewhere.

        Raises:
            ImportError:
                If jinja2 is not installed; it names the extra.
        """
        return to_html(self)
