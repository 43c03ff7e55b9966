"""Tell someone who writes a backend which of its members gives something of the wrong form."""

from __future__ import annotations

from collections.abc import Mapping
import inspect
from typing import TYPE_CHECKING

from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends.base import SharesCalibration
from optuna_quant.backends.base import TrainsCandidates
from optuna_quant.data.inputs import InputSpec


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import ExecutedOp
    from optuna_quant.backends.base import Model
    from optuna_quant.space.config import QuantConfig


_MODEL = ("inputs", "outputs", "run", "nbytes", "fingerprint", "save")
# Those that the protocol has on top of others.
_TOGETHER = {
    SharesCalibration: (
        "is_calibrated",
        "calibration_key",
        "export_calibration",
        "import_calibration",
        "calibrate",
    ),
    TrainsCandidates: ("trains", "trained", "quantize_trained"),
}


def check_built(backend: Backend, model: Model) -> None:
    """Refuse what is no model; its members are not computed.

    Raises:
        TypeError:
            If it lacks members that every model has.
    """
    missing = [name for name in _MODEL if not _has(model, name)]
    if missing:
        raise TypeError(
            f"{type(backend).__name__}.quantize() must return an "
            f"optuna_quant.backends.base.Model, but returned a "
            f"{type(model).__name__}, which lacks {', '.join(missing)}."
        )


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


def warn_of_half_written(backend: Backend) -> None:
    """Warn of members that the library does not look at because others are missing."""
    for protocol, names in _TOGETHER.items():
        found = [name for name in names if _has(backend, name)]
        missing = [name for name in names if name not in found]
        if missing and found not in ([], ["calibrate"]):
            warn_user(
                f"{type(backend).__name__} has {', '.join(found)} but not {', '.join(missing)}, "
                f"so it is no {protocol.__name__}, and the library does without."
            )


def _has(value: object, name: str) -> bool:
    """Whether there is a member; what is computed is not, unless it is found in no other way."""
    nothing = object()
    found = inspect.getattr_static(value, name, nothing)
    return found is not nothing or hasattr(value, name)
