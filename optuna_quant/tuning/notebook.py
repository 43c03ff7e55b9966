"""Show a result as a small table in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from optuna_quant._common.printable import printable
from optuna_quant.costs.objective import shown_seconds
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.summary import headline
from optuna_quant.tuning.summary import ops_line


if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from optuna_quant.costs.comparison import Comparison
    from optuna_quant.tuning.built import BuiltModel
    from optuna_quant.tuning.outcome import Outcome


_CELL = "text-align: left"


def result_html(result: Outcome) -> str:
    """The outcome in words, the metric, and time and size beside FP32.

    Args:
        result:
            The result.
    """
    return _with_table(headline(result), _rows(result))


def built_html(built: BuiltModel) -> str:
    """The lines of the summary of a model that was built without a search."""
    head, *rest = built.summary().splitlines()
    return _with_table(head, [("", line) for line in rest])


def comparison_html(found: Comparison) -> str:
    """The lines of a comparison."""
    rows = [line.partition(" ")[::2] for line in str(found).splitlines()]
    return _with_table("", [(name, text.strip()) for name, text in rows])


def _rows(result: Outcome) -> Iterable[tuple[str, str]]:
    criterion, original = result.criterion, result.original
    if result.metric is not None:
        about = "" if result.samples is None else "about "
        seen = "" if result.samples is None else f" ({result.samples[0]} of {result.samples[1]}"
        seen += " samples)" if seen else ""
        yield "metric", f"{about}{result.metric:.6g}{seen}"
    if result.baseline is not None:
        yield f"metric of {original}", f"{result.baseline:.6g}"
    if result.loss is not None and not result.is_fp32:
        yield "loss", f"{'about ' if result.samples else ''}{criterion.show(result.loss)}"
    yield "criterion", str(criterion)
    if result.is_fp32:
        return
    gain = result.gain
    if gain is not None and gain.seconds is not None and gain.fp32_seconds is not None:
        yield (
            "time",
            f"{shown_seconds(gain.seconds)} ({original}: {shown_seconds(gain.fp32_seconds)})",
        )
    if gain is not None and gain.nbytes is not None and gain.fp32_bytes is not None:
        yield "size", f"{shown_bytes(gain.nbytes)} ({original}: {shown_bytes(gain.fp32_bytes)})"
    elif result.trial is not None and (size := TrialView(result.trial).model_bytes) is not None:
        yield "size", shown_bytes(size)
    if result.config is not None:
        yield "ops", ops_line(result)


def _with_table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """A sentence and a table; whatever models and data are called is escaped."""
    body = "".join(
        f'<tr><th style="{_CELL}">{_shown(name)}</th><td style="{_CELL}">{_shown(text)}</td></tr>'
        for name, text in rows
    )
    said = f"<p><b>{_shown(head)}</b></p>" if head else ""
    return f"<div>{said}<table>{body}</table></div>"


def _shown(text: str) -> str:
    return escape(printable(text))
