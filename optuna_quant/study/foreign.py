"""Trials of a study that have not evaluated a configuration of its tuning space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant import _optuna
from optuna_quant._common.printable import listed
from optuna_quant.study.started_trial import StartedTrial


if TYPE_CHECKING:
    from collections.abc import Iterable

    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

_MOST_NAMES = 3


def warn_of_foreign_trials(study: optuna.Study, space: TuningSpace) -> None:
    """Warn of trials of another search in a study that is continued.

    Args:
        study:
            The study.
        space:
            The tuning space.
    """
    trials = [trial for trial in _optuna.all_trials(study) if trial.state.is_finished()]
    foreign = [trial for trial in trials if StartedTrial(trial).is_foreign]
    if foreign:
        _logger.warning(
            f"{len(foreign)} of the {len(trials)} trials so far of the study "
            f"{study.study_name!r} are of another search: they have "
            f"{_shown(foreign[0].params)} and no parameter "
            f"{space.prefix + '.*'!r}. They do not count here, but study.best_trial may be one of "
            "them; another study name keeps the two apart."
        )


def warn_of_other_parameters(study: optuna.Study, trial: FrozenTrial, space: TuningSpace) -> None:
    """Warn of a trial that did not ask for what its sampler has chosen for it.

    Args:
        study:
            The study.
        trial:
            The trial, which is complete.
        space:
            The tuning space of the sampler.
    """
    missing = next(p.name for p in space.parameters if p.name not in trial.params)
    _logger.warning(
        f"Trial {trial.number} of the study {study.study_name!r} has not evaluated the "
        f"configuration that the sampler has chosen: its parameters ({_shown(trial.params)}) lack "
        f"{missing!r} of the sampler's tuning space. Call suggest(trial) of the space that the "
        "sampler was given."
    )


def _shown(names: Iterable[str]) -> str:
    given = [repr(name) for name in names]
    shown, more = given[:_MOST_NAMES], len(given) - _MOST_NAMES
    return f"{', '.join(shown)} and {more} more" if more > 0 else listed(shown) or "none"
