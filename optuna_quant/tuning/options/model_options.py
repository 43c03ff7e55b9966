"""The options that say which model is built and how it is run, without any search.

They are those of :func:`optuna_quant.tune`, declared there: what only a search needs is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna_quant._common.nearest import did_you_mean
from optuna_quant._common.option import groups_of
from optuna_quant._common.option import options_of
from optuna_quant.tuning.options.collect import collect
from optuna_quant.tuning.options.request import TuneOptions


_ALONE = ("model", "example_inputs", "backend", "calibration_data", "inputs", "transform")
_GROUPS = ("quantization", "runtime")


def model_options() -> tuple[str, ...]:
    """The names of the options, in the order in which they are declared."""
    return tuple(
        option.name
        for option in options_of(TuneOptions).values()
        if option.name in _ALONE or option.group in _GROUPS
    )


def model_groups() -> dict[str, type]:
    """The classes of which a value holds several of them, by the argument that takes it."""
    return {name: kind for name, kind in groups_of(TuneOptions).items() if name in _GROUPS}


def model_flags(*others: str) -> tuple[str, ...]:
    """The names of those that a command can say, without the model.

    Args:
        *others:
            Further options of :func:`optuna_quant.tune` that the command has.
    """
    names = {*model_options(), *others}
    options = options_of(TuneOptions)
    return tuple(n for n in options if n in names and options[n].flag is not None)


def collect_model(caller: str, given: Mapping[str, Any]) -> TuneOptions:
    """The options of a function that builds a model and does not search.

    Args:
        caller:
            The function's name, for messages.
        given:
            What it was given, by name.

    Raises:
        TypeError:
            If there is no such option, or one has the wrong type.
        ValueError:
            If an option is not valid.
    """
    known = (*model_options(), *model_groups())
    for name in given:
        if name not in known:
            of_tune = " It is an option of tune()." if name in options_of(TuneOptions) else ""
            raise TypeError(
                f"{caller}() has no option {name!r}.{of_tune}{did_you_mean(name, known)} It has "
                f"{', '.join(known)}."
            )
    return collect(TuneOptions, given)
