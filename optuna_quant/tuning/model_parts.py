"""What all commands need that build models: the backend of a model, and its tuning space."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from optuna_quant.backends.base import HasConstantInputs
from optuna_quant.backends.default import make_backend
from optuna_quant.data.loaders import kept_in_memory
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.tuning.sensitivities.allowed import allowed_space
from optuna_quant.tuning.sensitivities.table import as_table


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.default import ModelLike
    from optuna_quant.backends.default import RecipesLike
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.data.given import DataLike
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.options.quantization import QuantizationOptions
    from optuna_quant.tuning.options.request import TuneOptions

    _Measured: TypeAlias = Callable[[Evaluate | None, DataLike | None], Evaluate]


def inputs_of(request: TuneOptions) -> InputValues | None:
    """The inputs that are the same for all samples: those given, or the backend's."""
    inputs = request.evaluation.inputs
    if inputs is None and isinstance(request.backend, HasConstantInputs):
        return request.backend.inputs
    return inputs


def calibration_data_of(request: TuneOptions) -> CalibrationLike | None:
    """The calibration data, in a form that can be read more than once."""
    given = request.calibration_data
    if isinstance(given, Iterator):
        return kept_in_memory(given, "the calibration data")
    return given


def backend_of(
    request: TuneOptions,
    calibration_data: CalibrationLike | None,
    inputs: InputValues | None,
    *,
    recipes: RecipesLike | None,
) -> Backend:
    """The backend of the model that is given, or the one that is given instead.

    Args:
        request:
            The options.
        calibration_data:
            The calibration data.
        inputs:
            The inputs that are the same for all samples.
        recipes:
            The recipes that are asked for.

    Raises:
        ValueError:
            If the model or the data cannot be used, or an option belongs to the given backend.
    """
    allowed, runtime = request.quantization, request.runtime
    options = {
        "example_inputs": request.example_inputs,
        "approach": allowed.approach,
        "calibration_data": calibration_data,
        "calibration_sizes": allowed.calibration_sizes,
        "recipes": recipes,
        "inputs": inputs or None,
        "transform": request.evaluation.transform,
        "latency_batch_size": request.evaluation.latency_batch_size,
        "providers": runtime.providers,
        "session_options": None if request.backend is not None else runtime.session(),
        "cache_dir": runtime.cache_dir,
        "target": allowed.target,
        "float16_storage": allowed.float16_storage,
        "reduce_range": allowed.reduce_range,
    }
    if request.backend is None:
        return make_backend(request.model, **options)
    own = {**options, "inputs": None, "transform": None}
    own |= {"session_options": runtime.session_options, "threads": runtime.threads}
    _check_backend_alone(request.model, own)
    return request.backend


def space_of(backend: Backend, allowed: QuantizationOptions) -> TuningSpace:
    """The tuning space of what is allowed; it has a quantized option.

    Raises:
        ValueError:
            If nothing is left to be quantized.
    """
    space = backend.tuning_space(
        op_types=allowed.op_types,
        op_type_dict=allowed.op_type_dict,
        op_name_dict=allowed.op_name_dict,
    )
    if allowed.sensitivities is not None:
        space = allowed_space(space, as_table(allowed.sensitivities), backend)
    _check_quantizes(
        space,
        op_type_dict=allowed.op_type_dict,
        op_name_dict=allowed.op_name_dict,
        sensitivities=allowed.sensitivities,
    )
    return space


def _check_backend_alone(model: ModelLike | None, options: Mapping[str, Any]) -> None:
    given = [name for name, value in {"model": model, **options}.items() if value is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: {'this belongs' if len(given) == 1 else 'these belong'} to the "
            "backend that you pass; set it there."
        )


def _check_quantizes(space: TuningSpace, **narrowing: object) -> None:
    if any(tunable.quantized for tunable in space.tunables):
        return
    given = [name for name, value in narrowing.items() if value]
    if not given:
        raise ValueError("The tuning space has no quantized option, so there is nothing to tune.")
    leave = "leaves" if given in (["op_type_dict"], ["op_name_dict"]) else "leave"
    raise ValueError(
        f"{' and '.join(given)} {leave} no op any quantized option, so there is nothing to tune: "
        "allow a quantized mode for one op at least."
    )
