"""Compare two models: which is faster, which is smaller, and how closely they agree."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import TYPE_CHECKING
from typing import Any

from optuna_quant._common.counts import check_positive
from optuna_quant.backends.default import load_pair
from optuna_quant.costs.comparison import Comparison
from optuna_quant.costs.comparison import ModelFigures
from optuna_quant.costs.comparison import time_ratio
from optuna_quant.costs.model_pair import BuiltPair
from optuna_quant.costs.timing import time_interleaved
from optuna_quant.evaluation.labelled import DataEvaluation


if TYPE_CHECKING:
    from optuna_quant.backends.base import Model
    from optuna_quant.backends.base import RunnableModel
    from optuna_quant.costs.model_pair import Pair
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.metrics.sample_metrics import Metric


def compare(
    first: str | os.PathLike[str] | Model,
    second: str | os.PathLike[str] | Model,
    *,
    data: DataLike | None = None,
    metric: Metric | None = None,
    calibration_data: CalibrationLike | None = None,
    output_names: str | Sequence[str] | None = None,
    inputs: InputValues | None = None,
    transform: Transform | None = None,
    batch: int = 1,
    threads: int | None = None,
    rounds: int = 50,
    samples: int = 64,
    seed: int = 0,
    providers: Sequence[str] | None = None,
) -> Comparison:
    """Compare two models: time, size, outputs, and accuracy where data are given.

    They are run in turn on the same inputs: those of ``calibration_data``, else those of ``data``,
    else random ones of the shapes that the first model asks for.

    Args:
        first:
            The path of the first ONNX model, which the second one is compared with; or a model of
            any runtime as a backend builds it.
        second:
            The second one: a path if the first one is given by a path, else a model. Both must
            have the same inputs.
        data:
            Labelled data for the metric, as
            :class:`~optuna_quant.evaluation.labelled.DataEvaluation` takes them.
        metric:
            The metric on ``data``; ``"accuracy"`` by default.
        calibration_data:
            Samples without labels to run the models on, as
            :class:`~optuna_quant.backends.onnxruntime.OnnxRuntimeBackend` takes them. For paths.
        output_names:
            The outputs that the metric is of; the first one by default.
        inputs:
            Inputs that are the same for all samples, by name.
        transform:
            Function of what the data hold of one sample that gives the input.
        batch:
            How many samples a run has, unless the model says it.
        threads:
            The threads of a run; all cores by default. For paths.
        rounds:
            How often each model is measured.
        samples:
            On how many samples the outputs are compared, at most.
        seed:
            Of random inputs.
        providers:
            The execution providers; ``["CPUExecutionProvider"]`` by default. For paths.

    Raises:
        FileNotFoundError:
            If there is no such file.
        TypeError:
            If they are neither two paths nor two models.
        ValueError:
            If a file is no model that can be loaded, the models have different inputs, the data
            do not fit them, or a number is out of range.

    Example:
        >>> print(compare("model.onnx", "model.int8.onnx", data="eval.npz"))  # doctest: +SKIP
    """
    for name, value in (("batch", batch), ("rounds", rounds), ("samples", samples)):
        check_positive(name, value)
    if threads is not None:
        check_positive("threads", threads)
    if metric is not None and data is None:
        raise ValueError("metric needs data: give data, or leave metric out.")
    for_paths = {"calibration_data": calibration_data, "threads": threads, "providers": providers}
    evaluation = _evaluation(
        data, metric, output_names=output_names, inputs=inputs, transform=transform
    )
    pair = _pair(first, second, for_paths)
    if evaluation is not None:
        for model in pair.models:
            evaluation.check(model)
    feeds, source = pair.feeds(
        calibration_data=calibration_data,
        preview=None if evaluation is None else evaluation.runs.preview,
        inputs=inputs,
        transform=transform,
        batch=batch,
        samples=samples,
        seed=seed,
    )
    timings = time_interleaved(pair.runs(feeds[0].feed), rounds=rounds)
    outputs = pair.agreement([each.feed for each in feeds])
    figures = [
        ModelFigures(name, nbytes, timing.seconds, timing.spread, value)
        for name, nbytes, timing, value in zip(
            pair.names, pair.nbytes, timings, _metrics(evaluation, pair.models), strict=True
        )
    ]
    return Comparison(
        figures[0],
        figures[1],
        time_ratio(*timings),
        outputs,
        None if evaluation is None else evaluation.metric,
        None if evaluation is None else evaluation.higher_is_better,
        feeds[0].samples,
        threads or 0,
        len(timings[0].runs),
        sum(each.samples for each in feeds),
        source,
    )


def _evaluation(
    data: DataLike | None,
    metric: Metric | None,
    *,
    output_names: str | Sequence[str] | None,
    inputs: InputValues | None,
    transform: Transform | None,
) -> DataEvaluation | None:
    """What evaluates the models; :obj:`None` without data."""
    if data is None:
        return None
    return DataEvaluation(
        data,
        "accuracy" if metric is None else metric,
        output_names=output_names,
        inputs=inputs,
        transform=transform,
    )


def _metrics(
    evaluation: DataEvaluation | None, models: Sequence[RunnableModel]
) -> tuple[float | None, ...]:
    """The metric of each model; the first one stands for the FP32 model."""
    if evaluation is None:
        return None, None
    first, second = models
    evaluation.refer_to(lambda: first)
    return evaluation.for_fp32()(first), evaluation(second)


def _pair(first: Any, second: Any, for_paths: Mapping[str, Any]) -> Pair:
    """The two models, ready to run."""
    paths = [isinstance(each, str | os.PathLike) for each in (first, second)]
    if all(paths):
        return load_pair(
            first, second, threads=for_paths["threads"], providers=for_paths["providers"]
        )
    if any(paths) or not all(callable(getattr(each, "run", None)) for each in (first, second)):
        raise TypeError(
            "compare takes the paths of two ONNX models, or two models that backends have built, "
            f"but got {type(first).__name__} and {type(second).__name__}."
        )
    for name, value in for_paths.items():
        if value is not None:
            raise ValueError(
                f"{name} goes with the paths of ONNX models; models that backends have built run "
                "as they are, on data= or on random inputs."
            )
    return BuiltPair(first, second)
