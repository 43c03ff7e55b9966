"""Evaluate models on labelled data, batch by batch and in any order of samples."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.counts import check_count
from optuna_quant.data.constant_inputs import ConstantInputs
from optuna_quant.data.outputs import as_output_names
from optuna_quant.data.sample_checks import LABELS
from optuna_quant.data.sources import open_data
from optuna_quant.data.subset import SubsetData
from optuna_quant.evaluation.baseline_checks import BaselineChecks
from optuna_quant.evaluation.bound_model import runnable_model
from optuna_quant.evaluation.compared_runs import ComparedRuns
from optuna_quant.evaluation.data_runs import DataRuns
from optuna_quant.evaluation.metrics.batch_scores import corpus_score
from optuna_quant.evaluation.metrics.batch_scores import mean_score
from optuna_quant.evaluation.metrics.batch_scores import only_scores
from optuna_quant.evaluation.metrics.batch_scores import scores_and_margins
from optuna_quant.evaluation.metrics.named import as_metric_of
from optuna_quant.evaluation.metrics.named import metrics
from optuna_quant.evaluation.metrics.sample_metrics import CorpusMetric
from optuna_quant.evaluation.metrics.sample_metrics import Metric
from optuna_quant.evaluation.metrics.sample_metrics import SampleMetric
from optuna_quant.evaluation.metrics.sample_metrics import Score
from optuna_quant.evaluation.metrics.sample_metrics import accuracy
from optuna_quant.evaluation.metrics.sample_metrics import mae
from optuna_quant.evaluation.metrics.sample_metrics import mse
from optuna_quant.evaluation.metrics.sample_metrics import top5
from optuna_quant.evaluation.metrics.score_bounds import Bounds
from optuna_quant.evaluation.metrics.score_bounds import useful_bounds
from optuna_quant.evaluation.metrics.truth import Truth


if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from numpy.typing import NDArray

    from optuna_quant.backends.default import RunnableLike
    from optuna_quant.data.forms import InputValues
    from optuna_quant.data.forms import Transform
    from optuna_quant.data.given import DataLike
    from optuna_quant.evaluation.run_ahead import Indices as _Indices


__all__ = [
    "LABELS",
    "CorpusMetric",
    "DataEvaluation",
    "SampleMetric",
    "Score",
    "accuracy",
    "as_metric_of",
    "mae",
    "metrics",
    "mse",
    "top5",
]

_BATCH_SIZE = 64

_logger = get_logger(__name__)


class DataEvaluation:
    """Evaluates a metric on labelled data.

    All methods take such a :class:`~optuna_quant.backends.base.Model`, or a session of ONNX
    Runtime. So this is a :class:`~optuna_quant.evaluation.sample_evaluation.SampleEvaluation`
    as well.

    Samples are read and run a batch at a time, so that the data may be larger than the memory. An
    evaluation can be called with a model for the metric of all samples, or asked for the scores
    of some samples.

    Args:
        data:
            An array for each input of the model and one of labels, samples along the first axis:
            a dict of arrays, a path to an ``.npz`` file, or a path to a folder of ``.npy`` files,
            which are mapped and not read. Or a dataset that gives one sample, see
            :class:`~optuna_quant.data.labelled_dataset.DatasetData`. The labels are named
            ``labels``, ``label``, ``targets``, ``target`` or ``y``, or are the one array that is
            no input. Or a pair ``(X, y)``, a data loader, an iterable of batches, a folder of
            images: see :func:`~optuna_quant.data.sources.open_data`. A metric that
            compares with the FP32 model needs no labels.
        metric:
            ``"accuracy"``, ``"top5"`` (or any other number), ``"exact_match"``, ``"iou"``,
            ``"mse"`` or ``"mae"``; of how far the output agrees with the FP32 model's own,
            ``"agreement"``, ``"cosine"`` or ``"relative_error"``; a name of
            :func:`~optuna_quant.evaluation.metrics.library.library_metric_names`; a
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.SampleMetric` or
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.CorpusMetric`; an object of
            torchmetrics or Keras; or a function that gives the score of each sample, of which
            higher is better. It is of the model's first output, unless ``output_names`` says
            otherwise.
        batch_size:
            How many samples are run at once, unless the model has a fixed batch size. Default: 64,
            but 1 for a model whose results depend on the batch, as those of dynamic quantization
            do. That can be told of a model that a backend has built, not of a session.
        threads:
            How many batches are run at the same time; the model must allow that. Data are read
            and scored in the calling thread. A model that
            :class:`~optuna_quant.backends.base.RunsConcurrently` lets the batches share the cores.
        metric_bounds:
            The lowest and the highest score of a sample, for a metric that does not say it or
            leaves one open, such as ``"mse"``.
        output_names:
            The name of the output that the metric is of, or the names of several: then the
            metric's function gets a tuple of them, in this order. Default: the first output.
        inputs:
            Inputs that are the same for all samples, such as a sampling rate or the first
            recurrent state, by name: see
            :class:`~optuna_quant.data.constant_inputs.ConstantInputs`.
        transform:
            Function of what the data hold of one sample, an array or an image, that gives the
            input as the model takes it, without an axis of samples.

    Attributes:
        metric:
            The metric's name.
        name:
            The same.
        higher_is_better:
            Whether more is better.
        is_mean:
            Whether the metric is the mean of the samples' scores. Not so for a
            :class:`~optuna_quant.evaluation.metrics.sample_metrics.CorpusMetric`.
        bounds:
            The lowest and the highest score of a sample; the worse one is infinite if it is not
            known, and :obj:`None` stands for a best one that is not known.
        reference:
            What outputs are compared with: ``"labels"``, or ``"fp32"``, the FP32 model's outputs.
        batch_size:
            How many samples are run at once.
        dynamic_batch_size:
            The same, of a model whose results depend on it.
        threads:
            How many batches are run at the same time.
        output_names:
            The names of the outputs that the metric is of; :obj:`None` for the first one.
        inputs:
            The inputs that are the same for all samples.
        transform:
            What makes inputs of samples; :obj:`None` if they are used as they are.

    Raises:
        TypeError:
            If the data or the metric are of a type that is not known.
        ValueError:
            If the metric is not known, the data cannot be read, or a number is out of range.
    """

    def __init__(
        self,
        data: DataLike,
        metric: Metric = "accuracy",
        *,
        batch_size: int | None = None,
        threads: int = 1,
        metric_bounds: Bounds | None = None,
        output_names: str | Sequence[str] | None = None,
        inputs: InputValues | None = None,
        transform: Transform | None = None,
    ) -> None:
        self._metric = as_metric_of(metric, bounds=metric_bounds)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        check_count("threads", threads)
        self.metric = self.name = self._metric.name
        self.higher_is_better = self._metric.higher_is_better
        self.is_mean = isinstance(self._metric, SampleMetric)
        bounds = self._metric.bounds if isinstance(self._metric, SampleMetric) else None
        self.bounds = useful_bounds(bounds, higher_is_better=self.higher_is_better)
        self.reference = self._metric.reference
        self.batch_size = _BATCH_SIZE if batch_size is None else batch_size
        self.dynamic_batch_size = 1 if batch_size is None else batch_size
        self.threads = threads
        self.output_names = as_output_names(output_names)
        if isinstance(metric, str):
            _check_one_output(self.name, self.output_names)
        self._inputs = ConstantInputs(inputs)
        self.inputs = self._inputs.values
        self.transform = transform
        self._data = open_data(data, transform)
        self._truth = Truth.of(self._metric)
        self._checks: BaselineChecks | None = None
        # All copies add to it.
        self._warnings: list[str] = []
        if self.reference == "fp32":
            self._data = self._data.without_labels()

    @property
    def samples(self) -> int:
        """The number of samples, at least one.

        Raises:
            ValueError:
                If it cannot be told, or is zero.
        """
        return self._data.samples

    @property
    def runs(self) -> DataRuns:
        """Runs models on the data, as they are evaluated."""
        return DataRuns(
            self._data,
            self._inputs,
            output_names=self.output_names,
            batch_size=self.batch_size,
            dynamic_batch_size=self.dynamic_batch_size,
            threads=self.threads,
            one_by_one=self._metric.per_sample,
        )

    @property
    def sample_metric(self) -> SampleMetric | CorpusMetric:
        """The metric itself."""
        return self._metric

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was suspicious about the data so far, also to evaluations made of this one."""
        return tuple(self._warnings)

    def warn(self, text: str) -> None:
        """Warn of what is suspicious about the data, once, and remember it."""
        if text not in self._warnings:
            self._warnings.append(text)
            _logger.warning(text)

    def __call__(self, model: RunnableLike) -> float:
        """The metric of a model, on all samples.

        Raises:
            ValueError:
                If the data do not fit the model, or the metric gives what is no score.
        """
        self.check(model)
        batches = self._compared.batches(model, np.arange(self.samples))
        if isinstance(self._metric, CorpusMetric):
            return corpus_score(self._metric, batches)
        return mean_score(replace(self._metric, margin=None), batches)

    def scores(
        self, model: RunnableLike, indices: ArrayLike
    ) -> Generator[NDArray[np.float64], None, None]:
        """The scores of some samples.

        Args:
            model:
                The model.
            indices:
                Which samples, from 0 on, in any order, of shape ``(n,)``.

        Returns:
            A generator that gives the scores in the order of ``indices``, a batch at a time.
            Batches are run as it is asked for them, with several threads up to as many ahead, so
            that it can be closed early. Closing it waits for what is being run.

        Raises:
            ValueError:
                If the data do not fit the model, an index is out of range, the metric is of the
                whole set only, or a score has the wrong shape, is not finite or out of bounds.
        """
        metric, chosen = self._checked(model, indices)
        batches = self._compared.batches(model, chosen)
        return only_scores(scores_and_margins(replace(metric, margin=None), batches))

    def scores_and_margins(
        self, model: RunnableLike, indices: ArrayLike
    ) -> Generator[tuple[NDArray[np.float64], NDArray[np.float64] | None], None, None]:
        """The scores of some samples, and how far each is from being decided otherwise.

        Args:
            model:
                The model.
            indices:
                Which samples, from 0 on, in any order, of shape ``(n,)``.

        Returns:
            As :meth:`scores`, with pairs of scores and margins, both of shape ``(batch,)``. The
            margins are :obj:`None` if the metric does not tell them.

        Raises:
            ValueError:
                As :meth:`scores`.
        """
        metric, chosen = self._checked(model, indices)
        return scores_and_margins(metric, self._compared.batches(model, chosen))

    def subset(self, indices: _Indices) -> DataEvaluation:
        """The same evaluation, on some of the samples.

        Args:
            indices:
                Which samples, of shape ``(n,)``.
        """
        chosen = copy.copy(self)
        chosen._data = SubsetData(self._data, indices)
        chosen._truth = self._truth.for_other_samples()
        return chosen

    def check(self, model: RunnableLike) -> None:
        """Check that the data fit a model, without running it.

        Raises:
            ValueError:
                If they do not; it says what does not.
        """
        self.runs.check(model)

    def outputs_of(self, model: RunnableLike) -> tuple[str, ...]:
        """The names of a model's outputs."""
        return tuple(runnable_model(model, self.threads).outputs)

    def refer_to(self, fp32: Callable[[], RunnableLike]) -> None:
        """Say how to get the FP32 model, for a metric that compares with what it gives.

        It is run when its outputs are needed and not known yet: what evaluates the FP32 model with
        :meth:`for_fp32` knows them from there.

        Args:
            fp32:
                Function that builds the model.
        """
        self._truth = replace(self._truth, fp32=fp32)

    def for_fp32(self) -> DataEvaluation:
        """The same evaluation, for the FP32 model.

        What that gives for all samples in their order is kept in memory if the metric needs it,
        for this evaluation as well. Data that make no sense are an error, or a warning if that is
        not sure, see :class:`~optuna_quant.evaluation.baseline_checks.BaselineChecks`.
        """
        other = copy.copy(self)
        other._truth = self._truth.for_fp32()
        other._checks = BaselineChecks(
            self._metric, samples=self.samples, where=self._data.where, warn=self.warn
        )
        return other

    def signature(self) -> dict[str, str]:
        """What its metrics depend on besides the model: metric, data, labels; strings by part.

        Where two evaluations have the same signature, a model has the same metric in both, see
        :mod:`optuna_quant.evaluation.signature`.
        """
        from optuna_quant.evaluation.signature import data_signature

        return data_signature(self, metric=self._metric, data=self._data)

    @property
    def _compared(self) -> ComparedRuns:
        return ComparedRuns(self.runs, self._truth, self._checks)

    def _checked(self, model: RunnableLike, indices: ArrayLike) -> tuple[SampleMetric, _Indices]:
        """The metric and the indices, if samples can be scored with them."""
        metric = _of_samples(self._metric)
        self.check(model)
        return metric, _checked_indices(indices, self.samples)


def _of_samples(metric: SampleMetric | CorpusMetric) -> SampleMetric:
    """The metric, if it has a score for each sample."""
    if not isinstance(metric, SampleMetric):
        raise ValueError(
            f"The metric {metric.name!r} is a metric of the whole set; samples have no scores of "
            "their own."
        )
    return metric


def _check_one_output(metric: str, names: tuple[str, ...] | None) -> None:
    """Refuse several outputs for a metric that has a name."""
    if names is not None and len(names) > 1:
        raise ValueError(
            f"The metric {metric!r} scores one output, but output_names has {len(names)}: for "
            "several give your own function, which gets a tuple of them."
        )


def _checked_indices(indices: ArrayLike, samples: int) -> _Indices:
    """The numbers of samples as an array, if there are such samples."""
    array = np.asarray(indices)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"indices must be integers of shape (n,), but got {array.dtype} of shape "
            f"{array.shape}."
        )
    wrong = array[(array < 0) | (array >= samples)]
    if len(wrong):
        raise ValueError(f"There is no sample {wrong[0]}: the samples are 0 to {samples - 1}.")
    return array.astype(np.int64, copy=False)
