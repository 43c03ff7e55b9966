"""Tell someone who writes a backend which of its members gives something of the wrong form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from optuna_quant._common.protocol_members import has_member
from optuna_quant.data.inputs import InputSpec
from optuna_quant.evaluation.half_written import OF_MODELS
from optuna_quant.evaluation.half_written import warn_of_half_written


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.backends.base import Model
    from optuna_quant.space.config import QuantConfig


_MODEL = ("inputs", "outputs", "run", "nbytes", "fingerprint", "save")


def check_built(backend: Backend, model: Model) -> None:
    """Refuse what is no model, and warn of offers in part; its members are not computed.

    Raises:
        TypeError:
            If it lacks members that every model has.
    """
    missing = [name for name in _MODEL if not has_member(model, name)]
    if missing:
        raise TypeError(
            f"{type(backend).__name__}.quantize() must return an "
            f"optuna_quant.backends.base.Model, but returned a "
            f"{type(model).__name__}, which lacks {', '.join(missing)}."
        )
    warn_of_half_written(model, OF_MODELS)


def check_described(model: Model) -> None:
    """Refuse inputs and outputs of a model that are described in another form.

    Raises:
        TypeError:
            If they are.
    """
    who = type(model).__name__
    for spec in model.inputs:
        if not isinstance(spec, InputSpec):
            raise TypeError(
                f"{who}.inputs must be a sequence of optuna_quant.data.inputs.InputSpec, but has "
                f"a {type(spec).__name__}."
            )
    if isinstance(model.outputs, str):
        raise TypeError(
            f"{who}.outputs must be a sequence of names, but is the string {model.outputs!r}: "
            f"make it ({model.outputs!r},)."
        )


def executed_of(backend: Backend, config: QuantConfig) -> Mapping[str, ExecutedOp]:
    """What the runtime executes of the model of a configuration.

    Raises:
        TypeError:
            If the backend says it in another form.
    """
    found: Mapping[str, ExecutedOp] = backend.executed(config)
    who = f"{type(backend).__name__}.executed() must return a mapping of names of ops to "
    who += "optuna_quant.backends.base.OpRuns"
    if not isinstance(found, Mapping):
        raise TypeError(f"{who}, but returned a {type(found).__name__}.")
    for op, runs in found.items():
        if not all(hasattr(runs, name) for name in ("kernel", "integer", "note")):
            raise TypeError(f"{who}, but has a {type(runs).__name__} for {op!r}.")
    return found
