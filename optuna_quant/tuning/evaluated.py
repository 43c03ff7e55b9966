"""Evaluate one model: its metric, and how far that may be from the metric on other samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from dataclasses import dataclass
import os
from typing import TYPE_CHECKING
from typing import Any
from typing import SupportsFloat
from typing import cast

import numpy as np

from optuna_quant.backends.default import as_runnable
from optuna_quant.backends.default import load_session
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.given_scores import GivenScores
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.space.left_out import shown_bytes


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from optuna_quant.backends.base import RunnableModel
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.metrics.sample_metrics import Metric
    from optuna_quant.evaluation.metrics.score_bounds import Bounds


CONFIDENCE = 0.95
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The metric of one model.

    Args:
        model:
            The path of the model.
        metric:
            What the metric is called.
        value:
            The metric.
        interval:
            Between which values the metric on all samples of this kind is, with 95% confidence:
            Wilson's interval where scores are right or wrong, otherwise Student's. :obj:`None` if
            samples have no scores of their own.
        samples:
            The number of samples; :obj:`None` if it is not known.
        model_bytes:
            The size of the model.
    """

    model: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    samples: int | None
    model_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        on = "" if self.samples is None else f" on {self.samples} samples"
        size = shown_bytes(self.model_bytes)
        if self.interval is None:
            known = "no interval, because samples have no scores of their own"
        else:
            low, high = self.interval
            known = f"{100 * CONFIDENCE:.0f}% confidence: {low:.4g} to {high:.4g}"
        return f"{self.model} ({size}): {self.metric} {self.value:.6g}{on} ({known})"


def evaluate_model(
    model: str | os.PathLike[str],
    *,
    data: DataLike | None = None,
    evaluate: Callable[..., Any] | None = None,
    metric: Metric | None = None,
    metric_bounds: Bounds | None = None,
    output_names: str | Sequence[str] | None = None,
    inputs: InputValues | None = None,
    transform: Transform | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
) -> Evaluated:
    """Evaluate one ONNX model, in FP32 or quantized.

    Args:
        model:
            The path of the model.
        data:
            Labelled data, as :func:`~optuna_quant.tune` takes them.
        evaluate:
            Instead of them: a function of the session that returns the metric, or the score of
            each sample.
        metric:
            The metric on ``data``; ``"accuracy"`` by default.
        metric_bounds:
            The lowest and the highest score of a sample.
        output_names:
            The outputs that the metric is of; the first one by default.
        inputs:
            Inputs that are the same for all samples, by name.
        transform:
            Function of what the data hold of one sample that gives the input.
        batch_size:
            How many samples are run at once.
        threads:
            The threads of a run; all cores by default.

    Raises:
        FileNotFoundError:
            If there is no such file.
        ValueError:
            If the file is no model that can be loaded, or the data do not fit it.
    """
    if (data is None) == (evaluate is None):
        raise ValueError("Give either data or evaluate.")
    session, size = load_session(model, threads=threads)
    if data is None:
        assert evaluate is not None
        name, scores = "metric", FunctionEvaluation(evaluate).measure(session)
        found = scores.values if isinstance(scores, GivenScores) else None
        value = (
            scores.mean
            if isinstance(scores, GivenScores)
            else float(cast("SupportsFloat", scores))
        )
        samples = None if found is None else len(found)
    else:
        evaluation = DataEvaluation(
            data,
            "accuracy" if metric is None else metric,
            metric_bounds=metric_bounds,
            output_names=output_names,
            inputs=inputs,
            transform=transform,
            batch_size=batch_size,
        )
        name, samples = evaluation.name, evaluation.samples
        value, found = _on_data(evaluation, as_runnable(session))
    interval = None if found is None else mean_interval(found)
    return Evaluated(
        model=os.fspath(model),
        metric=name,
        value=value,
        interval=interval,
        samples=samples,
        model_bytes=size,
    )


def _on_data(
    evaluation: DataEvaluation, model: RunnableModel
) -> tuple[float, NDArray[np.float64] | None]:
    """The metric, and the score of each sample where it has one."""
    if evaluation.reference == "fp32":
        raise ValueError(
            f"The metric {evaluation.name!r} compares with the FP32 model's outputs, so it is of "
            "two models: use compare (optuna-quant compare)."
        )
    if not evaluation.is_mean:
        return evaluation(model), None
    scores = np.concatenate(list(evaluation.scores(model, np.arange(evaluation.samples))))
    return float(scores.mean()), scores


def mean_interval(scores: NDArray[np.float64]) -> tuple[float, float] | None:
    """Between which values the mean of all scores of a kind is, by some of them.

    Args:
        scores:
            The scores, of shape ``(samples,)``.

    Returns:
        Wilson's interval of a share where scores are 0 and 1, otherwise Student's of a mean, with
        95% confidence; :obj:`None` of a single score.
    """
    from scipy import stats

    count = len(scores)
    if count < _FEWEST:
        return None
    if np.isin(scores, (0.0, 1.0)).all():
        found = stats.binomtest(int(scores.sum()), count).proportion_ci(CONFIDENCE, "wilson")
        return float(found.low), float(found.high)
    error = float(scores.std(ddof=1)) / count**0.5
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    mean = float(scores.mean())
    return mean - reach, mean + reach
