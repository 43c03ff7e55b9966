"""Check the arguments of objectives."""

from __future__ import annotations

from optuna_quant.criteria import check_is_criterion
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.space.space import TuningSpace


def check_arguments(
    name: str, backend: object, space: object, evaluate: object, criterion: object
) -> None:
    """Refuse arguments of the wrong kind, which mostly stand in each other's place.

    Args:
        name:
            The class that takes them.
        backend:
            What should build models.
        space:
            What should be a tuning space.
        evaluate:
            What should be an evaluation.
        criterion:
            What should be a criterion.

    Raises:
        TypeError:
            If one is something else.
    """
    order = f"The order is {name}(backend, space, evaluate, criterion)."
    if not isinstance(space, TuningSpace):
        raise TypeError(
            "space must be a TuningSpace, such as backend.tuning_space() gives, but got "
            f"{space!r}. {order}"
        )
    if not hasattr(backend, "quantize"):
        raise TypeError(
            "backend must be an object that builds models, with quantize(config), but "
            f"got {backend!r}. {order}"
        )
    if not callable(evaluate) and not isinstance(evaluate, SampleEvaluation):
        raise TypeError(
            "evaluate must be a function that gives the metric of a model, or a DataEvaluation, "
            f"but got {evaluate!r}. {order}"
        )
    check_is_criterion(criterion)
