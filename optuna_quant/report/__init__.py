"""Reports of a search: all facts of its result as one value, as JSON, and as a page.

``docs/report.md`` shows a page, and describes the fields of the JSON file.

May import: `tuning` and what is below it.
"""

from optuna_quant.report.collect import collect
from optuna_quant.report.collect import collect_recorded
from optuna_quant.report.files import ENDINGS
from optuna_quant.report.files import check_report
from optuna_quant.report.files import save_report
from optuna_quant.report.report import Report


__all__ = ["ENDINGS", "Report", "check_report", "collect", "collect_recorded", "save_report"]
