"""Score the ops of a model in all their options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from optuna_quant.backends.base import OffersSensitivities
from optuna_quant.backends.base import SensitivityKind
from optuna_quant.evaluation.user_code import exits_are_errors
from optuna_quant.samplers._models.option_scores import score_options
from optuna_quant.study.names import model_of
from optuna_quant.tuning.model_parts import backend_of
from optuna_quant.tuning.model_parts import calibration_data_of
from optuna_quant.tuning.model_parts import inputs_of
from optuna_quant.tuning.model_parts import space_of
from optuna_quant.tuning.options.model_options import collect_model
from optuna_quant.tuning.sensitivities.output import check_table_output
from optuna_quant.tuning.sensitivities.table import OptionSensitivity
from optuna_quant.tuning.sensitivities.table import SensitivityTable
from optuna_quant.tuning.sensitivities.table import as_kind


if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence
    from typing import Unpack

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import Sensitivity
    from optuna_quant.backends.default import ModelLike
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.options.flat import ModelOptions


@exits_are_errors("Something that sensitivity() has called")
def sensitivity(
    model: ModelLike | None = None,
    *,
    calibration_data: CalibrationLike | None = None,
    kind: SensitivityKind | str = SensitivityKind.BEST,
    scores: Sensitivity | None = None,
    output_names: Sequence[str] | None = None,
    save: str | os.PathLike[str] | None = None,
    **options: Unpack[ModelOptions],
) -> SensitivityTable:
    """Score how sensitive a model is to the quantization of each op, in each of its options.

    No labels are needed, and no metric is measured: models run on the calibration data. The table
    says which ops to look at first, and ``tune(sensitivities=)`` takes it, edited or not.

    Example:

        .. code-block:: python

            table = optuna_quant.sensitivity("model.onnx", calibration_data="calib.npz")
            print(table.to_frame())
            table = table.without("stem")
            result = optuna_quant.tune("model.onnx", ..., sensitivities=table)

    Args:
        model:
            The ONNX model, as :func:`optuna_quant.tune` takes it.
        calibration_data:
            Inputs to run it on, as there.
        kind:
            What is scored, one of :class:`~optuna_quant.backends.base.SensitivityKind`. Default:
            ``"best"``, which ``auto`` uses: how far the error of each op moves the outputs, in
            one pass over 32 samples; without torch, or for models of more than 1 GiB,
            ``"op_error"``. ``"op_error"`` (for ``mse``) is the error of each op's own output.
            ``"output_error"`` (for ``mse_v2``) runs a model for each op in each option, and
            ``"curvature"`` (for ``hawq_v2``) needs torch.
        scores:
            Your own scores: a callable that takes a configuration and op names and gives
            ``{op: score}``. ``kind`` then says which those stand for.
        output_names:
            The outputs of the model that count, for kinds that look at outputs. Default: all.
        save:
            A JSON file to write the table to.
        **options:
            ``backend``, ``inputs``, ``transform``, and all options of
            :class:`~optuna_quant.QuantizationOptions` and :class:`~optuna_quant.RuntimeOptions`,
            as :func:`optuna_quant.tune` takes them, but for ``sensitivities``: what is scored is
            its tuning space.

    Returns:
        The table: the most sensitive op in its first option comes first; the options of an op
        stand together, in the order of the tuning space.

    Raises:
        TypeError:
            If there is no such option, or one has the wrong type.
        ValueError:
            If an argument is not valid, the backend does not have the kind, or there are no data
            to score with.
    """
    chosen = as_kind(kind)
    request = collect_model(
        "sensitivity", {"model": model, "calibration_data": calibration_data, **options}
    )
    if request.quantization.sensitivities is not None:
        raise ValueError("sensitivities are what is measured here: leave the option out.")
    if save is not None:
        paths = {"model": model, "calibration data": calibration_data}
        inputs = {n: v for n, v in paths.items() if isinstance(v, str | os.PathLike)}
        check_table_output(save, inputs=inputs)
    backend = backend_of(
        request,
        calibration_data_of(request),
        inputs_of(request),
        recipes=request.quantization.recipes,
    )
    space = space_of(backend, request.quantization)
    found = _scores(
        space, _sensitivity(backend, chosen, output_names) if scores is None else scores
    )
    table = SensitivityTable(model_of(backend, space), chosen, _rows(space, found))
    if save is not None:
        table.save(save)
    return table


def _sensitivity(
    backend: Backend, kind: SensitivityKind, outputs: Sequence[str] | None
) -> Sensitivity:
    offered = backend.sensitivities() if isinstance(backend, OffersSensitivities) else {}
    factory = offered.get(kind)
    if factory is None:
        have = ", ".join(repr(each.value) for each in offered)
        raise ValueError(
            f"kind: this backend has no sensitivities of the kind {kind.value!r}"
            f"{f'; it has {have}' if have else ', nor any others'}. Give scores= of your own."
        )
    made = factory(outputs=outputs)
    if made is None:
        raise ValueError(
            "calibration_data (--calibration) is needed: ops are scored by running the model on "
            "samples like those that it will see in use."
        )
    return made


def _scores(space: TuningSpace, sensitivity: Sensitivity) -> dict[tuple[str, str], float]:
    """The score of each op in each quantized option, by its name and the option's label."""
    tunables = [tunable for tunable in space.tunables if tunable.quantized]
    ops = [op for tunable in tunables for op in tunable.ops]
    configs: list[QuantConfig] = []
    for i in range(max(len(tunable.quantized) for tunable in tunables)):
        config = space.fp32()
        for tunable in tunables:
            config = tunable.set(config, tunable.quantized[min(i, len(tunable.quantized) - 1)])
        configs.append(config)
    found: dict[tuple[str, str], float] = {}
    of_configs: Sequence[Mapping[str, float]] = score_options(sensitivity, configs, ops)
    for config, of_config in zip(configs, of_configs, strict=True):
        for op in ops:
            found.setdefault((op, config.ops[op].label), of_config[op])
    return found


def _rows(
    space: TuningSpace, scores: Mapping[tuple[str, str], float]
) -> tuple[OptionSensitivity, ...]:
    tunables = [tunable for tunable in space.tunables if tunable.quantized]
    ops = [(op, tunable) for tunable in tunables for op in tunable.ops]
    ordered = sorted(ops, key=lambda each: -scores[each[0], each[1].default.label])
    types = {op: tunable.op_type for op, tunable in ops}
    return tuple(
        OptionSensitivity(op, types[op], option.label, scores[op, option.label])
        for op, tunable in ordered
        for option in tunable.quantized
    )
