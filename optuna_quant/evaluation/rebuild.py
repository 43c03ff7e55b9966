"""Build the model of a trial again, and check that it is the one that was evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.evaluation.study_training import hyperparameters_of
from optuna_quant.study.trial_view import TrialView


if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Model
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


def built(
    config: QuantConfig, params: Mapping[str, Any], backend: Backend, space: TuningSpace
) -> Model:
    """The model of a trial's configuration, as it is deployed, with what was trained for it.

    Args:
        config:
            The configuration.
        params:
            The parameters of the trial.
        backend:
            Builds the model.
        space:
            The tuning space.
    """
    if isinstance(backend, TrainsCandidates) and backend.trains(config):
        return backend.quantize_trained(config, hyperparameters_of(params, space))
    return backend.quantize(config)


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
    model = built(space.config_from_params(trial.params), trial.params, backend, space)
    evaluated = TrialView(trial).fingerprint
    if evaluated is not None and evaluated != model.fingerprint:
        raise ValueError(
            f"The model of trial {trial.number} cannot be built again: its configuration gives "
            "another model here, so the recorded metric does not apply. The calibration data, "
            "the machine or the libraries differ from those of the trial. Use the same ones, "
            "or start a new study."
        )
    return model
