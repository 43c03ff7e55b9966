"""Checks of what a sampler is given."""

from __future__ import annotations

from optuna.samplers import BaseSampler

from optuna_quant.criteria import check_is_criterion
from optuna_quant.space.space import TuningSpace


def check_types(space: object, criterion: object, independent_sampler: object) -> None:
    """Check the types of a sampler's arguments.

    Args:
        space:
            The tuning space.
        criterion:
            When a metric is good enough; None for none.
        independent_sampler:
            The sampler of all other parameters; None for the default.

    Raises:
        TypeError:
            If one has another type.
    """
    if not isinstance(space, TuningSpace):
        raise TypeError(
            f"space must be a TuningSpace, such as backend.tuning_space() gives, but got "
            f"{space!r}."
        )
    if criterion is not None:
        check_is_criterion(criterion)
    if independent_sampler is not None and not isinstance(independent_sampler, BaseSampler):
        raise TypeError(
            "independent_sampler must be a sampler of Optuna's, such as "
            f"optuna.samplers.TPESampler(seed=0), but got {independent_sampler!r}."
        )
