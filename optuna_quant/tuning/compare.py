"""Compare two model files: which is faster, which is smaller, and how closely they agree."""

from __future__ import annotations

from collections.abc import Sequence
import os
from typing import TYPE_CHECKING

from optuna_quant.costs.comparison import Comparison
from optuna_quant.costs.comparison import ModelFigures
from optuna_quant.costs.comparison import time_ratio
from optuna_quant.costs.timing import time_interleaved


if TYPE_CHECKING:
    from optuna_quant.data.given import CalibrationLike
    from optuna_quant.data.given import DataLike
    from optuna_quant.data.given import InputValues
    from optuna_quant.data.given import Transform
    from optuna_quant.evaluation.metrics.sample_metrics import Metric


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
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
    """Compare two ONNX models: time, size, outputs, and accuracy where data are given.

    They are run in turn on the same inputs: those of ``calibration_data``, else those of ``data``,
    else random ones of the shapes that the first model asks for.

    Args:
        first:
            The path of the first model, which the second one is compared with.
        second:
            The path of the second one. Both must have the same inputs.
        data:
            Labelled data for the metric, as
            :class:`~optuna_quant.evaluation.labelled.DataEvaluation` takes them.
        metric:
            The metric on ``data``; ``"accuracy"`` by default.
        calibration_data:
            Samples without labels to run the models on, as
            :class:`~optuna_quant.backends.onnxruntime.OnnxRuntimeBackend` takes them.
        output_names:
            The outputs that the metric is of; the first one by default.
        inputs:
            Inputs that are the same for all samples, by name.
        transform:
            Function of what the data hold of one sample that gives the input.
        batch:
            How many samples a run has, unless the model says it.
        threads:
            The threads of a run; all cores by default.
        rounds:
            How often each model is measured.
        samples:
            On how many samples the outputs are compared, at most.
        seed:
            Of random inputs.
        providers:
            The execution providers; ``["CPUExecutionProvider"]`` by default.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ValueError:
            If a file is no model that can be loaded, the models have different inputs, the data
            do not fit them, or a number is out of range.

    Example:
        >>> print(compare("model.onnx", "model.int8.onnx", data="eval.npz"))  # doctest: +SKIP
    """
    for name, value in (("batch", batch), ("rounds", rounds), ("samples", samples)):
        _check_positive(name, value)
    if threads is not None:
        _check_positive("threads", threads)
    if metric is not None and data is None:
        raise ValueError("metric needs data: give data, or leave metric out.")
    from optuna_quant.backends.default import load_pair
    from optuna_quant.evaluation.labelled import DataEvaluation

    evaluation = None
    if data is not None:
        evaluation = DataEvaluation(
            data,
            "accuracy" if metric is None else metric,
            output_names=output_names,
            inputs=inputs,
            transform=transform,
        )
    pair = load_pair(first, second, threads=threads, providers=providers)
    if evaluation is not None:
        for model in pair.models:
            evaluation.check(model)
    preview = None if evaluation is None else evaluation.preview
    feeds, source = pair.feeds(
        calibration_data=calibration_data,
        preview=preview,
        inputs=inputs,
        transform=transform,
        batch=batch,
        samples=samples,
        seed=seed,
    )
    timings = time_interleaved(pair.runs(feeds[0].feed), rounds=rounds)
    outputs = pair.agreement([each.feed for each in feeds])
    metrics: list[float | None] = [None, None]
    if evaluation is not None:
        one, other = pair.models
        evaluation.refer_to(lambda: one)
        metrics = [evaluation.for_fp32()(one), evaluation(other)]
    figures = [
        ModelFigures(os.fspath(path), nbytes, timing.seconds, timing.spread, value)
        for path, nbytes, timing, value in zip(
            (first, second), pair.nbytes, timings, metrics, strict=True
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


def _check_positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, but got {value!r}.")
