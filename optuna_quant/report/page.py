"""Write facts as one HTML page that loads nothing from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.extras import install_hint
from optuna_quant._common.printable import printable
from optuna_quant.costs.gain import shown_ratio
from optuna_quant.costs.objective import shown_seconds
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.report import charts
from optuna_quant.report.facts import RECORD
from optuna_quant.report.facts import Facts
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.study.names import given_name
from optuna_quant.study.stage_words import shown_stage


if TYPE_CHECKING:
    import jinja2


_FOLDER = Path(__file__).parent / "templates"
_WITHOUT_JINJA = (
    f"Reports in HTML need jinja2: {install_hint('report')}. Reports in .json and .csv do not."
)


def check_can_render() -> None:
    """Find out now whether pages can be written.

    Raises:
        ImportError:
            If jinja2 is not installed; it names the extra.
    """
    _import_jinja()


def _import_jinja() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(_WITHOUT_JINJA) from error
    return jinja2


def to_html(facts: Facts) -> str:
    """Facts as a page.

    Args:
        facts:
            The facts.

    Raises:
        ImportError:
            If jinja2 is not installed; it names the extra.
    """
    template = _environment().get_template("page.html")
    criterion = AccuracyCriterion(
        higher_is_better=facts.criterion.higher_is_better,
        criterion=facts.criterion.criterion,
        tolerable_loss=facts.criterion.tolerable_loss,
    )
    return template.render(
        r=facts,
        from_record=facts.source == RECORD,
        criterion=criterion,
        style=_read("style.css"),
        script=_read("script.js"),
        gains=charts.gain_bars(facts.gain, facts.model.original),
        loss=charts.loss_chart(facts.answer, facts.criterion),
        trials=charts.trial_chart(facts.search.trials, criterion),
        trials_height=charts.TRIALS_HEIGHT,
        times=charts.time_bars(facts.time),
        most_share=max((op.error_share or 0.0 for op in facts.ops), default=0.0),
        config=json.dumps(facts.reproduce.config, indent=1),
    )


def _without_label(headline: str) -> str:
    """A headline without the capitals before its colon, which the page shows by themselves."""
    label, _, rest = headline.partition(": ")
    return f"{rest[0].upper()}{rest[1:]}" if rest and label.isupper() else headline


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    """What fills in the templates: strings are escaped, and a missing name is an error."""
    jinja = _import_jinja()
    found: jinja2.Environment = jinja.Environment(
        loader=jinja.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "bytes": shown_bytes,
        "duration": charts.shown_duration,
        "given": given_name,
        "number": lambda value: f"{value:.6g}",
        "ratio": shown_ratio,
        "percent": lambda value: f"{100 * value:.3g}%",
        "seconds": shown_seconds,
        "sentence": _without_label,
        "stage": shown_stage,
        "text": printable,
    }
    found.filters.update(filters)
    return found
