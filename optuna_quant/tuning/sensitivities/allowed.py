"""What a table of sensitivities leaves of a tuning space."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.printable import listed
from optuna_quant.space.config import FP32
from optuna_quant.space.config import OpConfig
from optuna_quant.study.names import model_of
from optuna_quant.tuning.chosen_config import other_approach


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.space.capability import OpCapability
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.space.tunable import Tunable
    from optuna_quant.tuning.sensitivities.table import OptionSensitivity
    from optuna_quant.tuning.sensitivities.table import SensitivityTable

# Labels are long.
_SHOWN = 3


def allowed_space(space: TuningSpace, table: SensitivityTable, backend: Backend) -> TuningSpace:
    """A tuning space without the options that a table disables.

    An op without any quantized option left runs in FP32. If the FP32 option itself is disabled,
    the op is always quantized. Rows of ops that the space does not have are ignored.

    Args:
        space:
            The tuning space.
        table:
            The table.
        backend:
            The backend of the space.

    Raises:
        ValueError:
            If the table is about another model, has an op or an option that the backend does not
            have, or leaves an op without any option.
    """
    _check(table, backend, space)
    if not table.disabled:
        return space
    return replace(space, tunables=tuple(_allowed(each, table) for each in space.tunables))


def _allowed(tunable: Tunable, table: SensitivityTable) -> Tunable:
    left = [
        option
        for option in tunable.options
        if all(table.is_enabled(op, option.label) for op in tunable.ops)
        and not (option.is_quantized and any(table.disables(op) for op in tunable.ops))
    ]
    if left:
        return replace(tunable, options=tuple(left))
    if not all(table.is_enabled(op, FP32.label) for op in tunable.ops):
        raise ValueError(
            f"sensitivities: all options of op {tunable.name!r} are disabled, FP32 included: "
            "enable one."
        )
    return replace(tunable, options=(FP32,))


def _check(table: SensitivityTable, backend: Backend, space: TuningSpace) -> None:
    model = model_of(backend, space)
    if table.model != model:
        raise ValueError(
            f"sensitivities: they are of another model (it has the fingerprint {table.model!r}; "
            f"the one given here {model!r}). Write them again with optuna-quant sensitivity."
        )
    capability = backend.capability()
    ops = {op.name: op for op in capability.ops}
    for row in table.rows:
        if row.op not in ops:
            reason = "cannot be quantized" if row.op in capability.known_names else "is not there"
            raise ValueError(
                f"sensitivities: op {row.op!r} {reason} in this model.{did_you_mean(row.op, ops)}"
            )
        if row.option is not None:
            _check_option(row, ops[row.op])


def _check_option(row: OptionSensitivity, op: OpCapability) -> None:
    labels = [option.label for option in op.options]
    labels += [each.option.label for each in op.on_request]
    if row.option in labels or row.option == FP32.label:
        return
    hint = ""
    try:
        hint = other_approach(OpConfig.from_label(str(row.option)), op.options)
    except ValueError:
        hint = did_you_mean(str(row.option), labels)
    raise ValueError(
        f"sensitivities: op {row.op!r} has no option {row.option!r} here; it has: "
        f"{listed(labels, most=_SHOWN)}.{hint}"
    )
