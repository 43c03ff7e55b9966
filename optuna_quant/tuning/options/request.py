"""All options of a search."""

from __future__ import annotations

from dataclasses import dataclass
import os
from typing import TYPE_CHECKING

from optuna_quant._common.option import Flag
from optuna_quant._common.option import group
from optuna_quant._common.option import group_or_none
from optuna_quant._common.option import option
from optuna_quant._common.option_kinds import ADDRESS
from optuna_quant._common.option_kinds import DATA
from optuna_quant._common.option_kinds import FUNCTION
from optuna_quant._common.option_kinds import INTEGER
from optuna_quant._common.option_kinds import METRIC
from optuna_quant._common.option_kinds import OUTPUT
from optuna_quant._common.option_kinds import TEXT
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.options.evaluation import EvaluationOptions
from optuna_quant.tuning.options.quantization import QuantizationOptions
from optuna_quant.tuning.options.runtime import RuntimeOptions
from optuna_quant.tuning.options.search import SearchOptions


if TYPE_CHECKING:
    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.default import ModelLike
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.metrics.sample_metrics import Metric
    from optuna_quant.evaluation.setup import Evaluate
    from optuna_quant.storages.open import Storage


_DATA = "data and evaluation"
_RECORD = "output and record"


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """All options of :func:`~optuna_quant.tune`, where they are described."""

    model: ModelLike | None = option(None)
    example_inputs: object = option(None)
    backend: Backend | None = option(None)
    calibration_data: CalibrationLike | None = option(
        None,
        Flag(
            help="calibration samples: an array for each input of the model, under its name; "
            "or a folder with an .npy file for each input, or a folder of images",
            kind=DATA,
            names=("--calibration",),
            metavar="X.npz",
            heading=_DATA,
            reads="calibration file",
            common=True,
        ),
    )
    evaluate: Evaluate | None = option(
        None,
        Flag(
            help="function that gets an onnxruntime.InferenceSession and returns the metric, "
            "or one score for each sample; if it has a parameter named indices, it is asked "
            "for some of them (FUNC may be omitted if it is named evaluate)",
            kind=FUNCTION,
            metavar="FILE.py:FUNC",
            heading=_DATA,
            reads="evaluation file",
            common=True,
        ),
    )
    data: DataLike | None = option(
        None,
        Flag(
            help="instead of --evaluate: labelled data, the inputs under their names and "
            "'labels'; or a folder with an .npy file for each, or with a folder of images for "
            "each class; without labels for agreement, cosine and relative_error. Each model "
            "is evaluated on no more samples than are needed to decide about it",
            kind=DATA,
            metavar="X.npz",
            heading=_DATA,
            reads="data file",
            common=True,
        ),
    )
    metric: Metric | None = option(
        None,
        Flag(
            help="the metric on --data: accuracy, top5 (or another number), exact_match, iou, "
            "mse or mae; with scikit-learn f1, f1_macro, roc_auc, r2, log_loss, ...; without "
            "labels, how closely the output agrees with the FP32 model's: agreement (of "
            "classes), cosine or relative_error; or FILE.py:NAME, a function that gets the "
            "model's output and the labels and returns the score of each sample, an "
            "optuna_quant.SampleMetric, or a torchmetrics object (default: accuracy)",
            kind=METRIC,
            heading=_DATA,
            common=True,
        ),
    )
    output: str | os.PathLike[str] | None = option(
        None,
        Flag(
            help="where to write the best model so far (default: NAME.quantized.onnx in this "
            "directory, for a model NAME.onnx)",
            kind=OUTPUT,
            names=("--output", "-o"),
            metavar="OUT.onnx",
            heading=_RECORD,
            common=True,
        ),
    )
    storage: Storage = option(
        None,
        Flag(
            help="where to keep the record: a file, sqlite:///FILE, postgresql://..., "
            "mysql://..., redis://..., or grpc://HOST:PORT (default: the "
            "environment variable OPTUNA_STORAGE, otherwise the file OUT.optuna_quant.journal "
            "beside the output)",
            kind=ADDRESS,
            metavar="URL",
            heading=_RECORD,
            common=True,
        ),
    )
    study_name: str | None = option(
        None,
        Flag(
            help="the study's name there (default: the model's name and a hash)",
            kind=TEXT,
            metavar="NAME",
            heading=_RECORD,
            common=True,
        ),
    )
    accuracy_criterion: AccuracyCriterion | None = group_or_none(AccuracyCriterion)
    tuning_criterion: TuningCriterion | None = group_or_none(TuningCriterion)
    evaluation: EvaluationOptions = group(EvaluationOptions)
    quantization: QuantizationOptions = group(QuantizationOptions)
    runtime: RuntimeOptions = group(RuntimeOptions)
    search: SearchOptions = group(SearchOptions)
    seed: int = option(0, Flag(help="the random seed", kind=INTEGER))
