"""The options that tune() takes by name, for type checkers and editors.

Written by docs/write_options.py from the classes that declare them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any
from typing import TypedDict

import optuna
from optuna.trial import FrozenTrial

from optuna_quant.backends.base import Backend
from optuna_quant.backends.default import RecipesLike
from optuna_quant.backends.default import RunSettings
from optuna_quant.backends.default import TargetLike
from optuna_quant.costs.given import CostsLike
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.data.forms import InputValues
from optuna_quant.data.forms import Transform
from optuna_quant.data.given import DataLike
from optuna_quant.evaluation.setup import Evaluate
from optuna_quant.space.wishes import OpDict
from optuna_quant.storages.artifacts import ArtifactStore
from optuna_quant.tuning.earlier_study import FromStudy
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.options.evaluation import EvaluationOptions
from optuna_quant.tuning.options.quantization import QuantizationOptions
from optuna_quant.tuning.options.runtime import RuntimeOptions
from optuna_quant.tuning.options.search import SearchOptions
from optuna_quant.tuning.sensitivities.table import SensitivitiesLike


class FurtherOptions(TypedDict, total=False):
    """See :func:`optuna_quant.tune`."""

    example_inputs: object
    backend: Backend | None
    higher_is_better: bool
    criterion: str
    strategy_kwargs: Mapping[str, Any] | None
    stop_at_first: bool | None
    metric_bounds: tuple[float, float] | None
    output_names: str | Sequence[str] | None
    inputs: InputValues | None
    transform: Transform | None
    batch_size: int | None
    evaluation_threads: int | None
    evaluation_timeout: float | str | None
    early_stopping: str | None
    error_probability: float
    holdout: float | DataLike | Evaluate | None
    verify: bool
    measure_gain: bool
    latency_batch_size: int | None
    approach: str | None
    target: TargetLike | None
    float16_storage: bool | None
    reduce_range: bool | None
    op_types: Sequence[str] | str
    op_type_dict: OpDict | None
    op_name_dict: OpDict | None
    sensitivities: SensitivitiesLike | None
    calibration_sizes: Sequence[int] | None
    recipes: RecipesLike | None
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None
    threads: int | None
    session_options: RunSettings | None
    cache_dir: str | os.PathLike[str] | None
    from_study: FromStudy | None
    costs: CostsLike | None
    quant_level: str | int | None
    n_jobs: int
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]]
    show_progress: bool
    artifact_store: ArtifactStore | None
    accuracy_criterion: AccuracyCriterion | None
    tuning_criterion: TuningCriterion | None
    evaluation: EvaluationOptions | None
    quantization: QuantizationOptions | None
    runtime: RuntimeOptions | None
    search: SearchOptions | None


class ModelOptions(TypedDict, total=False):
    """See :func:`optuna_quant.quantize`."""

    example_inputs: object
    backend: Backend | None
    inputs: InputValues | None
    transform: Transform | None
    approach: str | None
    target: TargetLike | None
    float16_storage: bool | None
    reduce_range: bool | None
    op_types: Sequence[str] | str
    op_type_dict: OpDict | None
    op_name_dict: OpDict | None
    sensitivities: SensitivitiesLike | None
    calibration_sizes: Sequence[int] | None
    recipes: RecipesLike | None
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None
    threads: int | None
    session_options: RunSettings | None
    cache_dir: str | os.PathLike[str] | None
    quantization: QuantizationOptions | None
    runtime: RuntimeOptions | None
