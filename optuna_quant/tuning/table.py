"""The report of a result: what each op was asked to run and what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.costs.paying import left_out_by_cost
from optuna_quant.costs.worth import gain_columns
from optuna_quant.tuning.what_runs import is_integer
from optuna_quant.tuning.what_runs import op_runs


if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.costs.paying import OpGain
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.tuning.outcome import Outcome


_logger = get_logger(__name__)

_COLUMNS = ("op", "op_type", "mode", "activation", "weight", "runs", "as_asked", "note")


def report(result: Outcome) -> pd.DataFrame:
    """What was asked of each op, and what runs; see :meth:`TuningResult.report`."""
    import pandas as pd

    if result.config is None:
        return pd.DataFrame(columns=list(_COLUMNS))
    op_types = {op: t.op_type for t in result.space.tunables for op in t.ops}
    executed = result.executed
    assert executed is not None
    columns: dict[str, Mapping[str, float | None]] = {}
    columns |= gain_columns(result.known_objective, result.space, result.config)
    errors = {} if result.explanation is None else result.explanation.errors
    if errors:
        columns["error_share"] = {op: error.share for op, error in errors.items()}
        columns["of_activations"] = {op: error.activations for op, error in errors.items()}
    rows = [
        asked_row(op, op_types.get(op, ""), config, executed)
        | {name: gains.get(op) for name, gains in columns.items()}
        for op, config in result.config.ops.items()
    ]
    rows += [_row_left_out(op, gain) for op, gain in result.left_out.items()]
    return pd.DataFrame(rows, columns=[*_COLUMNS, *columns])


def _row_left_out(op: str, gain: OpGain | None) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(_COLUMNS, "")
    row |= {"op": op, "mode": "fp32", "as_asked": None, "note": "left out"}
    if gain is not None:
        row |= {"op_type": gain.op_type, "note": f"left out, {left_out_by_cost(gain).reason}"}
    return row


def asked_report(
    config: QuantConfig, op_types: Mapping[str, str], executed: Mapping[str, ExecutedOp]
) -> pd.DataFrame:
    """What is asked of each op of a configuration, and what runs.

    Args:
        config:
            The configuration.
        op_types:
            The type of each op, as far as it is known.
        executed:
            What runs, as the backend says.
    """
    import pandas as pd

    rows = [asked_row(op, op_types.get(op, ""), each, executed) for op, each in config.ops.items()]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def asked_row(
    op: str, op_type: str, config: OpConfig, executed: Mapping[str, ExecutedOp]
) -> dict[str, object]:
    """What is asked of one op, and what runs."""
    runs = op_runs(executed, op)
    return {
        "op": op,
        "op_type": op_type,
        "mode": config.mode,
        "activation": "" if config.activation is None else config.activation.label,
        "weight": "" if config.weight is None else config.weight.label,
        "runs": runs.kernel,
        "as_asked": None if runs.integer is None else runs.integer == is_integer(config),
        "note": runs.note,
    }
