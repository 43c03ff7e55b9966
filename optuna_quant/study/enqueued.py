"""The trials that a user has enqueued in a study."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant import _optuna
from optuna_quant._common.nearest import did_you_mean_inside
from optuna_quant._common.nearest import nearest
from optuna_quant._common.printable import listed
from optuna_quant.study import record
from optuna_quant.study.started_trial import StartedTrial


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)


def waiting(study: optuna.Study) -> list[FrozenTrial]:
    """The trials in the queue."""
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))


def is_for_space(trial: FrozenTrial, space: TuningSpace) -> bool:
    """Whether an enqueued trial fixes a parameter of a tuning space, and has choices of it."""
    fixed, distributions = StartedTrial(trial).known_params, space.distributions()
    return bool(fixed.keys() & distributions.keys()) and _misfit(fixed, distributions) is None


def take_out_misfits(study: optuna.Study, space: TuningSpace) -> None:
    """Mark enqueued trials as failed whose parameters are outside the tuning space.

    They say why in their user attribute ``failure``, and so does a warning.
    """
    for trial in waiting(study):
        reason = why_not(StartedTrial(trial).known_params, space)
        if reason is not None and _optuna.fail_waiting(
            study, trial, {record.FAILURE: reason, record.FAILURE_IS_FINAL: True}
        ):
            _logger.warning(f"Trial {trial.number} is not evaluated. {reason}")


def why_not(fixed: Mapping[str, Any], space: TuningSpace) -> str | None:
    """Why a tuning space has no such configuration; :obj:`None` if it has."""
    distributions = space.distributions()
    misfit = _misfit(fixed, distributions)
    if misfit is None:
        return None
    name, value = misfit
    known = ", ".join(repr(choice) for choice in getattr(distributions[name], "choices", ()))
    return (
        f"Enqueued with {name!r} = {value!r}, which is not one of its choices in the tuning "
        f"space: {known}."
    )


def warn_of_unknown_names(trial: FrozenTrial, space: TuningSpace) -> None:
    """Say what names an enqueued trial fixes that look like the space's and are none of them.

    Names that are not much like any of them may be parameters of the user's.

    Args:
        trial:
            The trial.
        space:
            The tuning space.
    """
    known = space.distributions()
    found = [
        f"{name!r}{did_you_mean_inside(name, known)}"
        for name in StartedTrial(trial).fixed_params
        if name not in known
        and (name.startswith(f"{space.prefix}.") or nearest(name, known) is not None)
    ]
    if found:
        _logger.warning(
            f"Trial {trial.number} was enqueued with {listed(found)}, which the tuning space does "
            "not have: that is ignored."
        )


def valid_choices(
    fixed: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """The fixed parameters that are valid choices of the space."""
    return {
        name: value
        for name, value in fixed.items()
        if name in distributions and _has(distributions[name], value)
    }


def only_enqueued(objective: Callable[..., float]) -> Callable[[optuna.Trial], float]:
    """The objective, for trials from the queue alone.

    They are evaluated even if an equal model was, since a user has asked for it; the same
    configuration is not. Another worker may have taken the last one: then Optuna starts a new
    trial, which no user has asked for.
    """

    def evaluate(trial: optuna.Trial) -> float:
        if StartedTrial.of_running(trial).is_enqueued:
            return objective(trial, again=True)
        trial.set_user_attr(record.INTERRUPTED, True)
        return math.nan

    return evaluate


def _misfit(
    fixed: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> tuple[str, Any] | None:
    for name, value in fixed.items():
        if name in distributions and not _has(distributions[name], value):
            return name, value
    return None


def _has(distribution: BaseDistribution, value: Any) -> bool:
    # By type as well: Python takes True and 1 for equal.
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
    return any(type(choice) is type(value) and choice == value for choice in choices)
