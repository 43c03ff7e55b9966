"""Check the evaluation data for mistakes during the FP32 model's pass."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.logging import get_logger

from optuna_quant.evaluation.metrics.classes import class_axis
from optuna_quant.evaluation.metrics.classes import class_labels
from optuna_quant.evaluation.metrics.label_forms import is_of_classes
from optuna_quant.evaluation.metrics.library import CLASS_METRICS
from optuna_quant.evaluation.metrics.library import library_metric_names
from optuna_quant.evaluation.metrics.objects import object_of
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.evaluation.metrics.sample_metrics import exact_match
from optuna_quant.evaluation.metrics.sample_metrics import iou
from optuna_quant.evaluation.metrics.sample_metrics import mae
from optuna_quant.evaluation.metrics.sample_metrics import mse
from optuna_quant.evaluation.metrics.sample_metrics import top5
from optuna_quant.evaluation.metrics.sample_metrics import topk


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.data.sample_runs import Outputs
    from optuna_quant.data.sample_runs import Rows
    from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric

    _Indices = NDArray[np.integer[Any]]


_logger = get_logger(__name__)

# With what probability chance alone may be taken for more.
_SIGNIFICANT = 0.01
# What is so far above chance is not asked about, however few samples there are: the part of the
# way from chance to always.
_CLEARLY_BETTER = 0.2
# Labels that are off by one make a model right as often as this.
_MOSTLY = 0.5
# A model that is right less often, and is surer than that by so much, is asked about.
_POOR = 0.6
_TOO_SURE = 0.35
# What is counted for each class is counted up to so many classes.
_MOST_CLASSES = 100_000


class BaselineChecks:
    """Checks the batches of the FP32 model's pass.

    What cannot be right is an error, as soon as it is seen. What is suspicious is one warning,
    when all was seen.

    Args:
        metric:
            The metric. What labels mean is known of those that have names.
        samples:
            The number of samples.
        where:
            What the data are, for messages.
        warn:
            Gets what is suspicious. Default: it is logged.
    """

    def __init__(
        self,
        metric: SampleMetric | CorpusMetric,
        *,
        samples: int,
        where: str,
        warn: Callable[[str], None] = _logger.warning,
    ) -> None:
        self._warn = warn
        self._metric = metric
        self._samples = samples
        self._where = where
        self._has_classes = _is_of_classes(metric)
        self._is_known = self._has_classes or _is_of_values(metric)
        self._seen = 0
        self._infinite: tuple[str, int] | None = None
        self._nan_output: int | None = None
        self._counts = _Counts()
        self._sure = 0.0

    def see_inputs(self, feed: Mapping[str, Rows], chosen: _Indices) -> None:
        """Look at the inputs of a batch.

        Raises:
            ValueError:
                If one is NaN.
        """
        for name, array in feed.items():
            if _first(_is_infinite, array, chosen) is None:
                continue
            bad = _first(np.isnan, array, chosen)
            if bad is not None:
                raise ValueError(
                    f"Input {name!r} is NaN in sample {bad} of {self._where}: leave the sample "
                    "out, or fill in missing values as for inference."
                )
            # -inf is how masks are written.
            bad = _first(np.isposinf, array, chosen)
            if bad is not None and self._infinite is None:
                self._infinite = name, bad

    def see_outputs(self, output: Outputs, labels: Outputs, chosen: _Indices) -> None:
        """Look at what the FP32 model gives for a batch, and at the labels.

        Raises:
            ValueError:
                If the output is NaN, or a label is no class of the model.
        """
        self._seen += len(chosen)
        outputs = output if isinstance(output, tuple) else (output,)
        found = [_first(np.isnan, each, chosen) for each in outputs]
        bad = next((sample for sample in found if sample is not None), None)
        if bad is not None and (self._is_known or self._metric.reference == "fp32"):
            raise ValueError(
                f"The FP32 model's output is NaN for sample {bad} of {self._where}: nothing can "
                "be compared with it. Check the inputs of this sample, and the model."
            )
        if bad is not None and self._nan_output is None:
            self._nan_output = bad
        if self._metric.reference == "fp32" or not self._is_known:
            return
        if isinstance(output, np.ndarray) and isinstance(labels, np.ndarray):
            bad = _first(np.isnan, labels, chosen)
            if bad is not None:
                raise ValueError(f"The label of sample {bad} of {self._where} is NaN.")
            if self._has_classes:
                self._see_classes(output, labels, chosen)
        if self._seen >= self._samples:
            self._conclude()

    def _see_classes(self, output: NDArray[Any], labels: NDArray[Any], chosen: _Indices) -> None:
        if labels.dtype.kind not in "iubf":
            return  # The metric says so.
        first = self._metric.score is iou
        try:
            numbers = class_labels(output, labels)
            axis = class_axis(self._metric.name, output, numbers, classes_first=first)
        except ValueError:
            return  # The metric says so, or takes them for something else.
        if axis is None:
            return
        classes = output.shape[axis]
        self._check_enough(classes)
        if classes < 2:
            return
        self._check_range(numbers, classes, chosen)
        if first or classes > _MOST_CLASSES:
            return
        if output.ndim == 2 and output.dtype.kind == "f":
            self._sure += float(_confidence(output).sum())
        predicted = output.argmax(axis=axis).reshape(-1)
        self._counts.add(predicted, numbers.astype(np.int64).reshape(-1), classes)

    def _check_enough(self, classes: int) -> None:
        """Refuse a metric that gives every model of so few classes the same."""
        score = self._metric.score
        k = 5 if score is top5 else 0
        if isinstance(score, partial) and score.func is topk:
            k = score.keywords["k"]
        if 0 < classes <= k:
            raise ValueError(
                f"The metric {self._metric.name!r} is 1 for every model, because this one has "
                f"only {classes} classes: use accuracy, or a smaller number than {k}."
            )
        if classes == 1 and score in (accuracy, exact_match):
            raise ValueError(
                f"The metric {self._metric.name!r} needs a score for each class, but the model "
                "gives one number for each sample. If that number decides between two classes, "
                "use f1, roc_auc or log_loss; if it is a value, use mse, mae or r2."
            )

    def _check_range(self, labels: NDArray[Any], classes: int, chosen: _Indices) -> None:
        wrong = (labels < 0) | (labels >= classes)
        if labels.dtype.kind == "f":
            wrong |= labels != np.floor(labels)
        bad = _first_row(wrong, chosen)
        if bad is None:
            return
        row = int(np.flatnonzero(chosen == bad)[0])
        label = labels[row][wrong[row]].reshape(-1)[0] if labels.ndim > 1 else labels[row]
        hint = (
            "To ignore labels with a special value, use a SampleMetric of your own."
            if labels.ndim > 1
            else "Number the classes like the model's outputs."
        )
        if float(labels.min()) >= 1 and float(labels.max()) == classes:
            hint = "They seem to be numbered from 1: subtract 1 from each."
        raise ValueError(
            f"The label {label} of sample {bad} of {self._where} is not a class of the model, "
            f"which has {classes}: labels must be from 0 to {classes - 1}. {hint}"
        )

    def _conclude(self) -> None:
        if self._infinite is not None:
            name, sample = self._infinite
            self._warn(f"Input {name!r} is infinite in sample {sample} of {self._where}.")
        if self._nan_output is not None:
            self._warn(
                f"The FP32 model's output is NaN for sample {self._nan_output} of {self._where}."
            )
        if self._counts.total:
            self._check_chance()

    def _check_chance(self) -> None:
        """Ask whether labels and samples belong together.

        Raises:
            ValueError:
                If they do with labels that are off by one, and not as they are.
        """
        counts = self._counts
        right, chance = counts.part_right(0), counts.chance
        if not _is_chance(right, chance, self._samples):
            self._check_confidence(right)
            return
        is_right = f"The FP32 model is right for {100 * right:.3g}% of {self._where}, which"
        by_chance = f"{100 * chance:.3g}% with {counts.classes} classes"
        swapped = 1 - right
        if counts.classes == 2 and not _is_chance(swapped, 1 - chance, self._samples):
            self._warn(
                f"{is_right} is less than by chance ({by_chance}). With the two classes swapped "
                f"it would be right for {100 * swapped:.3g}%: are they numbered like the model's "
                "outputs?"
            )
            return
        told = f"is no better than chance ({by_chance})"
        if right > chance:
            told = f"cannot be told from chance ({by_chance}) with {self._samples} samples"
        said = (
            f"{is_right} {told}: are the labels in the order of the samples, and numbered from 0?"
        )
        for shift, cure in ((1, "taken off"), (-1, "added to")):
            shifted = counts.part_right(shift)
            if shifted >= _MOSTLY and not _is_chance(shifted, chance, self._samples):
                raise ValueError(
                    f"{said} With 1 {cure} each label it would be right for {100 * shifted:.3g}%."
                )
        self._warn(said)

    def _check_confidence(self, right: float) -> None:
        """Ask about inputs if the model is far more often wrong than it seems to believe.

        Networks are too sure of themselves, but not by so much on data like those of training;
        images of another scale drive outputs apart.
        """
        sure = self._sure / self._counts.total
        if right < _POOR and sure - right > _TOO_SURE:
            self._warn(
                f"The FP32 model itself is right for {100 * right:.3g}% of {self._where}, though "
                f"on average it is {100 * sure:.3g}% sure of its answers: are the inputs prepared "
                "as in training (images scaled to 0 to 1, normalized)? What meets the criterion "
                "is no better than that."
            )


def _confidence(scores: NDArray[Any]) -> NDArray[Any]:
    """The probability of the class with the highest score, of probabilities or logits."""
    values = scores.astype(np.float64)
    if values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        return np.asarray(values.max(axis=1))
    return np.asarray(1 / np.exp(values - values.max(axis=1, keepdims=True)).sum(axis=1))


class _Counts:
    """How often classes are predicted, are right, and agree."""

    def __init__(self) -> None:
        self.total = 0
        self.classes = 0
        self._agree = {-1: 0, 0: 0, 1: 0}
        self._predicted = np.zeros(0, dtype=np.int64)
        self._right = np.zeros(0, dtype=np.int64)

    def add(self, predicted: NDArray[Any], right: NDArray[Any], classes: int) -> None:
        if not self.classes:
            self.classes = classes
            self._predicted = np.zeros(classes, dtype=np.int64)
            self._right = np.zeros(classes, dtype=np.int64)
        if classes != self.classes:
            return
        self.total += len(right)
        for shift in self._agree:
            self._agree[shift] += int(np.count_nonzero(predicted == right - shift))
        self._predicted += np.bincount(predicted, minlength=classes)
        self._right += np.bincount(right, minlength=classes)

    def part_right(self, shift: int) -> float:
        """How often the prediction is the label, less the shift."""
        return self._agree[shift] / self.total

    @property
    def chance(self) -> float:
        """How often they would agree if they had nothing to do with each other.

        Of classes that are predicted and occur as often as these; at least one in all classes.
        Where one class alone is predicted or right, that would always be as often as it is.
        """
        uniform = 1 / self.classes
        if min(np.count_nonzero(self._predicted), np.count_nonzero(self._right)) < 2:
            return uniform
        together = float(self._predicted @ self._right) / self.total**2
        return max(uniform, together)


def _is_chance(right: float, chance: float, samples: int) -> bool:
    """Whether so much may be by chance, and is not much more than chance."""
    if right - chance >= _CLEARLY_BETTER * (1 - chance):
        return False
    # The positions of a sample depend on each other: only samples count.
    from scipy.special import bdtrc  # Slow to import, and seldom needed.

    # The binomial distribution's upper tail.
    return bool(bdtrc(round(right * samples) - 1, samples, chance) > _SIGNIFICANT)


def _first(is_wrong: Callable[[Any], Any], values: Rows, chosen: _Indices) -> int | None:
    """The first sample of a batch that has a number of which something is wrong."""
    if isinstance(values, np.ndarray):
        return None if values.dtype.kind != "f" else _first_row(is_wrong(values), chosen)
    for sample, value in zip(chosen.tolist(), values, strict=True):
        if getattr(value, "dtype", np.dtype(object)).kind == "f" and is_wrong(value).any():
            return int(sample)
    return None


def _is_infinite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which are infinite, or no numbers."""
    return np.asarray(~np.isfinite(values))


def _first_row(wrong: NDArray[np.bool_], chosen: _Indices) -> int | None:
    """The first sample of a batch in which something is wrong."""
    rows = np.flatnonzero(wrong.reshape(len(chosen), -1).any(axis=1))
    return int(chosen[rows[0]]) if len(rows) else None


def _is_of_classes(metric: SampleMetric | CorpusMetric) -> bool:
    score = metric.score
    if isinstance(metric, CorpusMetric):
        known = metric.name in CLASS_METRICS and _is_of_library(metric)
        return known or is_of_classes(object_of(metric))
    own = (accuracy, exact_match, top5, iou)
    return score in own or (isinstance(score, partial) and score.func is topk)


def _is_of_values(metric: SampleMetric | CorpusMetric) -> bool:
    return metric.score in (mse, mae) or _is_of_library(metric)


def _is_of_library(metric: SampleMetric | CorpusMetric) -> bool:
    """Whether a metric of the whole set is one of those with names."""
    names = library_metric_names()
    return isinstance(metric.score, partial) and metric.score.keywords.get("name") in names
