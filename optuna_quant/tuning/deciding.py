"""Decide before the search what it minimizes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from optuna_quant.costs.search_problem import SearchProblem
from optuna_quant.costs.search_problem import decide
from optuna_quant.study.errors import ChangedError
from optuna_quant.study.names import model_of_study
from optuna_quant.study.others import has_results
from optuna_quant.study.renewal import renew
from optuna_quant.study.space_signature import check_protocol
from optuna_quant.study.space_signature import check_space


if TYPE_CHECKING:
    import optuna

    from optuna_quant.costs import Objective
    from optuna_quant.costs.study_costs import StudyCosts
    from optuna_quant.space.space import TuningSpace


def decide_for(
    study: optuna.Study,
    *,
    space: TuningSpace,
    objective: Objective | None,
    costs: StudyCosts,
    may_narrow: bool,
    model: str,
) -> tuple[optuna.Study, SearchProblem]:
    """What a study is to make small, and it; a new one for other ops, if it has no results.

    Where FP32 was the answer one may well ask for other ops next.

    Args:
        study:
            The study.
        space:
            The tuning space.
        objective:
            What is to be small, as the user has said it; :obj:`None` for the default.
        costs:
            What ops cost.
        may_narrow:
            Whether it is left to the library which ops are tuned.
        model:
            What tells the FP32 model from others.
    """
    decided = partial(decide, objective=objective, space=space, costs=costs, may_narrow=may_narrow)
    problem = decided(study)
    if not problem.is_other_space or has_results(study) or model != model_of_study(study):
        return study, problem
    check_protocol(study)
    try:
        check_space(study, space)
    except ValueError as error:
        study = renew(study, ChangedError(str(error)))
    return study, decided(study)
