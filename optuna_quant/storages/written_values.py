"""What is written of a trial, and whether it fits what the study has."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple
from typing import NoReturn

from optuna.distributions import BaseDistribution
from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import UpdateFinishedTrialError


class Parameter(NamedTuple):
    """A parameter as ``BaseStorage.set_trial_param`` takes it."""

    name: str
    internal_value: float
    distribution: BaseDistribution


@dataclass(frozen=True)
class Written:
    """The parameters and attributes of a trial.

    Args:
        params:
            The parameters, in order.
        user_attrs:
            User attributes, which are numbers, strings, lists and dictionaries of those.
        system_attrs:
            System attributes, as above.
    """

    params: Sequence[Parameter]
    user_attrs: Mapping[str, Any]
    system_attrs: Mapping[str, Any]


def compatible(params: Sequence[Parameter], known: Mapping[str, BaseDistribution]) -> int:
    """How many of the parameters, from the first on, fit what the study has."""
    for position, param in enumerate(params):
        try:
            check_compatible(param, known)
        except ValueError:
            return position
    return len(params)


def check_compatible(param: Parameter, known: Mapping[str, BaseDistribution]) -> None:
    """Refuse a parameter of which the study has another kind of distribution.

    Raises:
        ValueError:
            If it has.
    """
    if param.name in known:
        check_distribution_compatibility(known[param.name], param.distribution)


def refuse_finished(trial_number: int) -> NoReturn:
    """Raise that a trial has ended, as Optuna does."""
    raise UpdateFinishedTrialError(
        f"Trial#{trial_number} has already finished and can not be updated."
    )
