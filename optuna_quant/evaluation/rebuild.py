"""Build the model of a trial again, and check that it is the one that was evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.space.space import TuningSpace


def rebuild(trial: FrozenTrial, *, backend: Backend, space: TuningSpace) -> Model:
    """The model that a trial has evaluated, built again.

    Args:
        trial:
            The trial.
        backend:
            Builds the model.
        space:
            The tuning space of the study.

    Raises:
        ValueError:
            If what is built now is another model than the trial has evaluated.
    """
    model = backend.quantize(space.config_from_params(trial.params))
    evaluated = TrialView(trial).fingerprint
    if evaluated is not None and evaluated != model.fingerprint:
        raise ValueError(
            f"The model of trial {trial.number} cannot be built again: its configuration gives "
            "another model here, so the recorded metric does not apply. The calibration data, "
            "the machine or the libraries differ from those of the trial. Use the same ones, "
            "or start a new study."
        )
    return model
