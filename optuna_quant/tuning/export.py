"""Write the model of a recorded trial to a file."""

from __future__ import annotations

from dataclasses import replace
import os
from typing import TYPE_CHECKING

from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.evaluation.shared_calibration import take_calibration
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.storages.errors import storage_errors
from optuna_quant.study.compatibility import check_models
from optuna_quant.study.compatibility import signature_of_models
from optuna_quant.study.names import model_of
from optuna_quant.study.record_check import check_record
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.space_signature import check_protocol
from optuna_quant.tuning.built import BuiltModel
from optuna_quant.tuning.built import without_quantization
from optuna_quant.tuning.chosen_config import check_config
from optuna_quant.tuning.chosen_config import check_whole
from optuna_quant.tuning.model_parts import backend_of
from optuna_quant.tuning.model_parts import calibration_data_of
from optuna_quant.tuning.model_parts import inputs_of
from optuna_quant.tuning.options.model_options import collect_model
from optuna_quant.tuning.output import check_output
from optuna_quant.tuning.output import endings_of
from optuna_quant.tuning.output import files_of
from optuna_quant.tuning.output import storage_file
from optuna_quant.tuning.recorded_study import BEST
from optuna_quant.tuning.recorded_study import RecordedTrials
from optuna_quant.tuning.recorded_study import check_trial
from optuna_quant.tuning.recorded_study import find_recorded
from optuna_quant.tuning.usual_recipes import with_usual


if TYPE_CHECKING:
    from typing import Unpack

    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.default import ModelLike
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.storages.open import Storage
    from optuna_quant.tuning.options.flat import ModelOptions


@exits_are_errors("Something that export() has called")
@storage_errors()
def export(
    model: ModelLike | None = None,
    *,
    storage: Storage,
    study_name: str | None = None,
    trial: int | str = BEST,
    calibration_data: CalibrationLike | None = None,
    save: str | os.PathLike[str] | None = None,
    **options: Unpack[ModelOptions],
) -> BuiltModel:
    """Build the model of a finished trial of a recorded study again.

    The model, the calibration data and the options must be those of the study, and what is built
    must be what the trial has evaluated: both are checked by what the record keeps of them.
    Nothing is evaluated, and nothing is written to the study.

    Example:

        .. code-block:: python

            optuna_quant.export(
                "model.onnx",
                storage="model.quantized.optuna_quant.journal",
                trial=7,
                calibration_data="calib.npz",
                save="trial7.onnx",
            )

    Args:
        model:
            The ONNX model, as :func:`optuna_quant.tune` was given it.
        storage:
            Where the study is kept, as there.
        study_name:
            The name of the study. Default: the only one there, or the only one of this model.
        trial:
            The number of the trial; any that has ended, whether it met the criterion or not.
            Default: ``"best"``, the best that meets the study's criterion by the costs that were
            predicted. (Of the best few, :func:`optuna_quant.tune` takes the one that proves
            fastest when it is measured, and says its number.)
        calibration_data:
            The calibration data, as :func:`optuna_quant.tune` was given them.
        save:
            A file to write the model to.
        **options:
            ``backend``, ``inputs``, ``transform``, and those options of
            :class:`~optuna_quant.QuantizationOptions` and :class:`~optuna_quant.RuntimeOptions`
            that :func:`optuna_quant.tune` was given; but not ``op_types``, ``op_type_dict``,
            ``op_name_dict`` and ``sensitivities``, since the trial says the option of each op.

    Returns:
        The model, with what the record says of it.

    Raises:
        TypeError:
            If there is no such option, or one has the wrong type.
        DamagedRecordError:
            If the record was damaged.
        ValueError:
            If there is no such study or trial, an argument is not valid, or the model would be
            another than that of the trial.
    """
    check_trial(trial)
    request = collect_model(
        "export", {"model": model, "calibration_data": calibration_data, **options}
    )
    check_whole(request.quantization, "a trial, which")
    if save is not None:
        paths = {"model": model, "calibration data": calibration_data}
        given = {n: v for n, v in paths.items() if isinstance(v, str | os.PathLike)}
        journal = storage_file(storage)
        check_output(save, inputs=given if journal is None else {**given, "storage": journal})
    inputs = inputs_of(request)
    recipes = request.quantization.recipes
    if request.backend is None:
        recipes = with_usual(recipes)  # As a search offers them.
    backend = backend_of(request, calibration_data_of(request), inputs, recipes=recipes)
    if save is not None:
        check_output(save, inputs=files_of(backend), endings=endings_of(backend))
    everything = backend.tuning_space(op_types="all")
    study = find_recorded(storage, study_name, model_of(backend, everything))
    check_protocol(study)
    check_models(study, signature_of_models(backend, everything))
    check_record(study)
    trials = RecordedTrials(study)
    chosen = trials.find(trial)
    space = _space(study, backend)
    if space.key_from_params(chosen.params) is None:
        raise ValueError(
            f"trial: trial {chosen.number} of the study {study.study_name!r} has no configuration "
            f"of its tuning space: it {'failed early' if not chosen.params else 'is another one'}."
        )
    config = space.config_from_params(chosen.params)
    check_config(config, backend.capability())
    take_calibration(study, backend, config)
    own = {"inputs": inputs, "transform": request.evaluation.transform}
    result = BuiltModel(
        rebuild(chosen, backend=backend, space=space),
        config,
        backend.quantize(without_quantization(config)).nbytes,
        backend,
        trials.describe(chosen),
        chosen,
        own,
        request.runtime.threads or 0,
    )
    if save is not None:
        result.save(save)
    return result


def _space(study: optuna.Study, backend: Backend) -> TuningSpace:
    """The study's tuning space, with its ops in model order."""
    places = {op.name: place for place, op in enumerate(backend.capability().ops)}
    found = recorded_space(study)
    ordered = sorted(found.tunables, key=lambda t: min(places.get(o, len(places)) for o in t.ops))
    return replace(found, tunables=tuple(ordered))
