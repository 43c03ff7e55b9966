"""Check that what is to be built is a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.trial import BaseTrial

from optuna_quant.space.config import QuantConfig


def check_is_config(given: object) -> None:
    """Refuse what stands in the place of a configuration.

    Raises:
        TypeError:
            If it is none; for a trial and for parameters it says how to get one.
    """
    if isinstance(given, QuantConfig):
        return
    hint = "such as space.default() or space.suggest(trial)"
    if isinstance(given, BaseTrial):
        hint = "and not the trial: space.suggest(trial) gives that of a trial"
    elif isinstance(given, Mapping):
        hint = "and not parameters: space.config_from_params(params) gives theirs"
    raise TypeError(f"config must be a QuantConfig, {hint}. Got a {type(given).__name__}.")
