"""What may be quantized, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna_quant._common.option import Flag
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import CHOICES
from optuna_quant._common.option_kinds import COUNTS
from optuna_quant._common.option_kinds import FILE
from optuna_quant._common.option_kinds import OP_TYPES
from optuna_quant._common.option_kinds import SWITCH
from optuna_quant._common.option_kinds import TABLE
from optuna_quant._common.option_kinds import TARGET
from optuna_quant._common.option_kinds import TEXT


if TYPE_CHECKING:
    from optuna_quant.backends.default import RecipesLike
    from optuna_quant.backends.default import TargetLike
    from optuna_quant.space.wishes import OpDict
    from optuna_quant.tuning.sensitivities.table import SensitivitiesLike


_HEADING = "what is quantized"


@dataclass(frozen=True, kw_only=True)
class QuantizationOptions:
    """What may be quantized, and how.

    Args:
        approach:
            ``"static"``, ``"dynamic"``, ``"weight_only"`` (weights of 4 or 8 bits in groups, for a
            smaller model), or ``"auto"`` (static, and dynamic for ops that allow it;
            weight-only where ``op_type_dict`` or ``op_name_dict`` names that mode, or weights of 4
            bits).
            Default: ``"static"``, and ``"auto"`` for a model of which 5% or more are the weights
            of ops that only dynamic quantization takes (LSTM).
        target:
            What device the model is for: ``"cpu"``, ``"cpu-avx2"`` (x86 without VNNI instructions;
            on ARM no product saturates), ``"cuda"``, ``"tensorrt"``, ``"openvino"``,
            ``"openvino-gpu"``, ``"qnn"``, a
            :class:`~optuna_quant.backends.onnxruntime.TargetProfile`, or the path of a JSON or
            TOML file with one. It decides what is offered and in what form models are written.
            Where the installed ONNX Runtime lacks its execution provider, models are simulated in
            floats on the CPU, no times are measured, and the objective is by default
            ``"bit_operations"``. Default: ``"cpu"``. See ``docs/targets.md``.
        float16_storage:
            Whether models store the weights that stay in floats as float16: half their size, as
            fast.
        reduce_range:
            Whether weights have 7 bits in the 8 that they take, so that no processor without VNNI
            instructions saturates. Default: as the target asks for.
        op_types:
            Which ops to tune: ``"default"`` (those worth quantizing: where latency is the
            objective, none that makes the model slower here), ``"all"``, or the op types, all
            ops of which are tuned; ``["default", "Gather"]`` are those worth quantizing, slower
            or not, and those of a type.
        op_type_dict:
            What to allow, by op type, see :func:`optuna_quant.space.narrowing.narrow`.
        op_name_dict:
            What to allow, by op name.
        sensitivities:
            A table of :func:`optuna_quant.sensitivity`, or the path of its file, as you have
            edited it: an option that is not ``"enabled"`` is left out of the tuning space, and an
            op all of whose options are disabled runs in FP32. The scores take the place of those
            that the strategy would measure, if they are of the kind that it uses. See
            ``docs/sensitivities.md``.
        calibration_sizes:
            The calibration sampling sizes to choose from, default first. Default: all samples.
        recipes:
            Methods for the whole model to choose from: ``"auto"`` (those that the model's
            structure suggests), ``"all"``, ``"none"``, names, or a dict that says for each name
            what it may be (True, False, a value, or a list of them), with the settings of a recipe
            as ``NAME_args``, and with ``"all": True`` for all others. Default: ``"auto"`` for the
            strategies auto, surrogate, pareto, basic, mse, mse_v2 and hawq_v2, also for those
            that a dict does not name; otherwise, and where nothing is searched, none. See
            ``docs/recipes.md``.
    """

    approach: str | None = option(
        None,
        Flag(
            help="static quantization (needs --calibration), dynamic, weight_only (weights of 4 "
            "or 8 bits in groups), or auto: static first, then dynamic for ops that support it "
            "(default: static; auto if at least 5 percent of the model are weights of ops that "
            "support only dynamic quantization, such as LSTM)",
            kind=TEXT,
            choices=("static", "dynamic", "weight_only", "auto"),
            heading=_HEADING,
            common=True,
        ),
    )
    target: TargetLike | None = option(
        None,
        Flag(
            help="the device that the model is for: cpu, cpu-avx2, cuda, tensorrt, openvino, "
            "openvino-gpu, qnn, or a JSON or TOML file with a profile of your own; simulated on "
            "the CPU if its execution provider is not installed (default: cpu)",
            kind=TARGET,
            metavar="NAME|FILE",
            heading=_HEADING,
            reads="file of --target",
        ),
    )
    float16_storage: bool | None = option(
        None,
        Flag(
            help="store the weights that stay in floats as float16, with half the size",
            kind=SWITCH,
            value=True,
            heading=_HEADING,
        ),
    )
    reduce_range: bool | None = option(
        None,
        Flag(
            help="give 8-bit weights 7 bits, for x86 processors without VNNI instructions",
            kind=SWITCH,
            value=True,
            heading=_HEADING,
        ),
    )
    op_types: Sequence[str] | str = option(
        "default",
        Flag(
            help="which ops to tune: 'default' (the types that are worth quantizing), 'all', "
            "or op types separated by commas (Conv,Gemm; default,Gather)",
            kind=OP_TYPES,
            metavar="TYPES",
            heading=_HEADING,
        ),
    )
    op_type_dict: OpDict | None = option(
        None,
        Flag(
            help="what to allow, by op type, as JSON or @FILE: "
            '{"Conv": {"weight": {"granularity": ["per_channel"]}}}',
            kind=TABLE,
            metavar="JSON",
            heading=_HEADING,
            reads="file of --op-type-dict",
        ),
    )
    op_name_dict: OpDict | None = option(
        None,
        Flag(
            help="what to allow, by op name (a regular expression); overrides --op-type-dict",
            kind=TABLE,
            metavar="JSON",
            heading=_HEADING,
            reads="file of --op-name-dict",
        ),
    )
    sensitivities: SensitivitiesLike | None = option(
        None,
        Flag(
            help="the file of 'optuna-quant sensitivity', as you have edited it: what it disables "
            "is left out, an op without an enabled option runs in FP32, and its scores take the "
            "place of those that the strategy would measure, if they are of the kind that it uses",
            kind=FILE,
            metavar="FILE",
            heading=_HEADING,
            reads="file of --sensitivities",
        ),
    )
    calibration_sizes: Sequence[int] | None = option(
        None,
        Flag(
            help="use only the first N calibration samples",
            kind=COUNTS,
            names=("--calibration-samples",),
            metavar="N",
            heading="data and evaluation",
        ),
    )
    recipes: RecipesLike | None = option(
        None,
        Flag(
            help="methods for the whole model to choose from, such as equalization and "
            "smooth_quant: 'auto' (those that the model's structure suggests), 'all', 'none', "
            "names separated by commas, or what each may be, as JSON or @FILE: "
            '{"equalization": true, "smooth_quant": ["off", "alpha=0.5"]} (default: auto for '
            "the strategies auto, surrogate, pareto, basic, mse, mse_v2 and hawq_v2, otherwise "
            "none)",
            kind=CHOICES,
            metavar="NAMES",
            heading=_HEADING,
            reads="file of --recipes",
        ),
    )
