"""Accuracy-aware quantization search as an ordinary Optuna study."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.version import __version__


if TYPE_CHECKING:
    from optuna_quant.callbacks import ExitPolicy
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.labelled import DataEvaluation
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
    from optuna_quant.evaluation.objective import QuantObjective
    from optuna_quant.evaluation.pareto_objective import ParetoObjective
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.api import TuningResult
    from optuna_quant.tuning.api import tune
    from optuna_quant.tuning.built import BuiltModel
    from optuna_quant.tuning.compare import compare
    from optuna_quant.tuning.errors import OutputError
    from optuna_quant.tuning.errors import TuningInterrupted
    from optuna_quant.tuning.export import export
    from optuna_quant.tuning.options.criterion import TuningCriterion
    from optuna_quant.tuning.options.evaluation import EvaluationOptions
    from optuna_quant.tuning.options.quantization import QuantizationOptions
    from optuna_quant.tuning.options.runtime import RuntimeOptions
    from optuna_quant.tuning.options.search import SearchOptions
    from optuna_quant.tuning.quantize import quantize
    from optuna_quant.tuning.sensitivities.measure import sensitivity
    from optuna_quant.tuning.sensitivities.table import SensitivityTable


# Our loggers are heard where Optuna's are, at the same verbosity and in the same form. They cannot
# be below Optuna's by their names. This is done once, here: the command has another parent.
logging.getLogger(__name__).parent = logging.getLogger("optuna")

__all__ = [
    "AccuracyCriterion",
    "BuiltModel",
    "CorpusMetric",
    "DataEvaluation",
    "EarlyStopping",
    "EvaluationOptions",
    "ExitPolicy",
    "OpConfig",
    "OutputError",
    "ParetoObjective",
    "QuantConfig",
    "QuantObjective",
    "QuantizationOptions",
    "RuntimeOptions",
    "SampleMetric",
    "SearchOptions",
    "SensitivityTable",
    "TensorConfig",
    "TuningCriterion",
    "TuningInterrupted",
    "TuningResult",
    "TuningSpace",
    "__version__",
    "compare",
    "export",
    "quantize",
    "sensitivity",
    "tune",
]

_HOME = {
    "AccuracyCriterion": "criteria",
    "BuiltModel": "tuning.built",
    "CorpusMetric": "evaluation.metrics.sample_metrics",
    "DataEvaluation": "evaluation.labelled",
    "EarlyStopping": "sequential",
    "ExitPolicy": "callbacks",
    "SearchOptions": "tuning.options.search",
    "SensitivityTable": "tuning.sensitivities.table",
    "RuntimeOptions": "tuning.options.runtime",
    "QuantizationOptions": "tuning.options.quantization",
    "EvaluationOptions": "tuning.options.evaluation",
    "OpConfig": "space.config",
    "OutputError": "tuning.errors",
    "ParetoObjective": "evaluation.pareto_objective",
    "QuantConfig": "space.config",
    "QuantObjective": "evaluation.objective",
    "SampleMetric": "evaluation.metrics.sample_metrics",
    "TensorConfig": "space.config",
    "TuningCriterion": "tuning.options.criterion",
    "TuningInterrupted": "tuning.errors",
    "TuningResult": "tuning.result",
    "TuningSpace": "space.space",
    "compare": "tuning.compare",
    "export": "tuning.export",
    "quantize": "tuning.quantize",
    "sensitivity": "tuning.sensitivities.measure",
    "tune": "tuning.api",
}

_PACKAGES = (
    "backends",
    "callbacks",
    "compat",
    "costs",
    "criteria",
    "dashboard",
    "data",
    "evaluation",
    "pruners",
    "report",
    "samplers",
    "selection",
    "sequential",
    "space",
    "storages",
    "study",
    "testing",
    "tuning",
    "visualization",
    "workers",
)

_OF_NEURAL_COMPRESSOR = {
    "PostTrainingQuantConfig": "optuna_quant.compat.inc.load() reads it as neural-compressor has "
    "it, or a dictionary with its fields",
    "quantization": "optuna_quant.tune() is quantization.fit(), and takes the options of "
    "PostTrainingQuantConfig: optuna_quant.compat.inc.load() reads one",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module, or a package, when it is used first."""
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name in _OF_NEURAL_COMPRESSOR:
        # Of an AttributeError, "from optuna_quant import NAME" would show no message.
        raise ImportError(
            f"optuna_quant has no {name}: {_OF_NEURAL_COMPRESSOR[name]}. See docs/migrating.md."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_PACKAGES})
