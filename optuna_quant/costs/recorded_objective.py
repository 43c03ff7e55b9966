"""The objective that a study records: by its name, which is all that it has of a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import as_objective
from optuna_quant.study import record


if TYPE_CHECKING:
    import optuna

    from optuna_quant.costs.objective import Objective


def keep_objective(study: optuna.Study, name: str) -> None:
    """Record the name of what a study minimizes.

    Args:
        study:
            The study.
        name:
            The name of the objective.
    """
    if study.user_attrs.get(record.OBJECTIVE) != name:
        study.set_user_attr(record.OBJECTIVE, name)


def objective_name(study: optuna.Study) -> str:
    """What a study minimizes, as it records it; the ops in fallback if it records nothing."""
    return str(study.user_attrs.get(record.OBJECTIVE, OPS))


def recorded_objective(study: optuna.Study) -> Objective | None:
    """What a study minimizes; :obj:`None` if it is a function, which the record does not have."""
    try:
        return as_objective(objective_name(study))
    except ValueError:
        return None
