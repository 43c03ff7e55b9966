"""Accuracy-aware quantization search as an ordinary Optuna study."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from optuna_quant.callbacks import ExitPolicy
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.criteria import TuningCriterion
    from optuna_quant.evaluation.labelled import DataEvaluation
    from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
    from optuna_quant.evaluation.objective import QuantObjective
    from optuna_quant.space.config import OpConfig
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.config import TensorConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.api import TuningResult
    from optuna_quant.tuning.api import tune
    from optuna_quant.tuning.compare import compare
    from optuna_quant.tuning.errors import OutputError
    from optuna_quant.tuning.errors import TuningInterrupted


__version__ = "0.1.0"

__all__ = [
    "AccuracyCriterion",
    "CorpusMetric",
    "DataEvaluation",
    "ExitPolicy",
    "OpConfig",
    "OutputError",
    "QuantConfig",
    "QuantObjective",
    "SampleMetric",
    "TensorConfig",
    "TuningCriterion",
    "TuningInterrupted",
    "TuningResult",
    "TuningSpace",
    "__version__",
    "compare",
    "tune",
]

_HOME = {
    "AccuracyCriterion": "criteria",
    "CorpusMetric": "sample_metrics",
    "DataEvaluation": "data_evaluation",
    "ExitPolicy": "callbacks",
    "OpConfig": "config",
    "OutputError": "search_errors",
    "QuantConfig": "config",
    "QuantObjective": "objective",
    "SampleMetric": "sample_metrics",
    "TensorConfig": "config",
    "TuningCriterion": "criteria",
    "TuningInterrupted": "search_errors",
    "TuningResult": "tuning",
    "TuningSpace": "space",
    "compare": "costs.compare",
    "tune": "tuning",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is used first."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
