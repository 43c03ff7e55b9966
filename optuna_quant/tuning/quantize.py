"""Quantize a model without a search."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from optuna_quant.evaluation.backend_checks import check_built
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.tuning.built import BuiltModel
from optuna_quant.tuning.built import without_quantization
from optuna_quant.tuning.chosen_config import check_config
from optuna_quant.tuning.chosen_config import check_whole
from optuna_quant.tuning.chosen_config import is_named
from optuna_quant.tuning.chosen_config import named_config
from optuna_quant.tuning.chosen_config import read_config
from optuna_quant.tuning.chosen_config import with_recipes
from optuna_quant.tuning.model_parts import backend_of
from optuna_quant.tuning.model_parts import calibration_data_of
from optuna_quant.tuning.model_parts import inputs_of
from optuna_quant.tuning.model_parts import space_of
from optuna_quant.tuning.options.model_options import collect_model
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import endings_of
from optuna_quant.tuning.output import files_of


if TYPE_CHECKING:
    from typing import Unpack

    from optuna_quant.backends.default import ModelLike
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.tuning.chosen_config import ConfigLike
    from optuna_quant.tuning.options.flat import ModelOptions


@exits_are_errors("Something that quantize() has called")
def quantize(
    model: ModelLike | None = None,
    *,
    calibration_data: CalibrationLike | None = None,
    config: ConfigLike | None = None,
    save: str | os.PathLike[str] | None = None,
    **options: Unpack[ModelOptions],
) -> BuiltModel:
    """Quantize a model in one given way, without a search.

    The model is built as a trial of :func:`optuna_quant.tune` builds it: the same configuration
    gives the same model. Nothing is evaluated, so nothing is known of its accuracy;
    :meth:`BuiltModel.compare` measures it beside the FP32 model. Ops that are slower when
    quantized, which a search by latency leaves out, are quantized here; give ``op_types`` or
    ``op_name_dict`` to leave ops out.

    Example:

        .. code-block:: python

            built = optuna_quant.quantize("model.onnx", calibration_data="calib.npz")
            print(built)
            print(built.compare(data="eval.npz"))
            built.save("model.int8.onnx")

    Args:
        model:
            The ONNX model, as :func:`optuna_quant.tune` takes it.
        calibration_data:
            Inputs for the static approach, as there.
        config:
            How to quantize it. Default: ``"default"``, every op of the tuning space in its first
            option. The label of an option stands for every op that has it in that option, the
            others in their first one. Or a :class:`~optuna_quant.QuantConfig`, such as
            ``result.config``; or the path of a JSON file of
            :meth:`~optuna_quant.QuantConfig.to_json`, or of a CSV file as ``--report`` writes it.
            Ops that these do not name run in FP32, and recipes have their first value.
        save:
            A file to write the model to.
        **options:
            ``backend``, ``inputs``, ``transform``, and all options of
            :class:`~optuna_quant.QuantizationOptions` and :class:`~optuna_quant.RuntimeOptions`,
            as :func:`optuna_quant.tune` takes them.

    Returns:
        The model, and what can be said of it.

    Raises:
        TypeError:
            If there is no such option, or one has the wrong type.
        ValueError:
            If an argument is not valid, or the model does not have what the configuration asks
            for.
    """
    request = collect_model(
        "quantize", {"model": model, "calibration_data": calibration_data, **options}
    )
    given = None if config is None or is_named(config) else read_config(config)
    if given is not None:
        check_whole(request.quantization, "a config that")
    if save is not None:
        paths = {"model": model, "calibration data": calibration_data, "config": config}
        check_output(
            save,
            inputs={n: v for n, v in paths.items() if isinstance(v, str | os.PathLike)},
        )
    inputs = inputs_of(request)
    recipes = request.quantization.recipes
    if recipes is None and request.backend is None and given is not None and given.recipes:
        recipes = dict(given.recipes)
    backend = backend_of(request, calibration_data_of(request), inputs, recipes=recipes)
    if save is not None:
        check_output(save, inputs=files_of(backend), endings=endings_of(backend))
    if given is None:
        chosen = named_config(
            config if isinstance(config, str) else None, space_of(backend, request.quantization)
        )
    else:
        capability = backend.capability()
        check_config(given, capability)
        chosen = with_recipes(given, capability)
    built = backend.quantize(chosen)
    check_built(backend, built)
    fp32 = backend.quantize(without_quantization(chosen))
    own = {"inputs": inputs, "transform": request.evaluation.transform}
    result = BuiltModel(
        built, chosen, fp32.nbytes, backend, _given=own, _threads=request.runtime.threads or 0
    )
    if save is not None:
        result.save(save)
    return result
