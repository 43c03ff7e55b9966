"""The ops of an answer: what was asked of each, what runs, and why."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant.report.facts import OpFacts
from optuna_quant.tuning.op_reasons import OpReasons
from optuna_quant.tuning.op_reasons import precision_of
from optuna_quant.tuning.table import LEVEL_COLUMN
from optuna_quant.tuning.table import report


if TYPE_CHECKING:
    from optuna_quant.tuning.outcome import Outcome


QUANTIZED, FALLBACK, LEFT_OUT = "quantized", "fallback", "left_out"


def op_facts(result: Outcome) -> tuple[OpFacts, ...]:
    """A value for each op of the search, and for those that were left out of it.

    Args:
        result:
            The result.
    """
    reasons = OpReasons(result)
    frame = report(result, result.known_executed, others=False, reasons=False)
    return tuple(_op_facts(row, result, reasons) for row in frame.to_dict("records"))


def _op_facts(row: Mapping[Hashable, Any], result: Outcome, reasons: OpReasons) -> OpFacts:
    op = str(row["op"])
    errors = {} if result.explanation is None else result.explanation.errors
    level = _number(row.get(LEVEL_COLUMN))
    return OpFacts(
        op=op,
        op_type=str(row["op_type"]),
        state=_state(op, result),
        precision=_precision(op, result),
        mode=str(row["mode"]),
        activation=str(row["activation"]),
        weight=str(row["weight"]),
        accuracy_level=None if level is None else int(level),
        runs=str(row["runs"]),
        as_asked=None if row["as_asked"] is None else bool(row["as_asked"]),
        note=str(row["note"]),
        seconds_gained=_number(row.get("seconds_gained")),
        bytes_gained=_number(row.get("bytes_gained")),
        gained=_number(row.get("gained")),
        error_share=_number(row.get("error_share")),
        of_activations=_number(row.get("of_activations")),
        expected_loss=errors[op].loss if op in errors else None,
        why=reasons.of(op),
    )


def _state(op: str, result: Outcome) -> str:
    if result.config is None or op in result.left_out:
        return LEFT_OUT
    return QUANTIZED if result.config.ops[op].is_quantized else FALLBACK


def _precision(op: str, result: Outcome) -> str:
    """In what an op was asked to compute; one that is left out computes as the model does."""
    option = None if result.config is None else result.config.ops.get(op)
    return result.original if option is None else precision_of(option)


def _number(value: Any) -> float | None:
    """A number of a data frame; None if it is missing there."""
    import pandas as pd

    return None if value is None or pd.isna(value) else float(value)
