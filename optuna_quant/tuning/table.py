"""The report of a result: what each op was asked to run and what it runs."""

from __future__ import annotations

from dataclasses import replace
import json
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.costs.gain_per_op import left_out_by_cost
from optuna_quant.costs.worth import gain_columns
from optuna_quant.tuning.what_runs import op_runs
from optuna_quant.tuning.what_runs import runs_as_asked


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    import pandas as pd

    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.costs.gain_per_op import OpGain
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.keys import RecipeValue
    from optuna_quant.space.left_out import LeftOut
    from optuna_quant.tuning.outcome import Outcome


_logger = get_logger(__name__)

_COLUMNS = ("op", "op_type", "mode", "activation", "weight", "runs", "as_asked", "note")
LEVEL_COLUMN = "accuracy_level"
"""The column of the accuracy levels of ops in weight-only mode."""
RECIPES_COLUMN = "recipes"
"""The column of the recipes of the whole model, as JSON, the same for all ops."""


NOT_SEARCHED = "not searched"
"""What the note of an op begins with that was not searched."""


def report(
    result: Outcome,
    executed: Mapping[str, ExecutedOp] | None = None,
    *,
    others: bool = True,
) -> pd.DataFrame:
    """What was asked of each op, and what runs; see :meth:`TuningResult.report`.

    Args:
        result:
            The result.
        executed:
            What runs, as far as it is known. Default: what the backend says, or its error.
        others:
            Whether the ops that might be quantized and were not searched have rows as well.
    """
    import pandas as pd

    if result.config is None:
        return pd.DataFrame(columns=list(_COLUMNS))
    op_types = {op: t.op_type for t in result.space.tunables for op in t.ops}
    if executed is None:
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
    if others:
        rows += [_row_not_searched(each) for each in result.not_searched]
    recipes = changed_recipes(result.config, result.space.recipes)
    return _frame(rows, replace(result.config, recipes=recipes), [*_COLUMNS, *columns])


def _row_left_out(op: str, gain: OpGain | None) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(_COLUMNS, "")
    row |= {"op": op, "mode": "fp32", "as_asked": None, "note": "left out"}
    if gain is not None:
        row |= {"op_type": gain.op_type, "note": f"left out, {left_out_by_cost(gain).reason}"}
    return row


def _row_not_searched(each: LeftOut) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(_COLUMNS, "")
    why = f"{each.reason}: {each.remedy}" if each.remedy else each.reason
    row |= {"op": each.op, "op_type": each.op_type, "mode": "fp32", "as_asked": None}
    return row | {"note": f"{NOT_SEARCHED}: {why}"}


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

    Returns:
        A row for each op. The column :data:`LEVEL_COLUMN` is there if an op has such a level, and
        :data:`RECIPES_COLUMN` if the configuration names recipes.
    """
    rows = [asked_row(op, op_types.get(op, ""), each, executed) for op, each in config.ops.items()]
    return _frame(rows, config, _COLUMNS)


def _frame(
    rows: Sequence[Mapping[str, object]], config: QuantConfig, columns: Sequence[str]
) -> pd.DataFrame:
    """The rows as a data frame, with the accuracy levels and the recipes if there are any."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns))
    levels = {op: each.accuracy_level for op, each in config.ops.items()}
    if any(level is not None for level in levels.values()):
        # Int64 has missing values; with floats, a file would say 4.0.
        of_rows = pd.Series([levels.get(op) for op in frame["op"]], dtype="Int64")
        frame.insert(list(columns).index("weight") + 1, LEVEL_COLUMN, of_rows)
    if config.recipes:
        frame[RECIPES_COLUMN] = json.dumps(dict(config.recipes))
    return frame


def changed_recipes(
    config: QuantConfig, offered: Mapping[str, Sequence[RecipeValue]]
) -> dict[str, RecipeValue]:
    """The recipes of a configuration that are not at their defaults, or that are fixed.

    Args:
        config:
            The configuration.
        offered:
            The values of each recipe that were to choose from, the default first.
    """
    return {
        name: value
        for name, value in config.recipes.items()
        if len(offered[name]) == 1 or value != offered[name][0]
    }


def recipes_line(config: QuantConfig, offered: Mapping[str, Sequence[RecipeValue]]) -> list[str]:
    """Those recipes in a line of text; no line if there are none."""
    shown = [f"{name}={value}" for name, value in changed_recipes(config, offered).items()]
    return [f"recipes: {'; '.join(shown)}"] if shown else []


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
        "as_asked": runs_as_asked(config, runs),
        "note": runs.note,
    }
