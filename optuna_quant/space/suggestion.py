"""Asking a trial for the parameters of a tuning space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.distributions import CategoricalDistribution
from optuna.trial import Trial

from optuna_quant import _optuna
from optuna_quant.storages.write_buffer import buffered_writes


if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping
    from collections.abc import Sequence

    import optuna
    from optuna.distributions import BaseDistribution

    from optuna_quant.space.keys import RecipeValue
    from optuna_quant.space.tunable import Parameter


def suggest_params(
    trial: optuna.trial.BaseTrial, parameters: Sequence[Parameter]
) -> dict[str, RecipeValue]:
    """The choice of a trial for each parameter, by its name; written at once when all are chosen.

    Args:
        trial:
            The trial.
        parameters:
            The parameters of the space.

    Raises:
        ValueError:
            If the trial is given a value that is none of the choices, as by
            ``enqueue_trial``, or the sampler or the study has other choices.
    """
    try:
        with buffered_writes(trial):
            return {p.name: _suggested(trial, p.name, p.choices) for p in parameters}
    except ValueError as error:
        difference = _difference(trial, parameters)
        if difference is None:
            raise
        raise ValueError(
            f"{difference}. Make one space, space = backend.tuning_space(...), and give it to "
            "the sampler and the objective; a study of another space needs another name."
        ) from error


def _difference(trial: optuna.trial.BaseTrial, parameters: Sequence[Parameter]) -> str | None:
    """What parameter has other choices in the sampler or in another trial, if one has."""
    own = {p.name: CategoricalDistribution(p.choices) for p in parameters}
    for whose, distributions in _distributions_elsewhere(trial):
        for name, other in distributions.items():
            if name in own and other != own[name]:
                return (
                    f"The parameter {name!r} has other choices in the tuning space {whose} "
                    "than in the one that is asked here"
                )
    return None


def _distributions_elsewhere(
    trial: optuna.trial.BaseTrial,
) -> Iterator[tuple[str, Mapping[str, BaseDistribution]]]:
    """The distributions that the sampler of a running trial has, and those of the study.

    Args:
        trial:
            The trial.

    Yields:
        Whose they are, in words, and the distributions by name.
    """
    if isinstance(trial, Trial):
        yield "of the sampler", trial.relative_search_space or {}
        for other in trial.study.get_trials(deepcopy=False):
            yield f"of trial {other.number}", other.distributions


def _suggested(
    trial: optuna.trial.BaseTrial, name: str, choices: Sequence[RecipeValue]
) -> RecipeValue:
    """The choice of a trial for a parameter.

    Raises:
        ValueError:
            If the trial is given a value that is none of the choices, as by ``enqueue_trial``.
    """
    try:
        return trial.suggest_categorical(name, choices)
    except ValueError as error:
        given = _optuna.given_value(trial, name)
        if given is None or given in choices:
            raise
        known = ", ".join(map(repr, choices))
        raise ValueError(
            f"Trial {trial.number} was enqueued with {name!r} = {given!r}, which is not one of "
            f"its choices in the tuning space: {known}."
        ) from error
