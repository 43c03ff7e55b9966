"""Show a result as a small table in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant._common.notebook_table import notebook_table
from optuna_quant.backends.base import shown_sizes_of
from optuna_quant.costs.objective import shown_seconds
from optuna_quant.space.left_out import shown_bytes
from optuna_quant.tuning.summary import headline
from optuna_quant.tuning.summary import ops_line


if TYPE_CHECKING:
    from collections.abc import Iterable

    from optuna_quant.tuning.outcome import Outcome


def result_html(result: Outcome) -> str:
    """The outcome in words, the metric, and time and size beside FP32.

    Args:
        result:
            The result.
    """
    return notebook_table(headline(result), _rows(result))


def _rows(result: Outcome) -> Iterable[tuple[str, str]]:
    criterion, original = result.criterion, result.original
    for warning in result.warnings:
        yield "warning", warning
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
        size = f"size{shown_sizes_of(result.backend)}"
        yield size, f"{shown_bytes(gain.nbytes)} ({original}: {shown_bytes(gain.fp32_bytes)})"
    elif result.nbytes is not None:
        fp32 = result.fp32_bytes
        beside = "" if fp32 is None else f" ({original}: {shown_bytes(fp32)})"
        size = f"size{shown_sizes_of(result.backend)}"
        yield size, f"{shown_bytes(result.nbytes)}{beside}"
    if result.config is not None:
        yield "ops", ops_line(result)
